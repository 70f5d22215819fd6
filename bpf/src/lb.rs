// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Services: which one a client means, and which backend a new connection goes to.

use crate::addresses;
use crate::config;
use crate::encap;
use crate::epochs;
use crate::ipcache;
use crate::maps;
use crate::pkt::Pkt;
use abi::Addr;
use abi::flow::{TICK_NS, proto};
use abi::lb::{
    Affinity, AffinityKey, Backend, BackendKey, MaglevKey, SCOPE_EXTERNAL, SCOPE_INTERNAL, SCOPE_UNREDIRECTED, Service,
    ServiceKey, SlotKey, SourceRangeKey, flags, maglev_place, spread, state,
};
use abi::tuple::Tuple;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::maps::lpm_trie::Key;

const NANOSECONDS: u64 = 1_000_000_000;
/// Bits of a service's id and of an address.
const CLIENT_BITS: u32 = 32 + 128;

/// Who opens a connection.
pub struct Client {
    /// Its address, or in `lo` the cookie of its network namespace.
    pub addr: Addr,
    /// Whether `addr` is a cookie.
    pub is_cookie: bool,
    /// A number of the connection: the same one leads to the same backend, with Maglev on every node.
    pub connection: u32,
}

/// The service that a client of this node finds at that address and port. A port of any node is one of this node's, and the host's own
/// programs (`of_host`) find it at the loopback address, too.
#[inline(always)]
pub fn inside(addr: Addr, port: u16, proto: u8, of_host: bool) -> Option<&'static Service> {
    let mut key = ServiceKey { addr, port, proto, scope: SCOPE_EXTERNAL, pad: 0 };
    let mut service = get(&key);
    // Each network namespace has a loopback of its own.
    if service.is_some() && !of_host && addresses::is_loopback(&addr) {
        return None;
    }
    if service.is_none() && is_node_port(port) {
        // A copy: the compiler takes what a helper has been shown for changed, and would no longer know the address's family.
        let of_this = addresses::is_host(&{ addr }) || of_host && addresses::is_loopback(&addr);
        if of_this || ipcache::lookup(&addr).is_some_and(ipcache::is_node) {
            key.addr = any_node(addr);
            service = get(&key);
        }
        // What keeps to a node's own backends is for that node to say.
        if service?.flags & flags::TWO_SCOPES != 0 && !of_this {
            return None;
        }
    }
    if service?.flags & flags::TWO_SCOPES != 0 {
        key.scope = SCOPE_INTERNAL;
        service = get(&key);
    }
    service
}

/// The service that a pod finds there by its own packets: a pod that a redirect leads to may be spared it.
#[inline(always)]
pub fn of_pod(pod: &Addr, addr: Addr, port: u16, proto: u8) -> Option<&'static Service> {
    let service = inside(addr, port, proto, false)?;
    if service.flags & flags::SPARES_BACKENDS != 0 && !admits(service, pod) {
        return unredirected(addr, port, proto);
    }
    Some(service)
}

/// What is there for those whom a redirect spares.
#[inline(always)]
pub fn unredirected(addr: Addr, port: u16, proto: u8) -> Option<&'static Service> {
    get(&ServiceKey { addr, port, proto, scope: SCOPE_UNREDIRECTED, pad: 0 })
}

/// The service that is at that address and port for who is outside, be it for them or not.
#[inline(always)]
pub fn outside(addr: Addr, port: u16, proto: u8) -> Option<&'static Service> {
    get(&ServiceKey { addr, port, proto, scope: SCOPE_EXTERNAL, pad: 0 })
}

/// Whether a port of the node is for clients of services, now or soon: which of the range are taken changes at any time.
#[inline(never)]
pub fn is_for_services(addr: &Addr, port: u16, proto: u8) -> bool {
    config::on(&config::EXPOSE_SERVICES)
        && matches!(proto, proto::TCP | proto::UDP | proto::SCTP)
        && (is_node_port(port) || outside(*addr, port, proto).is_some())
}

/// The service that another node says it has served there; a port of that node is one of any node.
#[inline(always)]
pub fn of_another_node(addr: Addr, port: u16, proto: u8) -> Option<&'static Service> {
    if let Some(service) = outside(addr, port, proto) {
        return Some(service);
    }
    if !is_node_port(port) || !ipcache::lookup(&addr).is_some_and(ipcache::is_node) {
        return None;
    }
    outside(any_node(addr), port, proto)
}

/// The address that stands for all nodes.
#[inline(always)]
fn any_node(addr: Addr) -> Addr {
    if addr.is_v4() { Addr::from_v4_be(0) } else { Addr::NONE }
}

#[inline(always)]
fn get(key: &ServiceKey) -> Option<&'static Service> {
    // SAFETY: read at once.
    unsafe { maps::SERVICES.get(key) }
}

/// Whether the address is nobody's but services': at another port than theirs no one in the world answers.
#[inline(always)]
pub fn is_unserved(addr: &Addr) -> bool {
    get(&ServiceKey::mark(*addr)).is_some() && !addresses::is_host(addr)
}

/// Whether an address and port from outside are a service's, or a port of a service's address that is none's. The tunnel's packets are
/// the nodes', whatever a service asks for.
#[inline(always)]
pub fn is_exposed(pkt: &Pkt) -> bool {
    config::on(&config::EXPOSE_SERVICES) && !encap::is_tunnel(pkt.tuple.proto, pkt.tuple.dport) && is_named(&pkt.tuple)
}

#[inline(never)]
fn is_named(tuple: &Tuple) -> bool {
    outside(tuple.dst, tuple.dport, tuple.proto).is_some() || is_unserved(&tuple.dst)
}

#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

#[inline(always)]
fn is_node_port(port: u16) -> bool {
    (config::NODEPORT_MIN.load()..=config::NODEPORT_MAX.load()).contains(&u16::from_be(port))
}

/// Whether the service's source ranges let a client in.
#[inline(always)]
pub fn admits(service: &Service, client: &Addr) -> bool {
    if service.flags & flags::SOURCE_RANGES == 0 {
        return true;
    }
    let denied = service.flags & flags::DENY_RANGES != 0;
    let key = SourceRangeKey::new(service.id, denied, client.octets());
    maps::SOURCE_RANGES.get(Key::new(CLIENT_BITS, key)).is_some() != denied
}

/// Whether the service has this backend, be it for new connections or for those that it has.
#[inline(always)]
pub fn has_member(service: &Service, backend: u32) -> bool {
    // SAFETY: only asked whether it is there.
    service.flags & flags::MEMBERS == 0 || unsafe { maps::SLOTS.get(SlotKey::member(service.id, backend)) }.is_some()
}

/// Whether the service has this backend for new connections. Other services may have it for those, or no more: of a service that has members
/// it is they who say.
#[inline(always)]
fn takes(service: &Service, backend: &Backend, id: u32) -> bool {
    if service.flags & flags::MEMBERS == 0 {
        return backend.state == state::ACTIVE;
    }
    // SAFETY: copied at once.
    unsafe { maps::SLOTS.get(SlotKey::member(service.id, id)) }.is_some_and(|value| *value == id)
}

/// The id of the backend at that address and port, if the service has it.
#[inline(always)]
pub fn member_at(service: &Service, addr: Addr, port: u16, proto: u8) -> Option<u32> {
    // SAFETY: copied at once.
    let id = *unsafe { maps::BACKEND_IDS.get(BackendKey::new(addr, port, proto)) }?;
    if has_member(service, id) { Some(id) } else { None }
}

/// The id of the one backend of the service with that number that is found by its address alone.
#[inline(always)]
pub fn member_id(service: u32, addr: Addr) -> Option<u32> {
    // SAFETY: copied at once.
    unsafe { maps::BACKEND_IDS.get(BackendKey::of_service(service, addr)) }.copied()
}

/// That backend, with its id.
#[inline(always)]
pub fn member(service: &Service, addr: Addr) -> Option<(&'static Backend, u32)> {
    let id = member_id(service.id, addr)?;
    // SAFETY: read at once.
    let backend = unsafe { maps::BACKENDS.get(id) }?;
    if backend.addr == addr && has_member(service, id) { Some((backend, id)) } else { None }
}

/// The backend of a new connection, with its id.
#[inline(always)]
pub fn choose(service: &Service, client: &Client) -> Option<(&'static Backend, u32)> {
    if service.count == 0 {
        return None;
    }
    if service.affinity == 0 {
        // Not by chance: what is forgotten while it is being opened, in a flood or where its answers are not seen, finds the same backend again,
        // and so does what is passed on to tc.
        return pick(service, client.connection);
    }
    let key = AffinityKey { client: client.addr, service: service.id, is_cookie: client.is_cookie as u32 };
    let number = match last(service, &key) {
        Last::Backend(backend, id) => {
            note(&key, id);
            return Some((backend, id));
        }
        // Wherever the client comes in, it finds the same one.
        Last::Unknown => spread(client.addr),
        Last::TooLongAgo => random(),
    };
    let (backend, id) = pick(service, number)?;
    note(&key, id);
    Some((backend, id))
}

/// Notes where the client goes now. A full table evicts the oldest.
#[inline(always)]
fn note(key: &AffinityKey, backend: u32) {
    let _ = maps::AFFINITIES.insert(key, Affinity { backend, last_used: epochs::now() }, 0);
}

/// Where a client of a service with session affinity went last.
enum Last {
    /// To that backend, which has that id and still is to be had.
    Backend(&'static Backend, u32),
    /// Nobody knows of one that is still to be had.
    Unknown,
    /// It has been away for longer than its affinity lasts, so it is not to find the same one for ever.
    TooLongAgo,
}

#[inline(always)]
fn last(service: &Service, key: &AffinityKey) -> Last {
    // SAFETY: read at once.
    let Some(Affinity { backend: id, last_used }) = unsafe { maps::AFFINITIES.get(key) }.copied() else {
        return Last::Unknown;
    };
    if epochs::now().wrapping_sub(last_used) as u64 * TICK_NS > service.affinity as u64 * NANOSECONDS {
        return Last::TooLongAgo;
    }
    // SAFETY: read at once.
    match unsafe { maps::BACKENDS.get(id) } {
        Some(backend) if takes(service, backend, id) => Last::Backend(backend, id),
        _ => Last::Unknown,
    }
}

/// The service's backend that a number leads to.
#[inline(always)]
fn pick(service: &Service, number: u32) -> Option<(&'static Backend, u32)> {
    let by_table = if service.flags & flags::MAGLEV != 0 { in_table(service.id, number) } else { None };
    // SAFETY: read at once; user space writes backends before slots and removes them after.
    unsafe {
        let id = match by_table {
            Some(id) => id,
            None => *maps::SLOTS.get(SlotKey { service: service.id, slot: number.checked_rem(service.count)? })?,
        };
        maps::BACKENDS.get(id).map(|backend| (backend, id))
    }
}

/// The backend at the place of the service's lookup table that a number leads to.
#[inline(always)]
fn in_table(service: u32, number: u32) -> Option<u32> {
    let (part, row, column) = maglev_place(number, config::MAGLEV_SIZE.load())?;
    // SAFETY: read at once.
    let id = *unsafe { maps::MAGLEV.get(MaglevKey { service, part }) }?.backends.get(row)?.get(column)?;
    if id == 0 { None } else { Some(id) }
}
