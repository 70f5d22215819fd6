// SPDX-License-Identifier: Apache-2.0
//! Rows of `model` in the form in which the kernel's maps hold them, and back.

use abi::lb;
use model::{Backend, BackendId, Frontend, L4Addr, Protocol};

/// Key of a frontend.
pub(crate) fn service_key(addr: &L4Addr) -> lb::ServiceKey {
    lb::ServiceKey {
        addr: addr.ip.into(),
        port: addr.port.to_be(),
        proto: addr.protocol.number(),
        scope: lb::SCOPE_EXTERNAL,
        pad: 0,
    }
}

/// A frontend with as many slots as it has active backends.
pub(crate) fn service(row: &Frontend) -> lb::Service {
    lb::Service {
        id: row.id,
        count: len(active(row).count()),
        flags: lb::flags::CLUSTER_IP | lb::flags::MEMBERS,
        affinity: 0,
    }
}

/// The backends that new connections go to, in the order of their slots.
pub(crate) fn active(row: &Frontend) -> impl Iterator<Item = BackendId> {
    row.backends.iter().filter(|b| b.active).map(|b| b.id)
}

/// A backend.
pub(crate) fn backend(row: &Backend) -> lb::Backend {
    lb::Backend {
        addr: row.addr.ip.into(),
        port: row.addr.port.to_be(),
        proto: row.addr.protocol.number(),
        state: if row.active { lb::state::ACTIVE } else { lb::state::TERMINATING },
        pad: 0,
    }
}

/// Key of a slot.
pub(crate) const fn slot_key(service: u32, slot: u32) -> lb::SlotKey {
    lb::SlotKey { service, slot }
}

/// The address of a frontend; none if it is not one that we write.
pub(crate) fn frontend_addr(key: &lb::ServiceKey) -> Option<L4Addr> {
    (key.scope == lb::SCOPE_EXTERNAL).then_some(())?;
    Some(L4Addr { ip: key.addr.into(), port: u16::from_be(key.port), protocol: protocol(key.proto)? })
}

/// The address of a backend.
pub(crate) fn backend_addr(value: &lb::Backend) -> Option<L4Addr> {
    Some(L4Addr { ip: value.addr.into(), port: u16::from_be(value.port), protocol: protocol(value.proto)? })
}

/// A length as the maps count; no map holds more than they can.
pub(crate) fn len(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn protocol(number: u8) -> Option<Protocol> {
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
            assert_eq!(frontend_addr(&service_key(&addr)), Some(addr));
            let row = Backend { id: BackendId(1), addr, node: None, active: true };
            assert_eq!(backend_addr(&backend(&row)), Some(addr));
        }
    }
}
