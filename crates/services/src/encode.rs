// SPDX-License-Identifier: Apache-2.0
//! Rows of `model` in the form in which the kernel's maps hold them, and back.

use abi::lb;
use model::{
    Algorithm, Backend, BackendId, BackendState, Forwarding, Frontend, FrontendKey, L4Addr, Protocol, Scope,
    ServiceKind,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Key of a frontend.
pub(crate) fn service_key(key: &FrontendKey) -> lb::ServiceKey {
    lb::ServiceKey {
        addr: key.addr.ip.into(),
        port: key.addr.port.to_be(),
        proto: key.addr.protocol.number(),
        scope: match key.scope {
            Scope::External => lb::SCOPE_EXTERNAL,
            Scope::Internal => lb::SCOPE_INTERNAL,
            Scope::Unredirected => lb::SCOPE_UNREDIRECTED,
        },
        pad: 0,
    }
}

/// A frontend with as many slots as there are backends that new connections go to.
pub(crate) fn service(row: &Frontend) -> lb::Service {
    let affinity = row.affinity.map_or(0, |timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX));
    lb::Service { id: row.id, count: len(row.takers().count()), flags: flags(row), affinity }
}

fn flags(row: &Frontend) -> u32 {
    let kind = match row.kind {
        ServiceKind::ClusterIp => lb::flags::CLUSTER_IP,
        ServiceKind::LocalRedirect => lb::flags::LOCAL_REDIRECT,
        ServiceKind::NodePort => lb::flags::NODE_PORT,
        ServiceKind::ExternalIps => lb::flags::EXTERNAL_IP,
        ServiceKind::LoadBalancer => lb::flags::LOAD_BALANCER,
        ServiceKind::HostPort => lb::flags::HOST_PORT,
    };
    let when = |condition: bool, flag: u32| if condition { flag } else { 0 };
    let ranges = row.source_ranges.as_deref();
    kind | lb::flags::MEMBERS
        | when(row.exposed, lb::flags::EXPOSED)
        | when(row.two_scopes, lb::flags::TWO_SCOPES)
        | when(row.pods_only, lb::flags::PODS_ONLY)
        | when(row.spares_backends, lb::flags::SPARES_BACKENDS)
        | when(row.local_only, lb::flags::LOCAL_ONLY)
        | when(ranges.is_some(), lb::flags::SOURCE_RANGES)
        | when(ranges.is_some_and(|ranges| ranges.deny), lb::flags::DENY_RANGES)
        | when(row.algorithm == Algorithm::Maglev, lb::flags::MAGLEV)
        | when(row.forwarding == Forwarding::Dsr, lb::flags::DSR)
}

/// The backends that new connections go to, in the order of their slots.
pub(crate) fn slots(row: &Frontend) -> impl Iterator<Item = BackendId> {
    row.takers().map(|backend| backend.id)
}

/// What a member is to the frontend that has these for new connections.
pub(crate) fn member(backend: BackendId, takers: &BTreeSet<BackendId>) -> u32 {
    if takers.contains(&backend) { backend.0 } else { backend.0 | lb::DRAINS }
}

/// The backend of a slot or member.
pub(crate) const fn backend_of(key: lb::SlotKey, value: u32) -> u32 {
    if key.is_member() { value & !lb::DRAINS } else { value }
}

pub(crate) fn backend(row: &Backend) -> lb::Backend {
    lb::Backend {
        addr: row.addr.ip.into(),
        port: row.addr.port.to_be(),
        proto: row.addr.protocol.number(),
        state: match row.state {
            BackendState::Active => lb::state::ACTIVE,
            BackendState::Terminating | BackendState::TerminatingNotServing => lb::state::TERMINATING,
            BackendState::Quarantined => lb::state::QUARANTINED,
        },
        pad: 0,
    }
}

/// Under which key its id is found.
pub(crate) const fn backend_key(value: &lb::Backend) -> lb::BackendKey {
    lb::BackendKey::new(value.addr, value.port, value.proto)
}

/// The backends of a frontend that are found by their addresses alone: of those at one address the one with the lowest port, on every node.
pub(crate) fn by_address(row: &Frontend) -> BTreeMap<IpAddr, &Backend> {
    let mut found: BTreeMap<IpAddr, &Backend> = BTreeMap::new();
    for backend in row.backends.iter() {
        let first = found.entry(backend.addr.ip).or_insert(backend);
        if backend.addr.port < first.addr.port {
            *first = backend;
        }
    }
    found
}

pub(crate) const fn slot_key(service: u32, slot: u32) -> lb::SlotKey {
    lb::SlotKey { service, slot }
}

/// The key of a frontend; none if it is not one that we write.
pub(crate) fn frontend_key(key: &lb::ServiceKey) -> Option<FrontendKey> {
    let addr = L4Addr { ip: key.addr.into(), port: u16::from_be(key.port), protocol: protocol(key.proto)? };
    let scope = match key.scope {
        lb::SCOPE_EXTERNAL => Scope::External,
        lb::SCOPE_INTERNAL => Scope::Internal,
        lb::SCOPE_UNREDIRECTED => Scope::Unredirected,
        _ => return None,
    };
    Some(FrontendKey { addr, scope })
}

/// The address of a backend.
pub(crate) fn backend_addr(value: &lb::Backend) -> Option<L4Addr> {
    Some(L4Addr { ip: value.addr.into(), port: u16::from_be(value.port), protocol: protocol(value.proto)? })
}

/// A length as the maps count; no map holds more than they can.
pub(crate) fn len(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The protocol of that number, if Services can have it.
pub(crate) fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_from_the_maps_as_it_was_written() {
        for (ip, port, protocol) in
            [("10.96.0.1", 443, Protocol::Tcp), ("fd00::a", 53, Protocol::Udp), ("10.0.0.9", 1, Protocol::Sctp)]
        {
            let addr = L4Addr { ip: ip.parse().unwrap(), port, protocol };
            for scope in [Scope::External, Scope::Internal, Scope::Unredirected] {
                let key = FrontendKey { addr, scope };
                assert_eq!(frontend_key(&service_key(&key)), Some(key));
            }
            let row = Backend::new(BackendId(1), addr, BackendState::Active);
            assert_eq!(backend_addr(&backend(&row)), Some(addr));
        }
    }
}
