// SPDX-License-Identifier: Apache-2.0
//! The streaming calls.

use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse,
};
use hubble::proto::relay::{NodeState, NodeStatusEvent};
use hubble::proto::{nanos, timestamp};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub(super) use hubble::now;

/// Nanoseconds since 1970.
pub(super) type Time = i64;

/// A request that each node answers with a stream ordered by time.
pub(crate) trait Call: Clone + Send + 'static {
    type Answer: prost::Message + 'static;

    fn open(self, channel: Channel) -> impl Future<Output = Result<Streaming<Self::Answer>, Status>> + Send;

    fn time(answer: &Self::Answer) -> Option<Time>;

    /// The response as one of this node, whatever it says of itself; none if only a relay has it to say.
    fn of_node(answer: Self::Answer, name: &str) -> Option<Self::Answer>;

    /// How many responses of a node may be older than the request.
    fn past(&self) -> u64;

    /// Whether it is live: it ends only when the client ends it.
    fn goes_on(&self) -> bool;

    /// The same request, for what follows a time.
    fn after(&self, time: Time) -> Self;

    /// A response about nodes' state; none if the protocol cannot express it.
    fn node_status(_: NodeState, _: &[String], _: &str) -> Option<Self::Answer> {
        None
    }
}

macro_rules! call {
    ($request:ty, $answer:ty, $method:ident, $of_node:item $(, $node_status:item)?) => {
        impl Call for $request {
            type Answer = $answer;

            async fn open(self, channel: Channel) -> Result<Streaming<$answer>, Status> {
                ObserverClient::new(channel).$method(self).await.map(tonic::Response::into_inner)
            }

            fn time(answer: &$answer) -> Option<Time> {
                answer.time.as_ref().map(nanos)
            }

            $of_node

            fn past(&self) -> u64 {
                if self.goes_on() && self.since.is_none() && !self.first { self.number } else { u64::MAX }
            }

            fn goes_on(&self) -> bool {
                self.follow && self.until.is_none()
            }

            fn after(&self, time: Time) -> Self {
                let since = Some(timestamp(time.saturating_add(1)));
                Self { number: 0, first: false, since, ..self.clone() }
            }

            $($node_status)?
        }
    };
}

call!(
    GetFlowsRequest,
    GetFlowsResponse,
    get_flows,
    fn of_node(mut answer: GetFlowsResponse, name: &str) -> Option<GetFlowsResponse> {
        name.clone_into(&mut answer.node_name);
        match &mut answer.response_types {
            Some(ResponseTypes::Flow(flow)) if !flow.node_name.is_empty() => name.clone_into(&mut flow.node_name),
            Some(ResponseTypes::NodeStatus(_)) => return None,
            _ => {}
        }
        Some(answer)
    },
    fn node_status(state: NodeState, names: &[String], message: &str) -> Option<GetFlowsResponse> {
        let status =
            NodeStatusEvent { state_change: state.into(), node_names: names.to_vec(), message: message.to_owned() };
        let response_types = Some(ResponseTypes::NodeStatus(status));
        Some(GetFlowsResponse { time: Some(timestamp(now())), response_types, ..GetFlowsResponse::default() })
    }
);
call!(
    GetAgentEventsRequest,
    GetAgentEventsResponse,
    get_agent_events,
    fn of_node(answer: GetAgentEventsResponse, name: &str) -> Option<GetAgentEventsResponse> {
        Some(GetAgentEventsResponse { node_name: name.to_owned(), ..answer })
    }
);
call!(
    GetDebugEventsRequest,
    GetDebugEventsResponse,
    get_debug_events,
    fn of_node(answer: GetDebugEventsResponse, name: &str) -> Option<GetDebugEventsResponse> {
        Some(GetDebugEventsResponse { node_name: name.to_owned(), ..answer })
    }
);
