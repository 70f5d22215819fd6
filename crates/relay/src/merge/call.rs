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
use prost_types::Timestamp;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub(super) use hubble::now;

/// Nanoseconds since 1970.
pub(super) type Time = i64;

/// Bytes of a response of a node: clients take no more than 4 MiB of a relay, which adds the node's name.
const LARGEST: usize = (4 << 20) - (16 << 10);

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

/// Puts a time that no calendar has within bounds: whoever writes JSON would fail over it.
fn bound(time: &mut Option<Timestamp>) {
    if let Some(time) = time {
        *time = timestamp(nanos(time));
    }
}

macro_rules! call {
    ($request:ty, $answer:ty, $method:ident, $of_node:item $(, $node_status:item)?) => {
        impl Call for $request {
            type Answer = $answer;

            async fn open(self, channel: Channel) -> Result<Streaming<$answer>, Status> {
                let mut client = ObserverClient::new(channel).max_decoding_message_size(LARGEST);
                client.$method(self).await.map(tonic::Response::into_inner)
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
        bound(&mut answer.time);
        match &mut answer.response_types {
            Some(ResponseTypes::Flow(flow)) => {
                bound(&mut flow.time);
                if !flow.node_name.is_empty() {
                    name.clone_into(&mut flow.node_name);
                }
            }
            Some(ResponseTypes::LostEvents(lost)) => [&mut lost.first, &mut lost.last].into_iter().for_each(bound),
            Some(ResponseTypes::NodeStatus(_)) => return None,
            None => {}
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
    fn of_node(mut answer: GetAgentEventsResponse, name: &str) -> Option<GetAgentEventsResponse> {
        bound(&mut answer.time);
        Some(GetAgentEventsResponse { node_name: name.to_owned(), ..answer })
    }
);
call!(
    GetDebugEventsRequest,
    GetDebugEventsResponse,
    get_debug_events,
    fn of_node(mut answer: GetDebugEventsResponse, name: &str) -> Option<GetDebugEventsResponse> {
        bound(&mut answer.time);
        Some(GetDebugEventsResponse { node_name: name.to_owned(), ..answer })
    }
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hubble::proto::flow::{Flow, LostEvent};
    use hubble::proto::to_json;

    #[test]
    fn times_that_no_calendar_has_are_put_within_bounds() {
        let never = || Some(Timestamp { seconds: i64::MAX, nanos: i32::MIN });
        let flow = Flow { time: never(), ..Flow::default() };
        let lost = LostEvent { first: never(), last: never(), ..LostEvent::default() };
        for told in [ResponseTypes::Flow(flow), ResponseTypes::LostEvents(lost)] {
            let answer = GetFlowsResponse { time: never(), response_types: Some(told), ..GetFlowsResponse::default() };
            assert!(to_json(&answer).is_err(), "it is not as bad as it should be");
            let answer = GetFlowsRequest::of_node(answer, "a").unwrap();
            let json = to_json(&answer).unwrap();
            assert!(json.contains("2262-04-11") && json.contains(r#""node_name":"a""#), "{json}");
        }
        let event = GetAgentEventsResponse { time: never(), ..GetAgentEventsResponse::default() };
        to_json(&GetAgentEventsRequest::of_node(event, "a").unwrap()).unwrap();
    }
}
