// SPDX-License-Identifier: Apache-2.0
//! Every call of an agent, off the wire: whatever is asked, no answer has more than was asked for.

use crate::client::HEALTH_SERVICE;
use crate::config::Config;
use crate::fixture;
use crate::peers::Peers;
use crate::proto::flow::AgentEvent;
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::observer::observer_server::{self, ObserverServer};
use crate::proto::peer::peer_server::{self, PeerServer};
use crate::server::with_reflection;
use crate::service::{AgentEvents, Service, Workers};
use crate::store::Store;
use crate::strangers::Call;
use prost::Message;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server;

/// The first byte names one.
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
    let Some(call) = Call::parse(&CALLS, data) else { return };
    let Served { runtime, routes } = &*AGENT;
    let patience = if call.ends() { DEADLINE } else { GLANCE };
    let told = runtime.block_on(call.ask(routes, call.ends(), patience));
    let told = told.iter().filter(|message| !call.path.ends_with("GetFlows") || is_flow(message)).count();
    assert!(told as u64 <= call.most(), "{}: {told} of {}", call.path, call.most());
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
}

/// Whether a response of GetFlows has one, and is not about losses.
fn is_flow(message: &[u8]) -> bool {
    let response = GetFlowsResponse::decode(message).expect("a response");
    matches!(response.response_types, Some(ResponseTypes::Flow(_)))
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
