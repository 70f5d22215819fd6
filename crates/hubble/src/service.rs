// SPDX-License-Identifier: Apache-2.0
//! The observer service.

mod agent;
mod flows;

#[cfg(test)]
mod tests;

use crate::filter::{Filters, check_limits};
use crate::mask::Mask;
use crate::proto::flow::Flow;
use crate::proto::nanos;
use crate::proto::observer::observer_server::Observer;
use crate::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
    ServerStatusRequest, ServerStatusResponse,
};
use crate::store::Store;
pub use agent::AgentEvents;
pub(crate) use flows::{Batch, Query, Workers, subscribe};
use futures::StreamExt;
use prost_types::Timestamp;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// The observer of this node.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    pub(crate) agent_events: AgentEvents,
    pub(crate) lost_interval: Duration,
    pub(crate) workers: Workers,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// A response that also says which version answers.
    fn respond<T>(&self, body: T) -> Response<T> {
        let mut response = Response::new(body);
        if let Ok(version) = self.store.decoder.version.parse() {
            response.metadata_mut().insert("hubble-server-version", version);
        }
        response
    }
}

#[tonic::async_trait]
impl Observer for Service {
    type GetFlowsStream = Responses<GetFlowsResponse>;
    type GetAgentEventsStream = Responses<GetAgentEventsResponse>;
    type GetDebugEventsStream = Responses<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let query = Query::compile(&request)?;
        let receiver = subscribe(Arc::clone(&self.store), query, self.lost_interval, self.workers.clone());
        let flows = ReceiverStream::new(receiver).flat_map(|batch| futures::stream::iter(batch).map(Ok));
        Ok(self.respond(Box::pin(flows) as Self::GetFlowsStream))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let stream = self.agent_events.stream(request.into_inner(), self.store.decoder.node_name.clone());
        Ok(self.respond(Box::pin(stream) as Self::GetAgentEventsStream))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        // The datapath has no debug messages: there is no history, and nothing will follow.
        let stream: Self::GetDebugEventsStream = if request.into_inner().follow {
            Box::pin(tokio_stream::pending())
        } else {
            Box::pin(tokio_stream::empty())
        };
        Ok(self.respond(stream))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("GetNodes is answered by hubble-relay, not by an agent"))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let seen = self.store.namespaces().into_iter();
        let namespaces = seen.map(|(cluster, namespace)| Namespace { cluster, namespace }).collect();
        Ok(self.respond(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        let figures = self.store.figures();
        Ok(self.respond(ServerStatusResponse {
            num_flows: figures.current,
            max_flows: figures.max,
            seen_flows: figures.seen,
            uptime_ns: figures.uptime.as_nanos().try_into().unwrap_or(u64::MAX),
            version: format!("cilium v{}", self.store.decoder.version),
            flows_rate: figures.rate,
            ..ServerStatusResponse::default()
        }))
    }
}

/// What a request asks for, applied to flows from elsewhere.
pub struct Selection(Query);

impl Selection {
    /// Prepares the filters, times and field mask of a request.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, with the field and the value that cannot be honoured.
    pub fn new(request: &GetFlowsRequest) -> Result<Self, Status> {
        Query::compile(request).map(Self)
    }

    /// The flow with the requested fields, if it matches.
    #[must_use]
    pub fn take(&self, flow: Flow, time: Option<&Timestamp>) -> Option<Flow> {
        if !self.0.wants(&flow, time.map_or(0, nanos)) {
            return None;
        }
        Some(match &self.0.mask {
            Some(mask) => mask.apply(flow),
            None => flow,
        })
    }
}

impl Query {
    pub(crate) fn compile(request: &GetFlowsRequest) -> Result<Self, Status> {
        if request.extensions.is_some() {
            return Err(Status::invalid_argument("extensions: none is known"));
        }
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        check_limits(&request.whitelist, &request.blacklist).map_err(|e| invalid(&e))?;
        let filters = Filters::compile(&request.whitelist, &request.blacklist);
        let paths = request.field_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
        Ok(Self {
            filters: filters.map_err(|e| invalid(&e))?,
            mask: Mask::compile(paths).map_err(|e| invalid(&e))?,
            since: request.since.as_ref().map(nanos),
            until: request.until.as_ref().map(nanos),
            number: request.number,
            first: request.first,
            follow: request.follow,
        })
    }
}
