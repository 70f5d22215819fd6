// SPDX-License-Identifier: Apache-2.0
//! Fuzz target: a relay of which the peer service, the agents and the client are strangers, in memory and on a clock that goes on by itself.
//! Not part of the product.

#![allow(clippy::expect_used, reason = "a wrong answer is to be loud")]

use crate::config::Config;
use crate::pool::Dial;
use futures::FutureExt;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::{
    GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse, GetNamespacesResponse, GetNodesResponse,
    ServerStatusResponse,
};
use hubble::proto::peer::ChangeNotification;
use hubble::proto::to_json;
use hubble::strangers::{Answer, Call, connect};
use prost::Message;
use statedb::Tasks;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_check_response::ServingStatus;

/// The first byte of the call names one.
const CALLS: [&str; 11] = [
    "observer.Observer/GetFlows",
    "observer.Observer/GetAgentEvents",
    "observer.Observer/GetDebugEvents",
    "observer.Observer/GetNodes",
    "observer.Observer/GetNamespaces",
    "observer.Observer/ServerStatus",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "peer.Peer/Notify",
    "observer.Observer/Nothing",
];

/// Agents at most.
const AGENTS: usize = 4;
/// Until nodes are connected that will be.
const SETTLED: Duration = Duration::from_millis(100);
/// For what ends, some time after a node fell silent.
const DEADLINE: Duration = Duration::from_secs(300);
/// For what need not end: some nodes are asked again within it.
const GLANCE: Duration = Duration::from_secs(3);

/// What is said in one run, from parts that each have their length before them: the call, what the peer service tells, and of each agent what
/// it answers to anything.
struct Said<'a> {
    call: Call<'a>,
    peers: Answer,
    agents: Arc<[Agent]>,
}

struct Agent {
    /// To the question whether it is well.
    health: Answer,
    answer: Answer,
}

/// A call of a relay, off the wire.
pub fn relay(data: &[u8]) {
    let Some(said) = Said::parse(data) else { return };
    // Of a run of its own: nothing that waits is left.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(said.ask());
}

impl<'a> Said<'a> {
    fn parse(mut data: &'a [u8]) -> Option<Self> {
        let call = Call::parse(&CALLS, part(&mut data))?;
        let peers = Answer::parse(part(&mut data));
        let mut agents = Vec::new();
        while !data.is_empty() && agents.len() < AGENTS {
            agents.extend(Agent::parse(part(&mut data)));
        }
        Some(Self { call, peers, agents: agents.into() })
    }

    async fn ask(&self) {
        let tasks = Tasks::new(CancellationToken::new());
        let config = Config { disable_client_tls: true, disable_server_tls: true, ..Config::default() };
        let dial = self.dial(config.peer_service.clone());
        let served = crate::follow(config, dial, &tasks).await;
        tokio::time::sleep(SETTLED).await;
        let ends = self.call.ends() && !self.agents.iter().any(|agent| agent.answer.floods());
        let patience = if ends { DEADLINE } else { GLANCE };
        let told = self.call.ask(&served.all, ends, patience).await;
        let method = self.call.path.rsplit('/').next().unwrap_or_default();
        told.iter().for_each(|message| self.check(method, message));
    }

    /// A peer's address leads to an agent by its last byte, or nowhere.
    fn dial(&self, service: String) -> Dial {
        let (peers, agents) = (self.peers.clone(), Arc::clone(&self.agents));
        Arc::new(move |server| {
            let at = server.address.bytes().last().map_or(0, usize::from) % (AGENTS + 1);
            let (service, peers, agents) = (server.address == service, peers.clone(), Arc::clone(&agents));
            async move {
                if service {
                    return connect(move |_| peers.clone()).await.map_err(|error| error.to_string());
                }
                if at >= agents.len() {
                    return Err("nobody is there".to_owned());
                }
                let connected = connect(move |path| agents.get(at).map_or_else(nothing, |agent| agent.to(path)));
                connected.await.map_err(|error| error.to_string())
            }
            .boxed()
        })
    }

    /// Whatever nodes say: they speak in their own names, and what is said of nodes is of those that were told of.
    fn check(&self, method: &str, message: &[u8]) {
        let names = self.names();
        let known = |name: &String| assert!(names.contains(name), "{name:?} is of nobody");
        match method {
            "GetFlows" => {
                let mut response = GetFlowsResponse::decode(message).expect("a response");
                match &mut response.response_types {
                    Some(ResponseTypes::NodeStatus(status)) => status.node_names.iter().for_each(known),
                    Some(ResponseTypes::Flow(flow)) => {
                        assert!(flow.node_name.is_empty() || flow.node_name == response.node_name, "{flow:?}");
                        known(&response.node_name);
                        // Who does not know their kind cannot show them.
                        flow.extensions = None;
                    }
                    _ => known(&response.node_name),
                }
                to_json(&response).expect("JSON");
            }
            "GetAgentEvents" => known(&GetAgentEventsResponse::decode(message).expect("a response").node_name),
            "GetDebugEvents" => known(&GetDebugEventsResponse::decode(message).expect("a response").node_name),
            "GetNodes" => {
                let nodes = GetNodesResponse::decode(message).expect("a response").nodes;
                nodes.iter().for_each(|node| known(&node.name));
                assert!(nodes.is_sorted_by(|one, other| one.name < other.name), "one twice");
            }
            "GetNamespaces" => drop(GetNamespacesResponse::decode(message).expect("a response")),
            "ServerStatus" => {
                let status = ServerStatusResponse::decode(message).expect("a response");
                status.unavailable_nodes.iter().for_each(known);
                assert!(status.flows_rate.is_finite() && status.flows_rate >= 0.0, "{}", status.flows_rate);
            }
            _ => {}
        }
    }

    /// The names that the peer service has told of.
    fn names(&self) -> BTreeSet<String> {
        let told = self.peers.messages();
        let told = told.iter().filter_map(|message| ChangeNotification::decode(message.as_slice()).ok());
        told.map(|change| change.name).collect()
    }
}

impl Agent {
    /// Of which the first byte says whether it is well, or says of that what it says of anything.
    fn parse(data: &[u8]) -> Option<Self> {
        let (first, rest) = data.split_first()?;
        let answer = Answer::parse(rest);
        let well = HealthCheckResponse { status: ServingStatus::Serving.into() };
        let well = Answer::of(&[well.encode_to_vec()]).for_ever();
        Some(Self { health: if first & 1 == 0 { well } else { answer.clone() }, answer })
    }

    fn to(&self, path: &str) -> Answer {
        if path.starts_with("/grpc.health.") { self.health.clone() } else { self.answer.clone() }
    }
}

fn nothing() -> Answer {
    Answer::of(&[])
}

/// What comes next, after two bytes with its length; all that is left if that is less.
fn part<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return std::mem::take(data) };
    let (part, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    *data = rest;
    part
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::relay;
    use proptest::prelude::*;
    use proptest::sample::Index;

    /// The kept inputs of the fuzz target.
    fn kept() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/hubble_relay");
        let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.collect()
    }

    #[test]
    fn all_that_is_kept_is_answered() {
        kept().iter().for_each(|input| relay(input));
    }

    proptest! {
        #[test]
        fn every_call_is_answered_whatever_peers_and_agents_say(
            input in prop::sample::select(kept()),
            changes in prop::collection::vec((any::<Index>(), any::<u8>(), any::<bool>()), 0..6),
        ) {
            let mut input = input;
            for (at, byte, insert) in changes {
                let at = at.index(input.len());
                if insert { input.insert(at, byte) } else { input[at] = byte }
            }
            relay(&input);
        }
    }
}
