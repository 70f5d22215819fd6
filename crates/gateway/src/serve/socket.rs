// SPDX-License-Identifier: Apache-2.0
//! The sockets of Gateways in a snapshot: how they are named, and what of a snapshot that is in force follows for the cluster.

use crate::infrastructure;
use crate::name::ObjectName;
use l7::link::State;
use l7::{Kind, Name, Source};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

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
    pub(super) fn parse(name: &str) -> Option<Self> {
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

/// What a proxy takes in a network of its own, by what it says is in force.
#[must_use]
pub fn taken(state: &State) -> Vec<Taken> {
    let closed = closed(state);
    let open = state.snapshot.listeners().filter(|listener| !listener.node && !closed.contains_key(&listener.name));
    let taken = open.filter_map(|listener| {
        let Socket { gateway, port, udp } = Socket::parse(&listener.name)?;
        let service = infrastructure::service_name(&gateway);
        Some(Taken { service, port_name: infrastructure::port_name(port, udp), udp, address: listener.address })
    });
    taken.collect()
}

/// What a proxy has of Gateways and ListenerSets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// It takes connections, and will.
    pub serves: bool,
    /// Their generations.
    pub generations: BTreeMap<Edition, i64>,
    /// What of them it cannot have.
    pub closed: BTreeSet<ClosedPort>,
}

/// A Gateway or ListenerSet, which is another after it has been deleted and made again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    /// Kind, namespace and name.
    pub object: Name,
    /// Unique over time.
    pub uid: Name,
}

/// A port of a Gateway at which a proxy cannot listen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClosedPort {
    /// Namespace of the Gateway.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The port.
    pub port: u16,
    /// Whether it is UDP's; otherwise TCP's.
    pub udp: bool,
    /// For people: the address, and what is wrong with it.
    pub reason: String,
}

/// What a proxy says is in force. An object is if anything is served of it; what is not is told of port by port.
#[must_use]
pub fn in_force(state: &State) -> InForce {
    let closed = closed(state);
    let mut in_force = InForce { serves: !state.leaving, ..InForce::default() };
    for listener in state.snapshot.listeners() {
        let Some(reason) = closed.get(&listener.name) else {
            let edition = |source: &Source| Edition { object: source.object.clone(), uid: source.uid.clone() };
            let sources = listener.sources.iter().map(|source| (edition(source), source.generation));
            in_force.generations.extend(sources);
            continue;
        };
        if let Some(Socket { gateway, port, udp }) = Socket::parse(&listener.name) {
            let ObjectName { namespace, name } = gateway;
            let reason = format!("{}: {reason}", listener.address);
            in_force.closed.insert(ClosedPort { namespace, name, port, udp, reason });
        }
    }
    in_force
}

/// Listeners of which nothing is in force, and why. One that lacks a part serves the rest.
pub(super) fn closed(state: &State) -> BTreeMap<&Name, &str> {
    let faults = state.status.iter().flat_map(|status| &status.faults).filter(|fault| !fault.partial);
    let listeners = faults.filter(|fault| fault.object.kind == Kind::Listener);
    listeners.map(|fault| (&fault.object.name, fault.reason.as_str())).collect()
}
