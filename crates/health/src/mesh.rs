// SPDX-License-Identifier: Apache-2.0
//! The state of the mesh: when to probe which node, and the last results for each. Time is passed in, and probes are
//! made elsewhere.
//!
//! Every node is probed once per interval, which grows with the logarithm of the number of addresses, so that the
//! traffic of a mesh, which grows with its square, stays small. After the first probe a node gets a slot in the
//! interval by its name, which spreads the probes. A node that did not respond is retried sooner, with a growing delay,
//! so that one that has just started does not count as lost for a whole interval.

use crate::metrics::{ENDPOINT, NODE};
use crate::targets::Targets;
use model::config::duration_text;
use model::{Node, NodeName};
use rest::{Connectivity, HealthEndpointStatus, HealthStatusResponse, HostStatus, NodeStatus, PathStatus, SelfStatus};
use statedb::{Change, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

const BASE_INTERVAL: Duration = Duration::from_secs(60);
/// From the first failure to the next probe; doubled for each further one, up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// All nodes learn of a new node at the same moment, and must not all probe it at once.
const NEWS: Duration = Duration::from_secs(1);

/// The probing interval for that many addresses.
pub(crate) fn interval(addresses: usize) -> Duration {
    BASE_INTERVAL.mul_f64(f64::from(u32::try_from(addresses).unwrap_or(u32::MAX)).ln_1p())
}

/// Probes to make of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The node.
    pub(crate) node: NodeName,
    /// Its number.
    pub(crate) number: u64,
    /// What to probe.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Nodes whose fresh results somebody is waiting for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand {
    nodes: BTreeSet<NodeName>,
    /// The last job that is too old.
    stale: u64,
}

impl Demand {
    /// A job has ended.
    pub(crate) fn ended(&mut self, job: &Job) {
        if job.number > self.stale {
            self.nodes.remove(&job.node);
        }
    }

    /// A node is gone.
    pub(crate) fn gone(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// Whether there is nothing to wait for.
    pub(crate) fn is_met(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// One node.
#[derive(Clone, Debug)]
struct Peer {
    targets: Targets,
    /// The last result by address; none for an address not probed yet.
    paths: BTreeMap<IpAddr, PathStatus>,
    turn: Turn,
    failures: u32,
    /// Whether it has its slot in the interval.
    placed: bool,
}

/// When a node is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Then; it is in the queue.
    At(Instant),
    /// It is being probed, and perhaps again as soon as that ends.
    Now { job: u64, again: bool },
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// The name of this node while there is no row of it.
    fallback: String,
    local: Option<String>,
    endpoints: bool,
    peers: BTreeMap<NodeName, Peer>,
    queue: BTreeSet<(Instant, NodeName)>,
    addresses: usize,
    /// How many jobs there have been.
    jobs: u64,
}

impl Mesh {
    /// Without nodes. `endpoints` says whether health endpoints are probed.
    pub(crate) fn new(node_name: String, endpoints: bool) -> Self {
        let (peers, queue) = (BTreeMap::new(), BTreeSet::new());
        Self { fallback: node_name, local: None, endpoints, peers, queue, addresses: 0, jobs: 0 }
    }

    /// Applies a change to the table of nodes; returns whether it matters. In the first round nodes are probed at once.
    pub(crate) fn apply(&mut self, change: &Change<Node>, first_round: bool, now: Instant) -> bool {
        match change {
            Change::Upsert(node) => self.upsert(node, if first_round { now } else { now + self.news(&node.key()) }),
            Change::Delete(node) => self.remove(&node.key()),
        }
    }

    fn upsert(&mut self, node: &Node, soon: Instant) -> bool {
        let (key, targets) = (node.key(), Targets::of(node, self.endpoints));
        if node.local {
            self.local = Some(key.to_string());
        }
        let count = targets.addresses().count();
        let Some(peer) = self.peers.get_mut(&key) else {
            self.addresses += count;
            self.queue.insert((soon, key.clone()));
            let (paths, turn) = (BTreeMap::new(), Turn::At(soon));
            let peer = Peer { targets, paths, turn, failures: 0, placed: false };
            self.peers.insert(key, peer);
            return true;
        };
        if peer.targets == targets {
            return false;
        }
        self.addresses = self.addresses - peer.targets.addresses().count() + count;
        peer.targets = targets;
        peer.failures = 0;
        let wanted: BTreeSet<IpAddr> = peer.targets.addresses().collect();
        peer.paths.retain(|ip, _| wanted.contains(ip));
        peer.hurry(&key, soon, &mut self.queue);
        true
    }

    fn remove(&mut self, key: &NodeName) -> bool {
        let Some(peer) = self.peers.remove(key) else { return false };
        self.addresses -= peer.targets.addresses().count();
        if let Turn::At(when) = peer.turn {
            self.queue.remove(&(when, key.to_owned()));
        }
        true
    }

    /// When the next probe is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(when, _)| *when)
    }

    /// A node that is due; it counts as being probed until [`finish`](Self::finish).
    pub(crate) fn start(&mut self, now: Instant) -> Option<Job> {
        self.next().filter(|when| *when <= now)?;
        let (_, node) = self.queue.pop_first()?;
        let peer = self.peers.get_mut(&node)?;
        self.jobs += 1;
        peer.turn = Turn::Now { job: self.jobs, again: false };
        Some(Job { number: self.jobs, addresses: peer.targets.addresses().collect(), node })
    }

    /// Takes the results of a probe.
    pub(crate) fn finish(&mut self, job: &Job, results: Vec<(IpAddr, PathStatus)>, now: Instant) {
        let interval = self.interval();
        let Some(peer) = self.peers.get_mut(&job.node) else { return };
        // A node that was removed and re-added meanwhile has its own job, or is in the queue.
        let again = match peer.turn {
            Turn::Now { job: present, again } if present == job.number => again,
            _ => return,
        };
        let failed = results.iter().any(|(_, path)| path.connectivity() == Connectivity::Unreachable);
        peer.failures = if failed { peer.failures.saturating_add(1) } else { 0 };
        let wanted: BTreeSet<IpAddr> = peer.targets.addresses().collect();
        peer.paths.extend(results.into_iter().filter(|(ip, _)| wanted.contains(ip)));
        let pause = match (again, peer.failures) {
            (true, _) => Duration::ZERO,
            (false, 0) if peer.placed => interval,
            (false, 0) => {
                peer.placed = true;
                part(interval, &job.node)
            }
            (false, failures) => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(interval),
        };
        peer.turn = Turn::At(now + pause);
        self.queue.insert((now + pause, job.node.clone()));
    }

    /// Has all nodes probed now; returns what to wait for.
    pub(crate) fn demand(&mut self, now: Instant) -> Demand {
        self.peers.iter_mut().for_each(|(key, peer)| peer.hurry(key, now, &mut self.queue));
        Demand { nodes: self.peers.keys().cloned().collect(), stale: self.jobs }
    }

    /// The current interval.
    pub(crate) fn interval(&self) -> Duration {
        interval(self.addresses)
    }

    /// The results, in the API's form.
    pub(crate) fn report(&self, timestamp: String) -> HealthStatusResponse {
        HealthStatusResponse {
            timestamp,
            probe_interval: duration_text(self.interval()),
            local: Some(SelfStatus { name: self.local.as_ref().unwrap_or(&self.fallback).clone() }),
            nodes: self.peers.iter().map(|(name, peer)| peer.report(name)).collect(),
        }
    }

    /// Which kind of address of this node that is, for metrics: of node or endpoint, primary or secondary.
    pub(crate) fn kind(&self, node: &NodeName, ip: IpAddr) -> Option<(&'static str, &'static str)> {
        let targets = &self.peers.get(node)?.targets;
        [(NODE, &targets.host), (ENDPOINT, &targets.endpoint)].into_iter().find_map(|(kind, ips)| {
            let place = ips.iter().position(|known| *known == ip)?;
            Some((kind, if place == 0 { "primary" } else { "secondary" }))
        })
    }

    /// How long this node waits before probing a new or changed one.
    fn news(&self, node: &NodeName) -> Duration {
        part(NEWS, &(&self.fallback, node))
    }
}

impl Peer {
    /// Schedules the node for then, unless it is due earlier; if it is being probed, once more after that.
    fn hurry(&mut self, key: &NodeName, when: Instant, queue: &mut BTreeSet<(Instant, NodeName)>) {
        match &mut self.turn {
            Turn::Now { again, .. } => *again = true,
            Turn::At(planned) if *planned <= when => {}
            Turn::At(planned) => {
                queue.remove(&(*planned, key.to_owned()));
                queue.insert((when, key.to_owned()));
                *planned = when;
            }
        }
    }

    fn report(&self, name: &NodeName) -> NodeStatus {
        let path = |ip: &IpAddr| {
            let unknown = || PathStatus { ip: ip.to_string(), ..PathStatus::default() };
            self.paths.get(ip).cloned().unwrap_or_else(unknown)
        };
        let split = |ips: &[IpAddr]| {
            let (primary, secondary) = ips.split_first()?;
            Some((path(primary), secondary.iter().map(path).collect()))
        };
        let host = split(&self.targets.host);
        let endpoint = split(&self.targets.endpoint);
        NodeStatus {
            name: name.to_string(),
            host: host.map(|(primary, secondary_addresses)| HostStatus {
                primary_address: Some(primary),
                secondary_addresses,
            }),
            endpoint: endpoint.as_ref().map(|(primary, _)| primary.clone()),
            health_endpoint: endpoint.map(|(primary, secondary_addresses)| HealthEndpointStatus {
                primary_address: Some(primary),
                secondary_addresses,
            }),
        }
    }
}

/// A fraction of a duration, determined by the key and evenly spread over all keys.
fn part(whole: Duration, key: &(impl Hash + ?Sized)) -> Duration {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    whole.mul_f64(f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX))
}
