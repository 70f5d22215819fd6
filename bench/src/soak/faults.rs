// SPDX-License-Identifier: Apache-2.0
//! Kills, stops and hangs daemons.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::NODES;
use crate::clock;
use crate::cluster::Cluster;

/// A daemon: the machines it may run on, and its name.
type Daemon = (&'static [&'static str], &'static str);

const DAEMONS: [Daemon; 4] = [
    (&[NODES[0]], "cilium-agent"),
    (&[NODES[1]], "cilium-agent"),
    (&NODES, "cilium-operator"),
    (&["control"], "kube-apiserver"),
];

/// SIGKILL: it restarts at once. SIGTERM: it may tidy up first. SIGSTOP: it hangs until it is resumed.
const SIGNALS: [Signal; 3] = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSTOP];

/// The faults in progress.
#[derive(Debug, Default)]
pub(super) struct Faults {
    hung: Option<(Instant, Vec<u32>)>,
    next: Option<Instant>,
    /// What is to come of this round. Each round has every fault once, in an order of its own.
    round: Vec<(Daemon, Signal)>,
    done: BTreeMap<(&'static [&'static str], &'static str, Signal), usize>,
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
        let Some((daemon, signal)) = self.draw(random) else { return Ok(()) };
        let (machines, name) = daemon;
        let mut pids = Vec::new();
        for machine in machines {
            pids.extend(cluster.processes_named(machine, name)?);
        }
        if pids.is_empty() {
            // It is just restarting: its turn comes once more, after the rest of the round.
            self.round.insert(0, (daemon, signal));
            return Ok(());
        }
        self.next = Some(now + Duration::from_secs(random.random_range(5..40)));
        pids.iter().for_each(|pid| send(*pid, signal));
        *self.done.entry((machines, name, signal)).or_default() += 1;
        if signal == Signal::SIGSTOP {
            // Now and then for longer than leases, deadlines and liveness probes.
            self.hung = Some((now + Duration::from_secs(random.random_range(1..90)), pids));
        }
        Ok(())
    }

    fn draw(&mut self, random: &mut StdRng) -> Option<(Daemon, Signal)> {
        if self.round.is_empty() {
            self.round = all().collect();
            self.round.shuffle(random);
        }
        self.round.pop()
    }

    /// Fails unless each daemon got each signal: what was not done proves nothing.
    pub(super) fn complete(&self) -> Result<()> {
        let missed: Vec<String> = all()
            .filter(|((machines, name), signal)| !self.done.contains_key(&(*machines, *name, *signal)))
            .map(|((machines, name), signal)| format!("{name} on {} got no {signal}", machines.join(" or ")))
            .collect();
        if missed.is_empty() { Ok(()) } else { bail!("{}", missed.join("; ")) }
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
        let counts: Vec<_> = self
            .done
            .iter()
            .map(|((machines, name, signal), n)| format!("{name} on {} {signal} x {n}", machines.join(" or ")))
            .collect();
        f.write_str(&counts.join(", "))
    }
}

/// Every fault of a round.
fn all() -> impl Iterator<Item = (Daemon, Signal)> {
    DAEMONS.into_iter().flat_map(|daemon| SIGNALS.map(|signal| (daemon, signal)))
}

/// It may have ended by itself.
fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = pid.try_into() {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_round_has_every_fault_once_and_a_soak_without_one_of_them_is_not_complete() {
        let mut faults = Faults::default();
        let mut random = StdRng::seed_from_u64(7);
        for drawn in 0..all().count() {
            let missed = faults.complete().unwrap_err().to_string();
            assert_eq!(missed.split("; ").count(), all().count() - drawn, "{missed}");
            let ((machines, name), signal) = faults.draw(&mut random).unwrap();
            *faults.done.entry((machines, name, signal)).or_default() += 1;
        }
        assert!(faults.complete().is_ok());
    }
}
