// SPDX-License-Identifier: Apache-2.0
//! Kills, stops and hangs daemons.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::NODES;
use crate::clock;
use crate::cluster::Cluster;

/// A daemon: its machine and its name.
const DAEMONS: [(&str, &str); 5] = [
    (NODES[0], "cilium-agent"),
    (NODES[1], "cilium-agent"),
    (NODES[0], "cilium-operator"),
    (NODES[1], "cilium-operator"),
    ("control", "kube-apiserver"),
];

/// SIGKILL: it restarts at once. SIGTERM: it may tidy up first. SIGSTOP: it hangs until it is resumed.
const SIGNALS: [Signal; 3] = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSTOP];

/// The faults in progress.
#[derive(Debug, Default)]
pub(super) struct Faults {
    hung: Option<(Instant, Vec<u32>)>,
    next: Option<Instant>,
    done: BTreeMap<(&'static str, Signal), usize>,
}

impl Faults {
    /// Injects a fault now and then, and resumes what has hung for long enough.
    pub(super) fn step(&mut self, cluster: &Cluster, random: &mut StdRng) -> Result<()> {
        let now = clock::now();
        if self.hung.as_ref().is_some_and(|(until, _)| *until <= now) {
            self.wake();
        }
        if self.hung.is_some() || self.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        self.next = Some(now + Duration::from_secs(random.random_range(5..40)));
        let (machine, name) = *DAEMONS.choose(random).context("no daemons")?;
        let signal = *SIGNALS.choose(random).context("no signals")?;
        // The operator is on one of the nodes; what was just killed may be missing.
        let pids = cluster.processes_named(machine, name)?;
        if pids.is_empty() {
            return Ok(());
        }
        pids.iter().for_each(|pid| send(*pid, signal));
        *self.done.entry((name, signal)).or_default() += 1;
        if signal == Signal::SIGSTOP {
            // Now and then for longer than leases, deadlines and liveness probes.
            self.hung = Some((now + Duration::from_secs(random.random_range(1..90)), pids));
        }
        Ok(())
    }

    fn wake(&mut self) {
        if let Some((_, pids)) = self.hung.take() {
            pids.into_iter().for_each(|pid| send(pid, Signal::SIGCONT));
        }
    }

    /// Resumes everything: all daemons must be there at the end.
    pub(super) fn end(&mut self, cluster: &Cluster) -> Result<()> {
        self.wake();
        clock::poll(super::REST, super::BREATH, || cluster.kubectl(&["get", "--raw", "/readyz"])).map(drop)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.done.iter().map(|((name, signal), n)| format!("{name} {signal} x {n}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// It may have ended by itself.
fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = pid.try_into() {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
