// SPDX-License-Identifier: Apache-2.0
//! The cost of looking for garbage in a flow table in use.

use std::fs;
use std::path::Path;

use abi::Addr;
use abi::flow::{Flow, FlowKey, Half, half, proto};
use abi::maps::Flows;
use abi::tuple::Tuple;
use anyhow::{Context as _, Result, bail, ensure};
use datapath::Kernel as _;
use datapath::bpf::{Datapath, Options};
use datapath::flows::{Collector, now};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::report::Figure;

/// Flows in the table.
const FLOWS: u32 = 250_000;
/// Number of collections; the median counts.
const ROUNDS: usize = 9;
const BPFFS: &str = "/run/netns/collect";

/// Measures on a thread of its own, since its processor time is what counts.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    let Ok(result) = std::thread::spawn(run).join() else { bail!("the thread that collects ended") };
    result
}

fn run() -> Result<Vec<Figure>> {
    fs::create_dir_all(BPFFS).context("cannot create a folder for the bpf file system")?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpf")?;
    let options = Options { bpffs: Path::new(BPFFS).to_owned(), flows: 2 * FLOWS, ..Options::default() };
    let datapath = Datapath::load(&options).context("cannot load the programs")?;
    let table = datapath.map::<Flows>()?;
    let now = now();
    for number in 0..FLOWS {
        let (key, flow) = connection(number, now);
        table.insert(&key, &flow)?;
    }
    let mut collector = Collector::new(table);
    let (mut user, mut system, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (before, held) = (getrusage(UsageWho::RUSAGE_THREAD)?, resident_kib()?);
        let found = collector.collect(now)?;
        let after = getrusage(UsageWho::RUSAGE_THREAD)?;
        ensure!(found.alive == FLOWS as usize && found.removed == 0, "{found:?}");
        let spent =
            |to: nix::sys::time::TimeVal, from: nix::sys::time::TimeVal| (to - from).num_microseconds() as f64 / 1e3;
        user.push(spent(after.user_time(), before.user_time()));
        system.push(spent(after.system_time(), before.system_time()));
        resident.push((resident_kib()? - held) / 1024.0);
    }
    let both: Vec<f64> = user.iter().zip(&system).map(|(user, system)| user + system).collect();
    let what = format!("collection, {FLOWS} flows in use");
    let largest = resident.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Figure::times(format!("{what}, processor"), "ours", &both).target("< 50"),
        Figure::times(format!("{what}, of that in the kernel"), "ours", &system),
        Figure::new(format!("{what}, more resident"), "ours", largest, "MiB").target("< 5"),
    ])
}

/// An established connection.
fn connection(number: u32, last_seen: u32) -> (FlowKey, Flow) {
    let [high, low] = [number >> 14, number & 0x3fff].map(u64::from);
    let (src, dst) = (Addr { hi: 0, lo: high }, Addr { hi: 1, lo: 0 });
    let sport = low as u16;
    let (key, _) = Tuple { src, dst, sport, dport: 80, proto: proto::TCP, class: 0, asks: true }.key();
    let half = Half { last_seen, flags: half::CONFIRMED, ..Half::default() };
    (key, Flow { tag: key.tag(), forward: half, reply: half, ..Flow::default() })
}

/// What this process has in memory.
pub(crate) fn resident_kib() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.context("/proc/self/status has no VmRSS")
}
