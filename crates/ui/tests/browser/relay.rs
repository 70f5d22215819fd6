// SPDX-License-Identifier: Apache-2.0
//! A relay that tells the flows of a scene to whoever follows it.

use futures::{Stream, StreamExt};
use hubble::now;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::{
    CiliumEventType, Endpoint, Flow, Ip, Layer4, Policy, Tcp, TrafficDirection, Verdict, Workload,
};
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_server::{Observer, ObserverServer};
use hubble::proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
    ServerStatusRequest, ServerStatusResponse,
};
use hubble::proto::timestamp;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::interval;
use tokio_stream::wrappers::{IntervalStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    Quiet,
    Talk,
    Deny,
    Hostile,
    Crowd,
}

impl Scene {
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Quiet, Self::Talk, Self::Deny, Self::Hostile, Self::Crowd];
        all.into_iter().find(|scene| format!("{scene:?}").eq_ignore_ascii_case(name))
    }

    /// What happens in a tick, ten of which are a second.
    fn flows(self, tick: usize) -> Vec<Flow> {
        let talk = || {
            let asked = [("web", "db", 5432), ("web", "cart", 8080), ("visitor", "web", 80), ("db", "db", 7000)];
            let mut flows: Vec<_> = asked.into_iter().map(|(from, to, port)| flow("shop", from, to, port)).collect();
            flows.push(to_example(flow("shop", "cart", "api", 443)));
            flows
        };
        match self {
            Self::Quiet => Vec::new(),
            Self::Talk => talk(),
            Self::Deny => {
                // What no rule allows, and what one denies, each told of with its verdict first.
                let by_default = refused(flow("shop", "visitor", "web", 80), 133);
                let by_rule = refused(flow("shop", "cart", "db", 5432), 181);
                let denied = [
                    verdict(by_default.clone(), None),
                    by_default,
                    verdict(by_rule.clone(), Some("closed-shop")),
                    by_rule,
                ];
                talk().into_iter().take(2).chain(denied).collect()
            }
            Self::Hostile => {
                let mut flow = flow("shop", "web", "db", 5432);
                let source = flow.source.as_mut().unwrap();
                source.pod_name = "<img src=x onerror=alert(1)>".to_owned();
                source.labels.push("k8s:x=</script><script>alert(2)</script>".to_owned());
                vec![flow]
            }
            Self::Crowd => (0..100)
                .map(|n| {
                    let from = (tick * 100 + n) % 1000;
                    let flow =
                        flow("crowd", &format!("service-{from}"), &format!("service-{}", (from * 7 + 1) % 1000), 80);
                    if n % 10 == 0 { refused(flow, 133) } else { flow }
                })
                .collect(),
        }
    }
}

fn pod(namespace: &str, name: &str) -> Endpoint {
    let labels = vec![format!("k8s:app={name}"), format!("k8s:io.kubernetes.pod.namespace={namespace}")];
    let workloads = vec![Workload { name: name.to_owned(), kind: "Deployment".to_owned() }];
    let (namespace, pod_name) = (namespace.to_owned(), format!("{name}-6c9f7d-x2x4z"));
    Endpoint { id: 7, identity: 700, namespace, labels, pod_name, workloads, ..Endpoint::default() }
}

fn flow(namespace: &str, from: &str, to: &str, port: u32) -> Flow {
    let tcp = Tcp { source_port: 40_000 + port % 1000, destination_port: port, flags: None };
    let address = |name: &str| format!("10.0.{}.{}", name.len(), name.bytes().fold(0_u8, u8::wrapping_add));
    Flow {
        time: Some(timestamp(now())),
        verdict: Verdict::Forwarded.into(),
        source: Some(pod(namespace, from)),
        destination: Some(pod(namespace, to)),
        ip: Some(Ip { source: address(from), destination: address(to), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        is_reply: Some(false),
        node_name: "kind/node1".to_owned(),
        traffic_direction: TrafficDirection::Ingress.into(),
        event_type: Some(CiliumEventType { r#type: 4, sub_type: 0 }),
        ..Flow::default()
    }
}

fn to_example(flow: Flow) -> Flow {
    let outside = Endpoint { identity: 2, labels: vec!["reserved:world".to_owned()], ..Endpoint::default() };
    Flow { destination: Some(outside), destination_names: vec!["api.example.com".to_owned()], ..flow }
}

fn refused(flow: Flow, reason: i32) -> Flow {
    let event_type = Some(CiliumEventType { r#type: 1, sub_type: reason });
    Flow { verdict: Verdict::Dropped.into(), drop_reason_desc: reason, event_type, ..flow }
}

fn verdict(flow: Flow, rule: Option<&str>) -> Flow {
    let policy = |name: &str| Policy {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: "CiliumNetworkPolicy".to_owned(),
        ..Policy::default()
    };
    let event_type = Some(CiliumEventType { r#type: 5, sub_type: 0 });
    Flow { event_type, ingress_denied_by: rule.into_iter().map(policy).collect(), ..flow }
}

/// It serves until it is dropped.
#[derive(Clone)]
pub(crate) struct FakeRelay {
    pub(crate) address: SocketAddr,
    scene: watch::Sender<Scene>,
    _serving: Arc<AbortOnDropHandle<()>>,
}

impl FakeRelay {
    pub(crate) async fn start() -> Self {
        let (scene, current) = watch::channel(Scene::Quiet);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Server::builder()
            .add_service(ObserverServer::new(Service(current)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = AbortOnDropHandle::new(tokio::spawn(async move { served.await.unwrap() }));
        Self { address, scene, _serving: Arc::new(serving) }
    }

    pub(crate) fn play(&self, scene: Scene) {
        self.scene.send_replace(scene);
    }
}

struct Service(watch::Receiver<Scene>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Observer for Service {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let prefixes: Vec<_> = request.whitelist.into_iter().flat_map(|filter| filter.source_pod).collect();
        let scene = self.0.clone();
        let ticks = IntervalStream::new(interval(Duration::from_millis(100))).enumerate();
        let flows = ticks.flat_map(move |(tick, _)| futures::stream::iter(scene.borrow().flows(tick)));
        let wanted = flows.filter(move |flow| {
            let namespace = flow.source.as_ref().map(|source| format!("{}/", source.namespace));
            std::future::ready(prefixes.is_empty() || namespace.is_some_and(|namespace| prefixes.contains(&namespace)))
        });
        let answers = wanted.map(|flow| {
            let response_types = Some(ResponseTypes::Flow(flow));
            Ok(GetFlowsResponse { response_types, ..GetFlowsResponse::default() })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let namespace = |name: &str| Namespace { cluster: "default".to_owned(), namespace: name.to_owned() };
        Ok(Response::new(GetNamespacesResponse { namespaces: ["shop", "crowd", "kube-system"].map(namespace).into() }))
    }

    async fn server_status(&self, _: Request<ServerStatusRequest>) -> Result<Response<ServerStatusResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}
