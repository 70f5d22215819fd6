// SPDX-License-Identifier: Apache-2.0
//! Which flows are affected by a change to the routing tables. Pure: the tables as last reported by the kernel, a
//! change, and what follows for flows. It does no lookups: an address covered by several routes is affected when any of
//! them moves.
//!
//! A flow remembers its way out. It must follow when its route moves, but must not be decided again for every
//! re-announced route. So a change counts only if packets to its destination may now take a different path: not if it
//! repeats what was known, nor if it is about a route that loses to a better one, nor in a table that no rule names.
//!
//! The kernel does not report everything (a device that goes down silently takes its IPv4 routes with it). Whatever may
//! differ from what we know is in doubt; there every change counts until all tables have been read again.

use datapath::netlink::{FibRoute, Place, RouteChange, Way};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Up to this many addresses are bumped one by one. Above that, everyone is, which costs no more.
const ONE_BY_ONE: usize = 512;

/// The routing tables.
#[derive(Debug, Default)]
pub(crate) struct Fib {
    routes: BTreeMap<Place, Routes>,
    /// Tables that rules refer to; none for any.
    tables: Option<BTreeSet<u32>>,
    /// Indexes of devices through which no flow leaves the node by route: pods' devices, and our own.
    inner: BTreeSet<u32>,
}

/// The known routes to a destination with their metrics.
#[derive(Debug, Default)]
struct Routes {
    known: Vec<(u32, Way)>,
    doubt: Doubt,
}

/// What else is known about a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// It has exactly these routes.
    #[default]
    None,
    /// A route was reported that had been read before, or that duplicates another: there may be two of it.
    Twice,
    /// It may have changed, more than once.
    Unsure,
}

/// Whose flows must be decided again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Concerned {
    #[default]
    Nobody,
    /// Flows of these peers.
    Peers(BTreeSet<IpAddr>),
    Everyone,
}

impl Fib {
    /// Handles a change reported by the kernel. Returns the destination, if packets to it may take a different path.
    pub(crate) fn apply(&mut self, change: &RouteChange) -> Option<IpNet> {
        let place = of(change).place;
        if is_local(&place.destination) {
            return None;
        }
        let routes = self.routes.entry(place).or_default();
        let (before, doubt) = (routes.known.clone(), routes.doubt);
        routes.apply(change);
        let doubtful = doubt > Doubt::None || routes.doubt == Doubt::Unsure;
        let moved = doubtful || moved(&before, &routes.known, &self.inner);
        if routes.known.is_empty() && routes.doubt == Doubt::None {
            self.routes.remove(&place);
        }
        (moved && self.is_looked_at(&place)).then_some(place.destination)
    }

    /// Handles a complete listing. Returns the destinations to which packets may take a different path than was known.
    pub(crate) fn read(&mut self, all: Vec<FibRoute>, tables: Option<BTreeSet<u32>>) -> Vec<IpNet> {
        self.tables = tables;
        let before = std::mem::take(&mut self.routes);
        for route in all.into_iter().filter(|route| !is_local(&route.place.destination)) {
            self.routes.entry(route.place).or_default().known.push((route.metric, route.way));
        }
        let nothing = Routes::default();
        let moved = |place: &&Place| {
            let (was, is) = (before.get(*place).unwrap_or(&nothing), self.routes.get(*place).unwrap_or(&nothing));
            was.doubt == Doubt::Unsure || moved(&was.known, &is.known, &self.inner)
        };
        let places: BTreeSet<&Place> = before.keys().chain(self.routes.keys()).collect();
        let looked_at = places.into_iter().filter(|place| self.is_looked_at(place));
        looked_at.filter(moved).map(|place| place.destination).collect()
    }

    /// Rules have changed: until everything is read again, any table may be used.
    pub(crate) fn forget_tables(&mut self) {
        self.tables = None;
    }

    /// A device is down or has lost an address, and with it routes, which the kernel does not report.
    pub(crate) fn doubt(&mut self, device: u32) {
        if !self.inner.contains(&device) {
            for routes in self.routes.values_mut().filter(|routes| routes.lead_through(device)) {
                routes.doubt = Doubt::Unsure;
            }
        }
    }

    /// A device is gone, and with it its routes.
    pub(crate) fn device_gone(&mut self, device: u32) {
        self.doubt(device);
        self.inner.remove(&device);
        for routes in self.routes.values_mut() {
            routes.known.retain(|(_, way)| !leads_through(way, device));
        }
        self.routes.retain(|_, routes| !routes.known.is_empty() || routes.doubt > Doubt::None);
    }

    /// Whether something is in doubt until everything is read again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.routes.values().any(|routes| routes.doubt > Doubt::None)
    }

    /// Sets whether a device belongs to a pod or to us.
    pub(crate) fn set_inner(&mut self, device: u32, inner: bool) {
        if inner {
            self.inner.insert(device);
        } else {
            self.inner.remove(&device);
        }
    }

    fn is_looked_at(&self, place: &Place) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.contains(&place.table))
    }
}

impl Routes {
    fn apply(&mut self, change: &RouteChange) {
        let FibRoute { metric, way, .. } = of(change);
        let rivals = self.known.iter().filter(|(other, _)| other == metric).count();
        let exactly = self.known.iter().position(|(other, known)| other == metric && known == way);
        match (change, rivals, exactly) {
            (RouteChange::Removed(_), _, Some(index)) => drop(self.known.remove(index)),
            (RouteChange::Added(_), 0, _) => self.known.push((*metric, way.clone())),
            (RouteChange::Added(_), _, Some(_)) => self.doubt = self.doubt.max(Doubt::Twice),
            (RouteChange::Replaced(_), 1, _) => {
                self.known.retain(|(other, _)| other != metric);
                self.known.push((*metric, way.clone()));
            }
            _ => self.doubt = Doubt::Unsure,
        }
    }

    fn lead_through(&self, device: u32) -> bool {
        self.known.iter().any(|(_, way)| leads_through(way, device))
    }
}

fn of(change: &RouteChange) -> &FibRoute {
    match change {
        RouteChange::Added(route) | RouteChange::Replaced(route) | RouteChange::Removed(route) => route,
    }
}

fn leads_through(way: &Way, device: u32) -> bool {
    way.hops.iter().any(|hop| hop.ifindex == device)
}

/// Whether packets may go or come by a different path than before.
fn moved(before: &[(u32, Way)], now: &[(u32, Way)], inner: &BTreeSet<u32>) -> bool {
    let (was, is) = (in_use(before), in_use(now));
    was != is && !was.iter().chain(&is).all(|way| is_inner(inner, way))
}

/// The routes packets may use: the best, and the next best behind those that currently lead nowhere.
fn in_use(known: &[(u32, Way)]) -> Vec<&Way> {
    let leads = |way: &Way| way.hops.is_empty() || way.hops.iter().any(|hop| !hop.down);
    let last = known.iter().filter(|(_, way)| leads(way)).map(|(metric, _)| *metric).min();
    let mut used: Vec<&(u32, Way)> =
        known.iter().filter(|(metric, _)| last.is_none_or(|last| *metric <= last)).collect();
    used.sort();
    used.into_iter().map(|(_, way)| way).collect()
}

fn is_inner(inner: &BTreeSet<u32>, way: &Way) -> bool {
    !way.hops.is_empty() && way.hops.iter().all(|hop| inner.contains(&hop.ifindex))
}

/// Nothing is forwarded there: every device has such routes.
fn is_local(destination: &IpNet) -> bool {
    match destination {
        IpNet::V4(net) => net.addr().is_multicast() || net.addr().is_loopback(),
        IpNet::V6(net) => {
            let link_local = net.addr().is_unicast_link_local() && net.prefix_len() >= 10;
            link_local || net.addr().is_multicast() || net.addr().is_loopback()
        }
    }
}

impl Concerned {
    /// Includes peers reached through a route to that destination. `nodes` are tunnel endpoints: whatever is behind
    /// them is affected with them.
    pub(crate) fn add(&mut self, destination: &IpNet, nodes: &BTreeSet<IpAddr>) {
        let host_bits = u32::from(destination.max_prefix_len() - destination.prefix_len());
        let few = host_bits <= ONE_BY_ONE.ilog2();
        if *self == Self::Everyone || !few || nodes.iter().any(|node| destination.contains(node)) {
            *self = Self::Everyone;
            return;
        }
        let mut peers = match std::mem::take(self) {
            Self::Peers(peers) => peers,
            Self::Nobody | Self::Everyone => BTreeSet::new(),
        };
        peers.extend(addresses(destination));
        *self = if peers.len() > ONE_BY_ONE { Self::Everyone } else { Self::Peers(peers) };
    }
}

/// Every address of a prefix, including those that are not hosts by convention.
fn addresses(prefix: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match prefix {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            Box::new((first..=last).map(|ip| IpAddr::V4(ip.into())))
        }
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            Box::new((first..=last).map(|ip| IpAddr::V6(ip.into())))
        }
    }
}

#[cfg(test)]
mod tests;
