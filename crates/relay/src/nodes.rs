// SPDX-License-Identifier: Apache-2.0
//! Requests that each node answers once, and combining their responses. A node that does not respond in time counts as
//! unavailable.

use crate::pool::{Link, Node};
use futures::{StreamExt, stream};
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{
    self, GetNamespacesRequest, GetNamespacesResponse, GetNodesResponse, ServerStatusRequest, ServerStatusResponse, Tls,
};
use hubble::proto::relay::NodeState;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Nodes queried concurrently.
const AT_ONCE: usize = 64;
/// How many unavailable nodes are named.
const NAMED: usize = 10;
/// Bytes that a node may say of itself; more is no answer.
const STATUS: usize = 64 << 10;
/// Characters of a version.
const VERSION: usize = 128;
/// Bytes that a node may say of namespaces, and that all of them are told in: clients take no more than 4 MiB.
const NAMESPACES: usize = 1 << 20;
const ALL_NAMESPACES: usize = 3 << 20;

/// All nodes with their figures.
pub(crate) async fn list(nodes: BTreeMap<String, Node>, patience: Duration) -> GetNodesResponse {
    let answers = ask_status(nodes, patience).await;
    GetNodesResponse { nodes: answers.into_iter().map(|(name, node, answer)| row(name, &node, answer)).collect() }
}

fn row(name: String, node: &Node, answer: Option<ServerStatusResponse>) -> observer::Node {
    let state = match (&node.link, &answer) {
        (_, Some(_)) => NodeState::NodeConnected,
        (Link::Connected(_), None) => NodeState::NodeError,
        (Link::Away(_), None) => NodeState::NodeUnavailable,
    };
    let status = answer.unwrap_or_default();
    let server_name = node.peer.server_name.clone();
    observer::Node {
        name,
        version: status.version.chars().take(VERSION).collect(),
        address: node.peer.address.clone(),
        state: state.into(),
        tls: Some(Tls { enabled: server_name.is_some(), server_name: server_name.unwrap_or_default() }),
        uptime_ns: status.uptime_ns,
        num_flows: status.num_flows,
        max_flows: status.max_flows,
        seen_flows: status.seen_flows,
    }
}

/// The sum of all nodes' figures.
pub(crate) async fn status(nodes: BTreeMap<String, Node>, patience: Duration) -> ServerStatusResponse {
    let version = format!("hubble-relay v{}", env!("CARGO_PKG_VERSION"));
    let mut sum = ServerStatusResponse { version, ..ServerStatusResponse::default() };
    let (mut connected, mut away) = (0, Vec::new());
    for (name, _, answer) in ask_status(nodes, patience).await {
        let Some(answer) = answer else {
            away.push(name);
            continue;
        };
        connected += 1;
        sum.num_flows = sum.num_flows.saturating_add(answer.num_flows);
        sum.max_flows = sum.max_flows.saturating_add(answer.max_flows);
        sum.seen_flows = sum.seen_flows.saturating_add(answer.seen_flows);
        sum.uptime_ns = sum.uptime_ns.max(answer.uptime_ns);
        sum.flows_rate += if answer.flows_rate.is_finite() { answer.flows_rate.max(0.0) } else { 0.0 };
    }
    sum.flows_rate = sum.flows_rate.min(f64::MAX);
    sum.num_connected_nodes = Some(connected);
    sum.num_unavailable_nodes = Some(u32::try_from(away.len()).unwrap_or(u32::MAX));
    away.truncate(NAMED);
    sum.unavailable_nodes = away;
    sum
}

/// The namespaces that any node has seen.
pub(crate) async fn namespaces(nodes: BTreeMap<String, Node>, patience: Duration) -> GetNamespacesResponse {
    let answers = ask(nodes, patience, async |channel| {
        ObserverClient::new(channel).max_decoding_message_size(NAMESPACES).get_namespaces(GetNamespacesRequest {}).await
    });
    let answers = answers.await.into_iter().filter_map(|(_, _, answer)| answer);
    let all = answers.flat_map(|answer| answer.namespaces).map(|n| (n.cluster, n.namespace));
    let all: BTreeSet<_> = all.collect();
    let all = all.into_iter().map(|(cluster, namespace)| observer::Namespace { cluster, namespace });
    let mut room = ALL_NAMESPACES;
    let namespaces = all.take_while(|namespace| {
        // With its length and its tag.
        room = room.saturating_sub(namespace.encoded_len() + 6);
        room > 0
    });
    GetNamespacesResponse { namespaces: namespaces.collect() }
}

async fn ask_status(
    nodes: BTreeMap<String, Node>,
    patience: Duration,
) -> Vec<(String, Node, Option<ServerStatusResponse>)> {
    ask(nodes, patience, async |channel| {
        ObserverClient::new(channel).max_decoding_message_size(STATUS).server_status(ServerStatusRequest {}).await
    })
    .await
}

/// What each node answers, by name.
async fn ask<T, F>(
    nodes: BTreeMap<String, Node>,
    patience: Duration,
    question: impl Fn(Channel) -> F,
) -> Vec<(String, Node, Option<T>)>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let answers = stream::iter(nodes).map(async |(name, node)| {
        let answer = match node.channel() {
            Some(channel) => timeout(patience, question(channel.clone())).await.ok(),
            None => None,
        };
        (name, node, answer.and_then(Result::ok).map(Response::into_inner))
    });
    answers.buffered(AT_ONCE).collect().await
}
