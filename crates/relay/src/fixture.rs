// SPDX-License-Identifier: Apache-2.0
//! Nodes that behave as a test says, on ports of their own.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::pool::{Link, Node, Nodes, Peer};
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use futures::{Stream, StreamExt, stream};
use hubble::proto::flow::Flow;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_server::{Observer, ObserverServer};
use hubble::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
    ServerStatusRequest, ServerStatusResponse,
};
use hubble::proto::peer::peer_server::{Peer as PeerService, PeerServer};
use hubble::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, Tls};
use hubble::proto::relay::{NodeState, NodeStatusEvent};
use hubble::proto::timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What a node does when it is asked for flows.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Answers with flows of these times, and ends or waits.
    Tell(Vec<i64>),
    /// The same, and fails.
    TellAndFail(Vec<i64>),
    /// Says nothing at all.
    Hang,
    /// Sends flows of this size as fast as they are taken, for ever.
    Flood(usize),
    /// Answers in the name of another node, and says that it is gone; of itself, what cannot be.
    Lie(&'static str),
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A stream that is counted until it is given up.
struct Silent(Arc<AtomicUsize>);

impl Silent {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A node that serves until it is dropped.
pub(crate) struct Fake {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) script: Script,
    pub(crate) _serving: AbortOnDropHandle<()>,
}

/// What it does, and what it was asked.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) does: Arc<Mutex<Does>>,
    pub(crate) asked: Arc<Mutex<Vec<GetFlowsRequest>>>,
    pub(crate) sent: Arc<AtomicUsize>,
    /// Streams that say nothing.
    pub(crate) silent: Arc<AtomicUsize>,
    pub(crate) peers: Vec<ChangeNotification>,
}

impl Script {
    pub(crate) fn new(name: &str, does: Does) -> Self {
        let does = Arc::new(Mutex::new(does));
        Self {
            name: name.to_owned(),
            does,
            asked: Arc::default(),
            sent: Arc::default(),
            silent: Arc::default(),
            peers: Vec::new(),
        }
    }

    pub(crate) async fn routes(&self) -> Routes {
        let (_, health) = tonic_health::server::health_reporter();
        Routes::new(health).add_service(ObserverServer::new(self.clone())).add_service(PeerServer::new(self.clone()))
    }

    fn flow(&self, time: i64, size: usize) -> Result<GetFlowsResponse, Status> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let flow = Flow { node_name: self.name.clone(), summary: "x".repeat(size), ..Flow::default() };
        Ok(GetFlowsResponse {
            node_name: self.name.clone(),
            time: Some(timestamp(time)),
            response_types: Some(ResponseTypes::Flow(flow)),
        })
    }
}

impl Fake {
    pub(crate) async fn start(name: &str, does: Does) -> Self {
        let script = Script::new(name, does);
        let routes = script.routes().await;
        Self::serve(script, routes).await
    }

    /// One that tells of these.
    pub(crate) async fn telling_of(nodes: &[Self]) -> Self {
        let peers = nodes.iter().map(|node| node.told(None)).collect();
        let script = Script { peers, ..Script::new("service", Does::Hang) };
        let routes = script.routes().await;
        Self::serve(script, routes).await
    }

    /// One whose answer is no message.
    pub(crate) async fn garbage(name: &str) -> Self {
        let (_, health) = tonic_health::server::health_reporter();
        let answer = async || {
            let headers =
                HeaderMap::from_iter([("content-type".parse().unwrap(), "application/grpc".parse().unwrap())]);
            (headers, Body::from(Bytes::from_static(&[0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0xff])))
        };
        let router = Routes::new(health).into_axum_router();
        let router = router.route("/observer.Observer/GetFlows", axum::routing::post(answer));
        Self::serve(Script::new(name, Does::Hang), router.into()).await
    }

    pub(crate) async fn serve(script: Script, routes: Routes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener));
        let serving = AbortOnDropHandle::new(tokio::spawn(async move { served.await.unwrap() }));
        Self { name: script.name.clone(), address, script, _serving: serving }
    }

    /// How the peer service tells of it.
    pub(crate) fn told(&self, server_name: Option<&str>) -> ChangeNotification {
        let tls = server_name.map(|name| Tls { server_name: name.to_owned() });
        let kind = ChangeNotificationType::PeerAdded.into();
        ChangeNotification { name: self.name.clone(), address: self.address.to_string(), r#type: kind, tls }
    }

    /// A node of a pool that is connected to it.
    pub(crate) async fn node(&self) -> Node {
        let channel = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        let peer = Peer { address: self.address.to_string(), server_name: None };
        Node { peer, link: Link::Connected(channel) }
    }
}

/// A pool of these and its writer.
pub(crate) async fn pool(fakes: &[Fake]) -> (watch::Sender<BTreeMap<String, Node>>, Nodes) {
    let mut nodes = BTreeMap::new();
    for fake in fakes {
        nodes.insert(fake.name.clone(), fake.node().await);
    }
    watch::channel(nodes)
}

#[tonic::async_trait]
impl Observer for Script {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        self.asked.lock().push(request.clone());
        let script = self.clone();
        let tell = |times: Vec<i64>| stream::iter(times).map(move |time| script.flow(time, 0));
        let does = self.does.lock().clone();
        Ok(Response::new(match does {
            Does::Tell(times) if request.follow => Box::pin(tell(times).chain(stream::pending())),
            Does::Tell(times) => Box::pin(tell(times)),
            Does::TellAndFail(times) => {
                Box::pin(tell(times).chain(stream::iter([Err(Status::internal("broken on purpose"))])))
            }
            Does::Hang => {
                let silent = Silent::new(&self.silent);
                Box::pin(stream::pending().map(move |answer| {
                    let _ = &silent;
                    answer
                }))
            }
            Does::Lie(other) => {
                let as_other = Self { name: other.to_owned(), ..self.clone() };
                let names = NodeStatusEvent {
                    state_change: NodeState::NodeGone.into(),
                    node_names: vec![other.to_owned()],
                    message: String::new(),
                };
                let gone = Some(ResponseTypes::NodeStatus(names));
                let gone = GetFlowsResponse { response_types: gone, ..GetFlowsResponse::default() };
                Box::pin(stream::iter([as_other.flow(1, 0), Ok(gone), as_other.flow(2, 0)]))
            }
            Does::Flood(size) => {
                let script = self.clone();
                Box::pin(stream::iter(1..).map(move |time| script.flow(time, size)))
            }
        }))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let answer = GetAgentEventsResponse { node_name: self.name.clone(), ..GetAgentEventsResponse::default() };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("a relay's"))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let namespace = |namespace: &str| Namespace { cluster: "blue".to_owned(), namespace: namespace.to_owned() };
        Ok(Response::new(GetNamespacesResponse { namespaces: vec![namespace(&self.name), namespace("shop")] }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        if matches!(&*self.does.lock(), Does::Hang) {
            std::future::pending::<()>().await;
        }
        let honest = ServerStatusResponse {
            num_flows: 10,
            max_flows: 4095,
            seen_flows: 100,
            uptime_ns: 7,
            flows_rate: 1.5,
            ..ServerStatusResponse::default()
        };
        Ok(Response::new(match &*self.does.lock() {
            Does::Lie(text) => {
                ServerStatusResponse { flows_rate: f64::NAN, num_flows: u64::MAX, version: text.repeat(1000), ..honest }
            }
            _ => honest,
        }))
    }
}

#[tonic::async_trait]
impl PeerService for Script {
    type NotifyStream = Answers<ChangeNotification>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let peers = self.peers.clone().into_iter().map(Ok);
        Ok(Response::new(Box::pin(stream::iter(peers).chain(stream::pending()))))
    }
}
