// SPDX-License-Identifier: Apache-2.0
//! The part of an agent that serves flows, and what it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use abi::event::{Event, Verdict, kind, outcome, point, trace_reason};
use abi::flow::proto;
use anyhow::{Context as _, Result, bail};
use hubble::client::Server;
use hubble::proto::observer::GetFlowsRequest;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::{Config, Inputs, Outputs, Tables};
use model::{Identity, IdentityId, IpEntry, IpSource, Label, MeshPod, Node, PodName};
use statedb::{Reader, Row, Tasks};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::DEADLINE;

/// Pods that talk, each with its own identity.
const PODS: u32 = 200;

/// It serves flows until it ends.
pub(super) struct Agent {
    pub(super) outputs: Outputs,
    server: Server,
    tasks: Tasks,
}

impl Agent {
    /// Of the cluster's nodes the first is its own.
    pub(super) fn start(config: Config, nodes: impl IntoIterator<Item = Node>) -> Self {
        let server = Server { address: format!("unix://{}", config.socket.display()), ..Server::default() };
        let tables = Tables {
            ipcache: filled((0..PODS).map(entry)),
            endpoints: filled([]),
            pods: filled([]),
            identities: filled((0..PODS).map(identity)),
            frontends: filled([]),
            provenance: filled([]),
            nodes: filled(nodes),
        };
        let tasks = Tasks::new(CancellationToken::new());
        let outputs = hubble::start(config, Inputs { node_name: "n1".to_owned(), tables }, &tasks);
        Self { outputs, server, tasks }
    }

    /// How many flows arrive, and how many events are reported lost.
    pub(super) async fn count(&self, request: GetFlowsRequest) -> Result<(u64, u64)> {
        let mut stream = ObserverClient::new(self.server.connect().await?).get_flows(request).await?.into_inner();
        let (mut flows, mut lost) = (0, 0);
        while let Some(response) = stream.message().await? {
            match response.response_types {
                Some(ResponseTypes::Flow(_)) => flows += 1,
                Some(ResponseTypes::LostEvents(events)) => lost += events.num_events_lost,
                _ => {}
            }
        }
        Ok((flows, lost))
    }

    /// Waits until this many events are on disk.
    pub(super) async fn settle(&self, events: u64) -> Result<()> {
        let begin = Instant::now();
        while self.outputs.status.kept().unwrap_or_default() < events {
            if begin.elapsed() > DEADLINE {
                bail!("{:?}: events do not get to the disk", self.outputs.status.problems());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(super) async fn end(self) -> Result<()> {
        self.tasks.token().cancel();
        self.tasks.run_until_failure().await.context("the agent's tasks")
    }
}

fn filled<R: Row>(rows: impl IntoIterator<Item = R>) -> Reader<R> {
    let (mut writer, reader) = statedb::table("bench");
    rows.into_iter().for_each(|row| writer.insert(row));
    writer.commit();
    reader
}

fn address(pod: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + pod).into()
}

fn entry(pod: u32) -> IpEntry {
    IpEntry {
        prefix: address(pod).into(),
        identity: IdentityId(1000 + pod),
        tunnel: None,
        host: None,
        node_address: false,
        no_masquerade: false,
        source: IpSource::CustomResource,
        pod: Some(MeshPod {
            cluster: "default".into(),
            pod: PodName::new("shop", format!("deployment-5f7d8c9b6d-{pod:05}")),
        }),
    }
}

fn identity(pod: u32) -> Identity {
    let labels = (0..8).map(|n| Label::k8s(format!("app.kubernetes.io/label-{n}"), format!("value-{pod}")));
    let namespace = Label::k8s("io.kubernetes.pod.namespace", "shop");
    Identity { id: IdentityId(1000 + pod), labels: labels.chain([namespace]).collect() }
}

/// A node with this address.
pub(super) fn node(name: &str, address: IpAddr) -> Node {
    Node {
        name: name.to_owned(),
        cluster: String::new(),
        internal_ips: vec![address],
        external_ips: Vec::new(),
        cilium_internal_ips: vec![address],
        health_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        labels: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]),
        identity: IdentityId(6),
        local: name == "n1",
    }
}

/// New connections and their packets, between changing pods.
pub(super) fn event(n: u64) -> Event {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let connection = n / 4;
    let [source, destination] = [connection, connection / 7 + 1].map(|pod| (pod % u64::from(PODS)) as u32);
    let (reply, reason) = (n % 2, if n.is_multiple_of(4) { trace_reason::NEW } else { trace_reason::ESTABLISHED });
    let verdict = if n.is_multiple_of(4) { outcome::ALLOW } else { outcome::NONE };
    Event {
        time: n * 10_000,
        src: address(source).into(),
        dst: address(destination).into(),
        sport: (32_768 + (mixed >> 49) as u16).to_be(),
        dport: 5432_u16.to_be(),
        src_identity: 1000 + source,
        dst_identity: 1000 + destination,
        ifindex: 10 + source,
        len: 60 + (mixed >> 40) as u32 % 1000,
        packets: 1,
        egress: Verdict { outcome: verdict, ..Verdict::default() },
        kind: kind::TRACE,
        point: point::TO_OVERLAY,
        reason,
        proto: proto::TCP,
        tcp_flags: if n.is_multiple_of(4) { 2 } else { 16 },
        reply: reply as u8,
        ..Event::default()
    }
}
