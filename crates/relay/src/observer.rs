// SPDX-License-Identifier: Apache-2.0
//! The observer of a cluster: each call goes to all nodes.

use crate::config::Config;
use crate::guests::{Guest, Guests, Hosted};
use crate::merge::{self, Call, merge};
use crate::nodes;
use crate::pool::Nodes;
use futures::Stream;
use hubble::proto::observer::observer_server::Observer;
use hubble::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse,
    ServerStatusRequest, ServerStatusResponse,
};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

/// Responses buffered for a slow client.
const QUEUE: usize = 64;
/// How long a node may be silent in a request that is not live.
const SILENCE: Duration = Duration::from_secs(30);

/// The observer.
pub(crate) struct Relay {
    nodes: Nodes,
    rules: merge::Rules,
    patience: Duration,
    guests: Guests,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Relay {
    pub(crate) fn new(config: &Config, nodes: Nodes) -> Self {
        let rules = merge::Rules {
            buffer: config.buffer.into(),
            drain: config.drain_timeout,
            opening: config.dial_timeout,
            silence: SILENCE,
            retry: config.retry_timeout,
        };
        Self { nodes, rules, patience: config.dial_timeout, guests: Guests::default() }
    }

    fn stream<C: Call>(&self, call: C, guest: Guest) -> Response<Answers<C::Answer>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        tokio::spawn(merge(call, self.nodes.clone(), self.rules, sender));
        respond(Box::pin(Hosted { answers: ReceiverStream::new(receiver), _guest: guest }))
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<Guest, Status> {
        self.guests.admit(request.remote_addr().as_ref().map(SocketAddr::ip))
    }
}

/// A response that also says which version answers.
fn respond<T>(body: T) -> Response<T> {
    let mut response = Response::new(body);
    let version = MetadataValue::from_static(env!("CARGO_PKG_VERSION"));
    response.metadata_mut().insert("hubble-server-version", version);
    response
}

#[tonic::async_trait]
impl Observer for Relay {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let guest = self.admit(&request)?;
        let request = request.into_inner();
        // Said once, not by each node.
        hubble::Selection::new(&request)?;
        Ok(self.stream(request, guest))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let guest = self.admit(&request)?;
        Ok(self.stream(request.into_inner(), guest))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        let guest = self.admit(&request)?;
        Ok(self.stream(request.into_inner(), guest))
    }

    async fn get_nodes(&self, request: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let _guest = self.admit(&request)?;
        let nodes = self.nodes.borrow().clone();
        Ok(respond(nodes::list(nodes, self.patience).await))
    }

    async fn get_namespaces(
        &self,
        request: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let _guest = self.admit(&request)?;
        let nodes = self.nodes.borrow().clone();
        Ok(respond(nodes::namespaces(nodes, self.patience).await))
    }

    async fn server_status(
        &self,
        request: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        let _guest = self.admit(&request)?;
        let nodes = self.nodes.borrow().clone();
        Ok(respond(nodes::status(nodes, self.patience).await))
    }
}
