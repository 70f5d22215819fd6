// SPDX-License-Identifier: Apache-2.0
//! The loop that keeps this node's network configured: whenever Kubernetes, a node or a device changes, everything is
//! checked again, and what differs is changed. Its only state, apart from the kernel and the API server, is what it
//! knows about routes.

use crate::Config;
use crate::devices::{self, Wanted};
use crate::fib::Concerned;
use crate::ingest::KubeNode;
use crate::inventory::Inventory;
use crate::local::{self, Facts, Host};
use crate::programs::Programs;
use crate::publish::{NodeFacts, Publication};
use crate::reconcile::{kernel_route, ours, same};
use crate::resolve::{Grants, Problem, Route, resolve};
use crate::ways_out::{self, WaysOut};
use datapath::netlink::{Change, Changes, Netlink};
use model::{Device, LocalNode, Node, NodeAddress, NodeName, RoutingMode};
use statedb::{Reader, Writer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

/// Device changes within this time are handled together.
const GATHER: Duration = Duration::from_millis(50);
/// Route changes are handled no more often than flows are bumped.
const ROUTES: Duration = ways_out::PAUSE;
/// Delay before retrying after a failure.
const RETRY: Duration = Duration::from_secs(2);

pub(crate) struct Run {
    pub(crate) config: Config,
    pub(crate) netlink: Netlink,
    pub(crate) programs: Programs,
    pub(crate) kube: Reader<KubeNode>,
    pub(crate) nodes: Reader<Node>,
    pub(crate) local: Writer<LocalNode>,
    pub(crate) devices: Writer<Device>,
    pub(crate) addresses: Writer<NodeAddress>,
    pub(crate) routes: Writer<Route>,
    pub(crate) problems: Writer<Problem>,
    pub(crate) health: watch::Receiver<Option<Vec<IpAddr>>>,
    pub(crate) publication: watch::Sender<Option<Publication>>,
    pub(crate) not_ready: watch::Sender<Option<String>>,
    pub(crate) grants: Grants,
    pub(crate) boot_id: String,
    pub(crate) ways_out: WaysOut,
    /// What has been warned about.
    pub(crate) warnings: Vec<String>,
}

/// Why a round was cut short.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("waiting for {0}")]
    Waiting(&'static str),
    #[error(transparent)]
    NotReady(#[from] local::Missing),
    #[error("{}", statedb::with_causes(.0))]
    Kernel(#[from] datapath::Error),
}

impl Run {
    pub(crate) async fn run(mut self, mut changes: Changes) {
        let (mut kube, mut nodes) = (self.kube.subscribe(), self.nodes.subscribe());
        self.exempt_tunnel().await;
        loop {
            let outcome = self.round().await;
            let mut due = matches!(outcome, Err(RoundError::Kernel(_))).then(|| Instant::now() + RETRY);
            self.report(outcome.err());
            loop {
                tokio::select! {
                    _ = kube.next() => break,
                    _ = nodes.next() => break,
                    Ok(()) = self.health.changed() => break,
                    change = changes.next() => {
                        let Some(change) = change else { return };
                        self.note(&change);
                        match urgency(&change) {
                            Urgency::None => {}
                            Urgency::Soon => {
                                let soon = Instant::now() + ROUTES;
                                due = Some(due.map_or(soon, |due| due.min(soon)));
                            }
                            Urgency::Now => {
                                self.gather(&mut changes).await;
                                break;
                            }
                        }
                    }
                    () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => break,
                }
            }
        }
    }

    /// Checks everything, and changes what differs.
    async fn round(&mut self) -> Result<(), RoundError> {
        let Some(kube) = self.kube.snapshot().get(&()) else {
            // Without its owner the CiliumNode would just be deleted again.
            self.publication.send_if_modified(|present| present.take().is_some());
            return Err(RoundError::Waiting("the Node object of this node"));
        };
        let nodes = self.nodes.snapshot();
        if !nodes.initialized() {
            return Err(RoundError::Waiting("the list of CiliumNodes"));
        }
        let own = nodes.get(&NodeName { cluster: self.config.cluster.clone(), name: kube.name.clone() });
        let host = devices::look(&self.netlink).await?;
        let inventory = self.take_inventory(&host, &kube);
        let found = local::facts(&self.config, &host, &inventory, &kube, own.as_deref());
        let known = found.as_ref().map_or(NodeFacts::Published(own.as_deref()), NodeFacts::Complete);
        // Until they are known, keep the previous ones.
        let before = || own.as_ref().map(|own| own.health_ips.clone()).unwrap_or_default();
        let health = self.health.borrow_and_update().clone().unwrap_or_else(before);
        self.publish(Publication::new(&self.config, &kube, known, health, &self.boot_id));
        let mut facts = found?;

        let mut host = host;
        if devices::ensure(&self.netlink, &host, &self.wanted(&facts)).await? {
            host = devices::look(&self.netlink).await?;
            let inventory = self.take_inventory(&host, &kube);
            facts = local::facts(&self.config, &host, &inventory, &kube, own.as_deref())?;
        }
        self.programs.sync(&self.config, &facts, &host).await?;
        self.look_at_routes(&host).await?;
        self.tell_flows()?;
        self.restore_lost_routes().await?;
        self.resolve(&facts);
        self.announce(facts);
        Ok(())
    }

    /// Publishes the devices, whether or not they suffice for this node.
    fn take_inventory(&mut self, host: &Host, kube: &KubeNode) -> Inventory {
        let found = Inventory::of(&self.config, host, &kube.internal_ips);
        found.warnings.iter().filter(|warning| !self.warnings.contains(warning)).for_each(|warning| warn!("{warning}"));
        self.warnings.clone_from(&found.warnings);
        self.devices.replace(found.devices.clone());
        self.devices.mark_initialized();
        self.addresses.replace(found.addresses.clone());
        self.addresses.mark_initialized();
        found
    }

    /// Records a change. A single one takes effect at once; of a burst, the rest with the next round.
    fn note(&mut self, change: &Change) {
        self.ways_out.note(change);
        if self.ways_out.is_urgent() {
            // Failures are retried in the next round.
            let _ = self.tell_flows();
        }
    }

    /// Collects further changes for a moment.
    async fn gather(&mut self, changes: &mut Changes) {
        let until = Instant::now() + GATHER;
        while let Ok(Some(change)) = tokio::time::timeout_at(until, changes.next()).await {
            self.ways_out.note(&change);
        }
    }

    async fn look_at_routes(&mut self, host: &Host) -> Result<(), RoundError> {
        let nodes = self.nodes.snapshot();
        let remote = nodes.iter().filter(|node| !node.local && self.config.routing == RoutingMode::Tunnel);
        let addresses = remote.flat_map(|node| node.internal_ips.clone()).collect();
        self.ways_out.look(&host.links, addresses);
        if self.ways_out.is_stale() {
            let tables = self.netlink.tables().await?;
            self.ways_out.read(self.netlink.fib().await?, tables);
        }
        Ok(())
    }

    fn tell_flows(&mut self) -> Result<(), RoundError> {
        if *self.ways_out.concerned() != Concerned::Nobody {
            self.programs.routes_changed(self.ways_out.concerned())?;
            self.ways_out.reported();
        }
        Ok(())
    }

    fn wanted(&self, facts: &Facts) -> Wanted {
        Wanted {
            mtu: facts.row.device_mtu,
            routers: facts.wire.routers.clone(),
            tunnel_port: self.tunnel_port(),
            tunnel_over_ipv6: facts.wire.ipv6.is_some(),
        }
    }

    fn tunnel_port(&self) -> Option<u16> {
        (self.config.routing == RoutingMode::Tunnel).then_some(self.config.tunnel_port())
    }

    /// Exempts the tunnel from the host's connection tracking. Everything works without, so it is tried only once.
    async fn exempt_tunnel(&self) {
        if let Err(error) = self.programs.untrack(self.tunnel_port()).await {
            let error = statedb::with_causes(&error);
            info!(
                error,
                "the host tracks each flow in the tunnel as a connection: nf_conntrack_max must have room for them"
            );
        }
    }

    fn publish(&self, publication: Publication) {
        self.publication.send_if_modified(|present| {
            let news = present.as_ref() != Some(&publication);
            *present = Some(publication);
            news
        });
    }

    fn resolve(&mut self, facts: &Facts) {
        let nodes = self.nodes.snapshot();
        let found = resolve(&self.config, &facts.wire, nodes.iter().map(AsRef::as_ref), &self.grants);
        let known = self.problems.snapshot();
        for problem in found.problems.iter().filter(|problem| known.get(&statedb::Row::key(*problem)).is_none()) {
            warn!(node = problem.node, "{}", problem.message);
        }
        self.problems.replace(found.problems);
        self.problems.mark_initialized();
        self.routes.replace(found.routes);
        self.routes.mark_initialized();
        self.grants = found.grants;
    }

    /// Routes vanish when their device goes down. Rewrite the row of such a route, so that it is reconciled again. Only
    /// for rows of earlier rounds: new ones are still being applied.
    async fn restore_lost_routes(&mut self) -> Result<(), RoundError> {
        let present: BTreeMap<_, _> =
            ours(&self.netlink).await?.into_iter().map(|route| (route.destination, route)).collect();
        let desired = self.routes.snapshot();
        let has = |row: &Route| present.get(&row.prefix).is_some_and(|route| same(route, &kernel_route(row)));
        let lost: Vec<Route> = desired.iter().filter(|row| !has(row)).map(|row| row.as_ref().clone()).collect();
        if !lost.is_empty() {
            lost.iter().for_each(|row| self.routes.remove(&row.prefix));
            self.routes.commit();
            lost.into_iter().for_each(|row| self.routes.insert(row));
            self.routes.commit();
        }
        Ok(())
    }

    fn announce(&mut self, facts: Facts) {
        let present = self.local.snapshot().get(&());
        if present.as_deref() != Some(&facts.row) {
            info!(
                node = facts.row.name,
                devices = facts.row.devices.join(","),
                mtu = facts.row.route_mtu,
                pod_cidrs = ?facts.row.pod_cidrs,
                "this node"
            );
            self.local.insert(facts.row);
        }
        self.local.mark_initialized();
    }

    /// Logs when an error appears, changes or goes away, not each time it recurs.
    fn report(&self, error: Option<RoundError>) {
        let text = error.as_ref().map(ToString::to_string);
        self.not_ready.send_if_modified(|present| {
            let news = *present != text;
            if news {
                match &error {
                    Some(RoundError::Kernel(_)) => warn!("{}", text.as_deref().unwrap_or_default()),
                    Some(_) => info!("{}", text.as_deref().unwrap_or_default()),
                    None => info!("node ready"),
                }
                present.clone_from(&text);
            }
            news
        });
    }
}

/// How urgent a kernel change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// Not at all: pods come and go, and their interfaces are not our business.
    None,
    /// A route: every pod has routes, and so do we.
    Soon,
    /// A device or an address.
    Now,
}

fn urgency(change: &Change) -> Urgency {
    match change {
        Change::Link(link) | Change::LinkGone(link) if link.name.starts_with("lxc") => Urgency::None,
        Change::Route(_) | Change::Rules => Urgency::Soon,
        Change::Link(_) | Change::LinkGone(_) | Change::Address(_) | Change::AddressGone(_) | Change::Lost => {
            Urgency::Now
        }
    }
}
