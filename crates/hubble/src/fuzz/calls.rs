// SPDX-License-Identifier: Apache-2.0
//! Every call of an agent, off the wire: whatever the body of a request, it is answered with a status, one that does not follow ends, and no
//! answer has more than was asked for.

use crate::client::HEALTH_SERVICE;
use crate::config::Config;
use crate::fixture;
use crate::peers::Peers;
use crate::proto::flow::AgentEvent;
use crate::proto::observer::observer_server::{self, ObserverServer};
use crate::proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest};
use crate::proto::peer::peer_server::{self, PeerServer};
use crate::server::with_reflection;
use crate::service::{AgentEvents, Service, Workers};
use crate::store::Store;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server;
use tower::ServiceExt;

/// The first byte names one; with [`BARE`] the body is not framed, but all of it as it comes.
const CALLS: [&str; 11] = [
    "observer.Observer/GetFlows",
    "observer.Observer/GetAgentEvents",
    "observer.Observer/GetDebugEvents",
    "observer.Observer/GetNodes",
    "observer.Observer/GetNamespaces",
    "observer.Observer/ServerStatus",
    "peer.Peer/Notify",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "observer.Observer/Nothing",
];
const BARE: u8 = 0x80;

/// For what ends; nothing is waited for on a network.
const DEADLINE: Duration = Duration::from_secs(5);
/// For what need not end.
const GLANCE: Duration = Duration::from_micros(300);

/// What is served, and where it runs.
struct Served {
    runtime: Runtime,
    routes: Routes,
}

/// A call of an agent that has seen a few flows.
pub fn agent(data: &[u8]) {
    static AGENT: LazyLock<Served> = LazyLock::new(Served::agent);
    AGENT.call(data);
}

impl Served {
    /// What `serve` returns, on a runtime of one thread.
    fn new(serve: impl AsyncFnOnce() -> Routes) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let routes = runtime.block_on(serve());
        Self { runtime, routes }
    }

    fn agent() -> Self {
        Self::new(async || {
            let config = Config::default();
            let tables = fixture::tables().tables;
            let store = Arc::new(Store::new(&config, "n1", tables.clone()));
            for _ in 0..20 {
                [fixture::allowed_syn(), fixture::denied_syn(), fixture::connected().into()]
                    .iter()
                    .for_each(|event| store.push(event));
                store.push_lost(3, crate::store::Loser::Kernel);
            }
            let agent_events = AgentEvents::new();
            (0..20).for_each(|_| agent_events.push(AgentEvent::default()));
            let lost_interval = Duration::from_secs(1);
            let service = Service { store, agent_events, lost_interval, workers: Workers::default() };
            let (health, health_service) = tonic_health::server::health_reporter();
            health.set_service_status(HEALTH_SERVICE, ServingStatus::Serving).await;
            let routes = Routes::new(health_service)
                .add_service(ObserverServer::new(service))
                .add_service(PeerServer::new(Peers::new(&config, tables.nodes)));
            let names = [observer_server::SERVICE_NAME, peer_server::SERVICE_NAME, health_server::SERVICE_NAME];
            with_reflection(routes, &names)
        })
    }

    /// Makes the call that the bytes say.
    fn call(&self, data: &[u8]) {
        let Some((first, message)) = data.split_first() else { return };
        let (name, bare) = (usize::from(first & !BARE) % CALLS.len(), first & BARE != 0);
        let Some(path) = CALLS.get(name) else { return };
        let body = if bare { message.to_vec() } else { framed(message) };
        let request = http::Request::post(format!("http://node/{path}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(Body::new(Full::new(Bytes::from(body)))).expect("a request");
        let bound = if bare { Bound { ends: false, most: u64::MAX } } else { Bound::of(path, message) };
        self.runtime.block_on(async {
            let answer = self.routes.clone().oneshot(request).await.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
            check(path, answer, bound).await;
        });
    }
}

/// What is known of an answer beforehand.
struct Bound {
    ends: bool,
    /// Messages at most; of flows, without those about losses.
    most: u64,
}

impl Bound {
    fn of(path: &str, message: &[u8]) -> Self {
        let (follow, number) = match path.rsplit('/').next() {
            Some("GetFlows") => GetFlowsRequest::decode(message).map_or((false, 0), |r| (r.follow, r.number)),
            Some("GetAgentEvents") => {
                GetAgentEventsRequest::decode(message).map_or((false, 0), |r| (r.follow, r.number))
            }
            Some("GetDebugEvents") => {
                GetDebugEventsRequest::decode(message).map_or((false, 0), |r| (r.follow, r.number))
            }
            Some("Notify" | "Watch") => (true, 0),
            _ => (false, 0),
        };
        Self { ends: !follow, most: if number == 0 || follow { u64::MAX } else { number } }
    }
}

async fn check(path: &str, answer: http::Response<Body>, bound: Bound) {
    let (head, mut body) = answer.into_parts();
    let mut has_status = head.headers.contains_key("grpc-status");
    let mut received = Vec::new();
    let wait = if bound.ends { DEADLINE } else { GLANCE };
    let ended = tokio::time::timeout(wait, async {
        while let Some(frame) = body.frame().await {
            let frame = frame.expect("a frame");
            has_status |= frame.trailers_ref().is_some_and(|trailers| trailers.contains_key("grpc-status"));
            received.extend(frame.into_data().unwrap_or_default());
        }
    });
    let ended = ended.await.is_ok();
    assert!(ended || !bound.ends, "{path} does not end");
    assert!(has_status || !ended, "{path} ends without a status");
    let told = messages(&received).filter(|message| !path.ends_with("GetFlows") || is_flow(message)).count();
    assert!(told as u64 <= bound.most, "{path}: {told} of {}", bound.most);
}

/// Whether a response of GetFlows has one; its first field is the flow.
fn is_flow(message: &[u8]) -> bool {
    use crate::proto::observer::get_flows_response::ResponseTypes;
    let response = crate::proto::observer::GetFlowsResponse::decode(message).expect("a response");
    matches!(response.response_types, Some(ResponseTypes::Flow(_)))
}

/// A message as it is sent: not compressed, its length, and itself.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(message);
    frame
}

/// The messages of frames.
fn messages(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = frames.split_first_chunk::<5>()?;
        let [_, length @ ..] = *head;
        let (message, rest) = rest.split_at_checked(u32::from_be_bytes(length) as usize)?;
        frames = rest;
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::agent;
    use proptest::prelude::*;
    use proptest::sample::Index;

    /// The kept inputs of the fuzz target.
    fn kept() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/hubble_call");
        let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.collect()
    }

    proptest! {
        #[test]
        fn every_call_is_answered_whatever_is_asked(
            input in prop::sample::select(kept()),
            call in prop::option::of(any::<u8>()),
            changes in prop::collection::vec((any::<Index>(), any::<u8>(), any::<bool>()), 0..6),
        ) {
            let mut input = input;
            if let (Some(first), Some(call)) = (input.first_mut(), call) {
                *first = call;
            }
            for (at, byte, insert) in changes {
                let at = at.index(input.len());
                if insert { input.insert(at, byte) } else { input[at] = byte }
            }
            agent(&input);
        }
    }
}
