// SPDX-License-Identifier: Apache-2.0
//! Which flows a change of the routing tables concerns. Pure: the tables as the kernel last told of them, what changes, and what
//! follows for flows. It looks nothing up: an address that several routes cover is concerned when any of them moves.
//!
//! A flow remembers its way out. It must not stay behind when its route moves; and it must not be decided anew for every route that
//! somebody announces again. So a change counts only if packets to its destination may go another way than before: not if the same
//! is said again, nor if it is about a route that is passed over for a better one, nor in a table that no rule names.
//!
//! The kernel does not tell everything (a device that goes down takes its IPv4 routes with it in silence). What may be something else
//! than we think is in doubt, and there every change counts, until all tables are read again.

use datapath::netlink::{FibRoute, Place, RouteChange, Way};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// So many addresses are told one by one. Above, everyone is told, which costs no more.
const ONE_BY_ONE: usize = 512;

/// The routing tables.
#[derive(Debug, Default)]
pub(crate) struct Fib {
    routes: BTreeMap<Place, Routes>,
    /// Tables that packets may be sent to; none for any.
    tables: Option<BTreeSet<u32>>,
    /// Indexes of devices on which no flow leaves the node by its route: those of pods, and our own.
    inner: BTreeSet<u32>,
}

/// The routes of a place with their metrics, as far as they are known.
#[derive(Debug, Default)]
struct Routes {
    known: Vec<(u32, Way)>,
    doubt: Doubt,
}

/// What is known of a place, beside its routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// It has these routes and no others.
    #[default]
    None,
    /// A route was told of that had been read before, or that does the same as another: there may be two of it.
    Twice,
    /// It may be something else, and may have been something else again in between.
    Unsure,
}

/// Whose flows are to be decided anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Concerned {
    #[default]
    Nobody,
    /// Flows of these peers.
    Peers(BTreeSet<IpAddr>),
    Everyone,
}

impl Fib {
    /// The kernel tells of a change: the destination, if packets may go another way there.
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

    /// All routes, as they are: the destinations where packets may go another way than was known.
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

    /// Rules have changed: until all is read again, any table may be looked at.
    pub(crate) fn forget_tables(&mut self) {
        self.tables = None;
    }

    /// A device is down, or has lost an address, and with it routes, of which the kernel does not tell.
    pub(crate) fn doubt(&mut self, device: u32) {
        if !self.inner.contains(&device) {
            for routes in self.routes.values_mut().filter(|routes| routes.lead_through(device)) {
                routes.doubt = Doubt::Unsure;
            }
        }
    }

    /// A device has gone, and with it its routes.
    pub(crate) fn device_gone(&mut self, device: u32) {
        self.doubt(device);
        self.inner.remove(&device);
        for routes in self.routes.values_mut() {
            routes.known.retain(|(_, way)| !leads_through(way, device));
        }
        self.routes.retain(|_, routes| !routes.known.is_empty() || routes.doubt > Doubt::None);
    }

    /// Whether there is something that only reading all again makes sure of.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.routes.values().any(|routes| routes.doubt > Doubt::None)
    }

    /// A device is one of a pod or of our own, or not.
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

/// Whether packets may go another way than before, or come from one.
fn moved(before: &[(u32, Way)], now: &[(u32, Way)], inner: &BTreeSet<u32>) -> bool {
    let (was, is) = (in_use(before), in_use(now));
    was != is && !was.iter().chain(&is).all(|way| is_inner(inner, way))
}

/// What packets may meet: the best routes, and the next best behind those that lead nowhere now.
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

/// Where nothing is forwarded: every device has such routes.
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
    /// Also those to whom a route to that destination leads. `nodes` are the addresses that the tunnel leads to: whatever is behind
    /// them is concerned with them.
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

/// Every address of a prefix, also those that are no host's by convention.
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
