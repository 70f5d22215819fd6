// SPDX-License-Identifier: Apache-2.0
//! The cost of flows: to take in an event, to keep it on disk, and to read it again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use abi::event::{Event, Verdict, kind, outcome, point, trace_reason};
use abi::flow::proto;
use anyhow::{Context as _, Result, bail, ensure};
use hubble::client::Server;
use hubble::proto::observer::GetFlowsRequest;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::{Capacity, Config, Inputs, Outputs, Tables};
use model::{Identity, IdentityId, IpEntry, IpSource, Label, MeshPod, Node, PodName};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use statedb::{Reader, Row, Tasks};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::report::Figure;

/// Pods that talk, each with its own identity.
const PODS: u32 = 200;
/// Events taken in at full speed.
const MANY: u64 = 1_000_000;
/// Events per second to keep without loss.
const PACE: u64 = 100_000;
/// How long they come.
const SPAN: Duration = Duration::from_secs(10);
/// How long to wait for a disk or a server.
const DEADLINE: Duration = Duration::from_secs(60);

/// Measures.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: say BENCH_PROFILE=lab for figures that are worth something");
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(run())
}

async fn run() -> Result<Vec<Figure>> {
    let mut figures = vec![ring()?];
    let folder = std::env::temp_dir().join(format!("bench-hubble-{}", std::process::id()));
    let result = history(&folder, &mut figures).await;
    // It is in the machine's temporary folder, and is removed with that.
    let _ = std::fs::remove_dir_all(&folder);
    result.map(|()| figures)
}

/// Taking in events without a reader.
fn ring() -> Result<Figure> {
    let agent = Agent::start(4095, None)?;
    let before = processor(UsageWho::RUSAGE_THREAD)?;
    (0..MANY).for_each(|n| agent.outputs.sink.push(&event(n)));
    let spent = processor(UsageWho::RUSAGE_THREAD)? - before;
    Ok(Figure::new("an event into the ring, processor", "ours", spent * 1e9 / MANY as f64, "ns").target("< 1000"))
}

/// A steady stream to the disk, and reading it.
async fn history(folder: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    let agent = Agent::start(4095, Some(folder))?;
    let before = processor(UsageWho::RUSAGE_SELF)?;
    let events = steady(&agent).await;
    agent.settle(events).await?;
    let spent = processor(UsageWho::RUSAGE_SELF)? - before;
    let each = spent * 1e9 / events as f64;
    let what = format!("{PACE} events/s into the ring and to disk");
    figures.push(Figure::new(format!("{what}, processor of each"), "ours", each, "ns").target("< 10000"));
    let read = Instant::now();
    let (flows, lost) = agent.count(GetFlowsRequest { since: Some(Default::default()), ..Default::default() }).await?;
    let each = read.elapsed().as_secs_f64() * 1e9 / flows as f64;
    figures.push(Figure::new(format!("{what}, lost"), "ours", lost as f64, "events").target("0"));
    figures.push(Figure::new(format!("reading {flows} flows, each"), "ours", each, "ns"));
    let bytes = std::fs::read_dir(folder)?.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len());
    let kept = flows as f64 * f64::from(64 << 20) / bytes.sum::<u64>() as f64;
    figures.push(Figure::new("flows in 64 MiB on disk", "ours", kept, "flows").target("> 1000000"));
    let mut took = Vec::new();
    for _ in 0..9 {
        let last = Instant::now();
        let (found, _) = agent.count(GetFlowsRequest { number: 20_000, ..Default::default() }).await?;
        ensure!(found == 20_000, "{found} flows of the last 20,000");
        took.push(last.elapsed().as_secs_f64() * 1e3);
    }
    figures.push(Figure::times(
        format!("the last 20,000 of {flows} flows, of which the ring has a part"),
        "ours",
        &took,
    ));
    let mut took = Vec::new();
    for _ in 0..9 {
        let last = Instant::now();
        agent.count(GetFlowsRequest { number: 1000, ..Default::default() }).await?;
        took.push(last.elapsed().as_secs_f64() * 1e3);
    }
    figures.push(Figure::times(format!("the last 1,000 of {flows} flows"), "ours", &took).target("< 50"));
    agent.end().await
}

/// Takes in events at [`PACE`]; returns how many.
async fn steady(agent: &Agent) -> u64 {
    let begin = Instant::now();
    let mut pushed = 0;
    while begin.elapsed() < SPAN {
        let due = (begin.elapsed().as_secs_f64() * PACE as f64) as u64;
        (pushed..due).for_each(|n| agent.outputs.sink.push(&event(n)));
        pushed = due;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    pushed
}

fn processor(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

struct Agent {
    outputs: Outputs,
    server: Server,
    tasks: Tasks,
}

impl Agent {
    fn start(capacity: u16, history: Option<&Path>) -> Result<Self> {
        let socket = std::env::temp_dir().join(format!("bench-hubble-{}.sock", std::process::id()));
        let config = Config {
            enabled: true,
            capacity: Capacity(capacity),
            socket: socket.clone(),
            history_path: history.map(Path::to_owned),
            history_size: 1024,
            ..Config::default()
        };
        let tables = Tables {
            ipcache: filled((0..PODS).map(entry)),
            endpoints: filled([]),
            pods: filled([]),
            identities: filled((0..PODS).map(identity)),
            frontends: filled([]),
            provenance: filled([]),
            nodes: filled([node()]),
        };
        let tasks = Tasks::new(CancellationToken::new());
        let outputs = hubble::start(config, Inputs { node_name: "n1".to_owned(), tables }, &tasks);
        let server = Server { address: format!("unix://{}", socket.display()), ..Server::default() };
        Ok(Self { outputs, server, tasks })
    }

    /// How many flows arrive, and how many events are reported lost.
    async fn count(&self, request: GetFlowsRequest) -> Result<(u64, u64)> {
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
    async fn settle(&self, events: u64) -> Result<()> {
        let begin = Instant::now();
        while self.outputs.status.kept().unwrap_or_default() < events {
            if begin.elapsed() > DEADLINE {
                bail!("{:?}: events do not get to the disk", self.outputs.status.problems());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
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

fn node() -> Node {
    Node {
        name: "n1".to_owned(),
        cluster: String::new(),
        internal_ips: Vec::new(),
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        labels: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]),
        identity: IdentityId(6),
        local: true,
    }
}

/// New connections and their packets, between changing pods.
fn event(n: u64) -> Event {
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
