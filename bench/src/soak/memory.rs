// SPDX-License-Identifier: Apache-2.0
//! Whether the agents and the operator grow: their resident memory and open files during the soak, and after a fresh start.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::NODES;
use crate::clock;
use crate::cluster::Cluster;

/// A daemon that must not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Agent(&'static str),
    Operator,
}

impl Daemon {
    const ALL: [Self; 3] = [Self::Agent(NODES[0]), Self::Agent(NODES[1]), Self::Operator];

    fn name(self) -> String {
        match self {
            Self::Agent(node) => format!("agent of {node}"),
            Self::Operator => "operator".to_owned(),
        }
    }

    fn pid(self, cluster: &Cluster) -> Result<u32> {
        match self {
            Self::Agent(node) => cluster.agent(node),
            Self::Operator => cluster.operator(&NODES),
        }
    }

    fn replace(self, cluster: &Cluster) -> Result<()> {
        match self {
            Self::Agent(node) => cluster.replace_agent(node).map(drop),
            Self::Operator => {
                cluster.kubectl(&["-n", "kube-system", "rollout", "restart", "deployment/cilium-operator"]).map(drop)
            }
        }
    }
}

/// Samples of their resident memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    samples: Vec<(Daemon, u64)>,
    last: Option<Instant>,
}

impl Memory {
    const EVERY: Duration = Duration::from_secs(15);
    /// How much larger a daemon may be after the soak than after a fresh start: a share, and a minimum in KiB.
    const FACTOR: u64 = 2;
    const SLACK_KIB: u64 = 16 * 1024;
    /// How many more files than after a start it may have open: mostly connections.
    const FILES: usize = 32;

    /// Takes a sample if one is due. A daemon may just be restarting.
    pub(super) fn sample(&mut self, cluster: &Cluster) {
        if self.last.is_some_and(|last| last.elapsed() < Self::EVERY) {
            return;
        }
        self.last = Some(clock::now());
        for daemon in Daemon::ALL {
            self.samples.extend(daemon.pid(cluster).and_then(resident).map(|kib| (daemon, kib)));
        }
    }

    /// Compares the daemons and the largest sample with the same daemons after a restart. They have seen at least the end of the soak.
    pub(super) fn is_flat(&self, cluster: &Cluster) -> Result<()> {
        let mut faulty = Vec::new();
        for daemon in Daemon::ALL {
            let name = daemon.name();
            let used = Use::of(daemon, cluster)?;
            daemon.replace(cluster)?;
            super::rested(cluster)?;
            let fresh = Use::of(daemon, cluster)?;
            let largest = self.samples.iter().filter(|(of, _)| *of == daemon).map(|(_, kib)| *kib).max();
            let largest = largest.with_context(|| format!("{name}: not seen once"))?;
            eprintln!("{name}: {largest} KiB at most, {used:?} at the end, {fresh:?} after a start");
            if largest.max(used.kib) > fresh.kib * Self::FACTOR + Self::SLACK_KIB {
                faulty.push(format!("{name}: {largest} KiB at most, {} KiB after a start", fresh.kib));
            }
            if used.files > fresh.files + Self::FILES {
                faulty.push(format!("{name}: {} open files, {} after a start", used.files, fresh.files));
            }
        }
        if faulty.is_empty() { Ok(()) } else { bail!("{}", faulty.join("; ")) }
    }
}

/// What a process has.
#[derive(Debug)]
struct Use {
    kib: u64,
    files: usize,
}

impl Use {
    fn of(daemon: Daemon, cluster: &Cluster) -> Result<Self> {
        let pid = daemon.pid(cluster)?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon has ended")?.count();
        Ok(Self { kib: resident(pid)?, files })
    }
}

/// KiB of a process.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).context("VmRSS is no number")
}
