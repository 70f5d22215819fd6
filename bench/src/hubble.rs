// SPDX-License-Identifier: Apache-2.0
//! The cost of flows: to take in an event, to keep it on disk, and to read it again.

mod agent;
mod merging;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use agent::{Agent, event, node};
use anyhow::{Result, ensure};
use hubble::proto::observer::GetFlowsRequest;
use hubble::{Capacity, Config};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::time::Instant;

use crate::report::Figure;

pub(crate) use merging::serve_relay;

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
    std::fs::create_dir_all(&folder)?;
    let result = history(&folder, &mut figures).await;
    let merged = match result {
        Ok(()) => merging::measure(&folder).await,
        Err(error) => Err(error),
    };
    // It is in the machine's temporary folder, and is removed with that.
    let _ = std::fs::remove_dir_all(&folder);
    figures.extend(merged?);
    Ok(figures)
}

/// The agent of a cluster's only node, with a history in this folder.
fn alone(history: Option<&Path>) -> Agent {
    let config = Config {
        enabled: true,
        capacity: Capacity(4095),
        socket: std::env::temp_dir().join(format!("bench-hubble-{}.sock", std::process::id())),
        history_path: history.map(Path::to_owned),
        history_size: 1024,
        ..Config::default()
    };
    Agent::start(config, [node("n1", IpAddr::from(Ipv4Addr::LOCALHOST))])
}

/// Taking in events without a reader.
fn ring() -> Result<Figure> {
    let agent = alone(None);
    let before = processor(UsageWho::RUSAGE_THREAD)?;
    (0..MANY).for_each(|n| agent.outputs.sink.push(&event(n)));
    let spent = processor(UsageWho::RUSAGE_THREAD)? - before;
    Ok(Figure::new("an event into the ring, processor", "ours", spent * 1e9 / MANY as f64, "ns").target("< 1000"))
}

/// A steady stream to the disk, and reading it.
async fn history(folder: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    let agent = alone(Some(folder));
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
