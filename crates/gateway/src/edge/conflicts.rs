// SPDX-License-Identifier: Apache-2.0
//! Listeners that cannot be told apart. Within one object none of them is served; of different objects, that of the object which comes
//! first is: the Gateway, then its ListenerSets by age.

use super::listener::{Listener, Protocol};
use crate::verdict::Verdict;
use l7::HostMatch;
use std::collections::{BTreeMap, BTreeSet};

/// Marks the listeners that conflict with others, which come in the order of precedence of their objects.
pub(super) fn mark(listeners: &mut [Listener]) {
    let mut by_port: BTreeMap<(u16, bool), Vec<usize>> = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        if let Some(protocol) = listener.protocol.filter(|_| listener.port != 0) {
            by_port.entry((listener.port, protocol == Protocol::Udp)).or_default().push(index);
        }
    }
    for indexes in by_port.into_values() {
        mark_port(listeners, &indexes);
    }
}

/// The same for those of one port.
fn mark_port(listeners: &mut [Listener], indexes: &[usize]) {
    let mut rest = indexes;
    // What is served of the objects before, by what is told apart of it.
    let mut taken = Taken::default();
    while let Some(first) = rest.first().and_then(|index| listeners.get(*index)) {
        let owner = first.name.owner.clone();
        let own = rest.iter().take_while(|index| listeners.get(**index).is_some_and(|l| l.name.owner == owner)).count();
        let (of_owner, others) = rest.split_at(own);
        let (free, refused): (Vec<_>, Vec<_>) = of_owner
            .iter()
            .map(|index| (*index, conflict(listeners, &taken, *index, 0)))
            .partition(|(_, found)| found.is_none());
        let mut own = Taken::default();
        free.iter().filter_map(|(index, _)| listeners.get(*index)).for_each(|listener| own.add(listener));
        let free: Vec<_> = free.into_iter().map(|(index, _)| (index, conflict(listeners, &own, index, 1))).collect();
        for (index, conflict) in free.into_iter().chain(refused) {
            let Some(listener) = listeners.get_mut(index) else { continue };
            match conflict {
                Some(reason) => refuse(listener, reason),
                None => taken.add(listener),
            }
        }
        rest = others;
    }
    mark_overlaps(listeners, indexes);
}

fn conflict(listeners: &[Listener], others: &Taken, index: usize, own: usize) -> Option<&'static str> {
    others.conflict(listeners.get(index)?, own)
}

fn refuse(listener: &mut Listener, reason: &'static str) {
    let message = format!("port {} has another listener that it cannot be told from", listener.port);
    let verdict = Verdict::no(reason, message);
    listener.accepted = verdict.clone();
    listener.conflict = Some(verdict);
}

/// How listeners of a port are told apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    /// By the host of the request.
    Clear,
    /// By the name of the server.
    Tls,
    /// Not at all.
    Whole,
}

fn family(protocol: Protocol) -> Family {
    match protocol {
        Protocol::Http => Family::Clear,
        Protocol::Https | Protocol::Passthrough | Protocol::Terminate => Family::Tls,
        Protocol::Tcp | Protocol::Udp => Family::Whole,
    }
}

/// Whether two listeners of one name differ in protocol: passing TLS through and ending it are the same one.
fn is_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http | Protocol::Https)
}

/// How many listeners of a port there are of each family, and of each host in it.
#[derive(Default)]
struct Taken {
    families: BTreeMap<Family, usize>,
    hosts: BTreeMap<(Family, HostMatch, bool), usize>,
}

impl Taken {
    fn add(&mut self, listener: &Listener) {
        let Some(protocol) = listener.protocol else { return };
        let family = family(protocol);
        *self.families.entry(family).or_default() += 1;
        *self.hosts.entry((family, listener.host.clone(), is_http(protocol))).or_default() += 1;
    }

    /// Why the listener cannot be told from one of these, among which it counts `own` times itself.
    fn conflict(&self, listener: &Listener, own: usize) -> Option<&'static str> {
        let protocol = listener.protocol?;
        let family = family(protocol);
        let of_host = |http: bool| self.hosts.get(&(family, listener.host.clone(), http)).copied().unwrap_or_default();
        let foreign = self.families.keys().any(|other| *other != family);
        let whole = family == Family::Whole && self.families.get(&family).is_some_and(|count| *count > own);
        if foreign || whole || of_host(!is_http(protocol)) > 0 {
            Some("ProtocolConflict")
        } else {
            (of_host(is_http(protocol)) > own).then_some("HostnameConflict")
        }
    }
}

/// Marks the listeners that end TLS for names of each other: a client may reuse a connection for a name that it was not made for.
fn mark_overlaps(listeners: &mut [Listener], indexes: &[usize]) {
    let ends_tls = |listener: &&Listener| {
        listener.conflict.is_none() && matches!(listener.protocol, Some(Protocol::Https | Protocol::Terminate))
    };
    let of_host: BTreeMap<HostMatch, usize> = indexes
        .iter()
        .filter_map(|index| listeners.get(*index).filter(ends_tls).map(|listener| (listener.host.clone(), *index)))
        .collect();
    let mut overlapping = BTreeSet::new();
    for (host, index) in &of_host {
        let wider = wider(host).filter_map(|wider| of_host.get(&wider)).copied();
        overlapping.extend(wider.flat_map(|other| [other, *index]));
    }
    for index in overlapping {
        if let Some(listener) = listeners.get_mut(index) {
            listener.overlaps = true;
        }
    }
}

/// What covers all that a host does, besides itself.
fn wider(host: &HostMatch) -> impl Iterator<Item = HostMatch> + '_ {
    let name = match host {
        HostMatch::Any => None,
        HostMatch::Exact(name) | HostMatch::Below(name) => Some(name),
    };
    let domains = name.into_iter().flat_map(|name| name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..)));
    domains.map(|domain| HostMatch::Below(domain.into())).chain(name.map(|_| HostMatch::Any))
}
