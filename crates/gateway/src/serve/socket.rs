// SPDX-License-Identifier: Apache-2.0
//! The sockets of Gateways in a snapshot: how they are named, and what of a snapshot that is in force follows for the cluster.

use crate::infrastructure;
use crate::name::ObjectName;
use l7::link::State;
use l7::{Key, Kind, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

/// A port of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    pub(super) gateway: ObjectName,
    pub(super) port: u16,
    pub(super) udp: bool,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway/{}/{}/{}", self.gateway, self.port, if self.udp { "udp" } else { "tcp" })
    }
}

impl Socket {
    /// From a listener's name, in which the family may follow.
    fn parse(name: &str) -> Option<Self> {
        let mut words = name.strip_prefix("gateway/")?.split('/');
        let gateway = ObjectName::new(words.next()?, words.next()?);
        Some(Self { gateway, port: words.next()?.parse().ok()?, udp: words.next()? == "udp" })
    }
}

/// Where a proxy takes what is sent to a port of a Gateway's Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// The Service.
    pub service: ObjectName,
    /// Name of its port.
    pub port_name: String,
    /// Whether it is UDP's; otherwise TCP's.
    pub udp: bool,
    /// Where the proxy listens. The address is unspecified.
    pub address: SocketAddr,
}

/// What a proxy takes, by what it says is in force.
#[must_use]
pub fn taken(state: &State) -> Vec<Taken> {
    let closed = closed(state);
    let open = state.snapshot.listeners().filter(|listener| !closed.contains(&listener.name));
    let taken = open.filter_map(|listener| {
        let Socket { gateway, port, udp } = Socket::parse(&listener.name)?;
        let service = infrastructure::service_name(&gateway);
        Some(Taken { service, port_name: infrastructure::port_name(port, udp), udp, address: listener.address })
    });
    taken.collect()
}

/// The Gateways and ListenerSets that a proxy has in force, all of their sockets included, with their generations.
#[must_use]
pub fn in_force(state: &State) -> BTreeMap<Name, i64> {
    let closed = closed(state);
    let (mut generations, mut incomplete) = (BTreeMap::new(), BTreeSet::new());
    for listener in state.snapshot.listeners() {
        for source in &listener.sources {
            generations.insert(source.object.clone(), source.generation);
            if closed.contains(&listener.name) {
                incomplete.insert(&source.object);
            }
        }
    }
    generations.retain(|object, _| !incomplete.contains(object));
    generations
}

/// Listeners that are not in force as they should be.
pub(super) fn closed(state: &State) -> BTreeSet<&Name> {
    let faults = state.status.iter().flat_map(|status| &status.faults);
    let listener = |fault: &'_ l7::link::Fault| matches!(fault.object, Key { kind: Kind::Listener, .. });
    faults.filter(|fault| listener(fault)).map(|fault| &fault.object.name).collect()
}
