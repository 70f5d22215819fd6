// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Services: frontends, their slots, backends, and the memory of translated sockets.
//!
//! Every address of a frontend has one entry more among the frontends, its mark ([`ServiceKey::mark`], [`Service::MARK`]): what is sent
//! to another port of it is meant for no one, and must not leave for the world.

use crate::Addr;
use crate::tuple::Tuple;

layout! {
    /// A frontend.
    pub struct ServiceKey (24) {
        /// Address of the frontend.
        pub addr: Addr,
        /// Port in network order.
        pub port: u16,
        /// IP protocol number.
        pub proto: u8,
        /// [`SCOPE_EXTERNAL`], [`SCOPE_INTERNAL`] or [`SCOPE_UNREDIRECTED`].
        pub scope: u8,
        /// Zero.
        pub pad: u32,
    }
}

impl ServiceKey {
    /// Key of the mark of an address, which is no frontend.
    #[inline(always)]
    #[must_use]
    pub const fn mark(addr: Addr) -> Self {
        Self { addr, port: 0, proto: 0, scope: SCOPE_EXTERNAL, pad: 0 }
    }

    /// Whether it is the key of a mark.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.port == 0 && self.proto == 0
    }
}

/// The backends for any client.
pub const SCOPE_EXTERNAL: u8 = 0;
/// The backends for clients inside of the cluster, where they differ.
pub const SCOPE_INTERNAL: u8 = 1;
/// The backends for pods that a redirect leads to, where it spares them ([`flags::SPARES_BACKENDS`]).
pub const SCOPE_UNREDIRECTED: u8 = 2;

layout! {
    /// What a frontend stands for.
    pub struct Service (16) {
        /// Service id, first part of [`SlotKey`].
        pub id: u32,
        /// Number of slots, numbered from 0; 0 means no backend.
        pub count: u32,
        /// Bits of [`flags`].
        pub flags: u32,
        /// Seconds of session affinity, or 0.
        pub affinity: u32,
    }
}

impl Service {
    /// Value of the mark of an address.
    pub const MARK: Self = Self { id: 0, count: 0, flags: flags::ADDRESS, affinity: 0 };
}

/// Bits of [`Service::flags`].
pub mod flags {
    /// The frontend is a ClusterIP.
    pub const CLUSTER_IP: u32 = 1;
    /// No frontend, but the mark of an address that has frontends: at any other port of it there is no service.
    pub const ADDRESS: u32 = 2;
    /// Every backend of the frontend has a member's key among the slots ([`super::SlotKey::member`]), also one without new connections.
    pub const MEMBERS: u32 = 4;
    /// The frontend is a port of a node, at one of its addresses; at the unspecified address it stands for all nodes.
    pub const NODE_PORT: u32 = 8;
    /// The frontend is one of the Service's external addresses.
    pub const EXTERNAL_IP: u32 = 16;
    /// The frontend is an address of a load balancer.
    pub const LOAD_BALANCER: u32 = 32;
    /// The frontend is a pod's port of this node.
    pub const HOST_PORT: u32 = 64;
    /// Whoever is outside of the cluster may use the frontend.
    pub const EXPOSED: u32 = 128;
    /// Clients inside of the cluster have a frontend of their own, under [`super::SCOPE_INTERNAL`].
    pub const TWO_SCOPES: u32 = 256;
    /// Its backends are on this node, and see the address of their client: no other is put in its place.
    pub const LOCAL_ONLY: u32 = 512;
    /// Clients are looked up in [`crate::maps::SourceRanges`].
    pub const SOURCE_RANGES: u32 = 1024;
    /// Clients that are found there are refused, instead of those that are not.
    pub const DENY_RANGES: u32 = 2048;
    /// The backend follows from [`super::Maglev`] instead of chance.
    pub const MAGLEV: u32 = 4096;
    /// Replies go from the backend's node to the client, and not by the node that it asked (direct server return).
    pub const DSR: u32 = 8192;
    /// The frontend is redirected to pods of this node.
    pub const LOCAL_REDIRECT: u32 = 16384;
    /// Pods of this node that are found among the denied source ranges take what is under [`super::SCOPE_UNREDIRECTED`], or go to the address
    /// itself. Only packets tell which pod sends: sockets of pods are left alone.
    pub const SPARES_BACKENDS: u32 = 32768;
    /// The node's own programs find the address itself.
    pub const PODS_ONLY: u32 = 65536;
}

/// Values of [`Backend::state`].
pub mod state {
    /// Gets new connections.
    pub const ACTIVE: u8 = 0;
    /// Keeps the connections that it has; gets new ones when there is no other.
    pub const TERMINATING: u8 = 1;
    /// Is not to be used.
    pub const QUARANTINED: u8 = 2;
}

layout! {
    /// One slot of a service.
    pub struct SlotKey (8) {
        /// `Service::id`.
        pub service: u32,
        /// From 0 to `Service::count` - 1; of a member [`MEMBER`] and the backend's id.
        pub slot: u32,
    }
}

/// Set in [`SlotKey::slot`] of a member.
pub const MEMBER: u32 = 1 << 31;

/// Set in the value of a member that gets no new connections of that service, whatever it is to others; otherwise the value is the backend's id.
pub const DRAINS: u32 = 1 << 31;

impl SlotKey {
    /// The key that says that a service has a backend: a backend outlives its service where another has it too.
    #[inline(always)]
    #[must_use]
    pub const fn member(service: u32, backend: u32) -> Self {
        Self { service, slot: MEMBER | backend }
    }

    /// Whether it is the key of a member.
    #[must_use]
    pub const fn is_member(&self) -> bool {
        self.slot & MEMBER != 0
    }
}

layout! {
    /// Where a connection to a service ends.
    pub struct Backend (24) {
        /// Address.
        pub addr: Addr,
        /// Port in network order.
        pub port: u16,
        /// IP protocol number.
        pub proto: u8,
        /// One of [`state`].
        pub state: u8,
        /// Zero.
        pub pad: u32,
    }
}

layout! {
    /// Where a backend is, by which its id is found.
    pub struct BackendKey (24) {
        /// Address.
        pub addr: Addr,
        /// Port in network order, or 0 with a service.
        pub port: u16,
        /// IP protocol number, or 0 with a service.
        pub proto: u8,
        /// Zero.
        pub pad: u8,
        /// [`Service::id`] of whose backends one is found by its address alone, or 0.
        pub service: u32,
    }
}

impl BackendKey {
    /// Key of the backend at that address and port.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, port: u16, proto: u8) -> Self {
        Self { addr, port, proto, pad: 0, service: 0 }
    }

    /// Key of the one backend of a service that is found by its address alone.
    #[inline(always)]
    #[must_use]
    pub const fn of_service(service: u32, addr: Addr) -> Self {
        Self { addr, port: 0, proto: 0, pad: 0, service }
    }
}

layout! {
    /// Data of a key of the trie of source ranges: the service, then the bits of the client's address.
    pub struct SourceRangeKey (20) {
        /// `Service::id`, and perhaps [`DENIED`].
        pub service: u32,
        /// Address of the client, in network order; of an IPv4 one as an IPv6 address (RFC 4291, 2.5.5.2).
        pub client: [u8; 16],
    }
}

/// Set in [`SourceRangeKey::service`] of clients that are refused. Those that are admitted have other keys, so that a service goes over
/// from the ones to the others with the one write of its [`flags::DENY_RANGES`], and is never open to both.
pub const DENIED: u32 = 1 << 31;

impl SourceRangeKey {
    /// The key of a client, among those who are refused or among those who are admitted.
    #[inline(always)]
    #[must_use]
    pub const fn new(service: u32, denied: bool, client: [u8; 16]) -> Self {
        Self { service: if denied { service | DENIED } else { service }, client }
    }

    /// `Service::id`.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.service & !DENIED
    }
}

layout! {
    /// A client of a service with session affinity.
    pub struct AffinityKey (24) {
        /// Address of the client, or in `lo` the cookie of its network namespace, for a socket of this node.
        pub client: Addr,
        /// `Service::id`.
        pub service: u32,
        /// 1 when `client` is a cookie.
        pub is_cookie: u32,
    }
}

layout! {
    /// Where it went last.
    pub struct Affinity (8) {
        /// Id of the backend.
        pub backend: u32,
        /// [`crate::flow::TICK_NS`] ticks since boot, of its latest connection.
        pub last_used: u32,
    }
}

layout! {
    /// A part of a service's lookup table.
    pub struct MaglevKey (8) {
        /// `Service::id`.
        pub service: u32,
        /// Position in the table, divided by [`MAGLEV_PART`].
        pub part: u32,
    }
}

layout! {
    /// Backends, by the position in the table (Maglev, NSDI 2016, 3.4).
    pub struct MaglevPart (1024) {
        /// Ids of backends, in sixteen rows; 0 behind the end of the table.
        pub backends: [[u32; 16]; MAGLEV_PART / 16],
    }
}

/// Under which address a pod that is its own backend is spoken to: of its link (RFC 3927), where nobody has it.
pub const LOOPBACK_IPV4: Addr = Addr::from_v4_be(u32::from_ne_bytes([169, 254, 42, 1]));
/// The same for IPv6 (RFC 4291, 2.5.6).
pub const LOOPBACK_IPV6: Addr = Addr::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 169, 254, 42, 1]);

/// Positions in one part of a lookup table.
pub const MAGLEV_PART: usize = 256;

/// Where a number leads to in a lookup table of `size` positions: part, row and column. `None` for a table without positions.
#[inline(always)]
#[must_use]
pub const fn maglev_place(number: u32, size: u32) -> Option<(u32, usize, usize)> {
    match number.checked_rem(size) {
        Some(at) => Some((at / MAGLEV_PART as u32, (at as usize / 16) % (MAGLEV_PART / 16), at as usize % 16)),
        None => None,
    }
}

/// A number of an address that every node finds alike.
#[inline(always)]
#[must_use]
pub const fn spread(addr: Addr) -> u32 {
    mix(addr.hi.rotate_left(31) ^ addr.lo)
}

/// A number of a connection that every node finds alike.
#[inline(always)]
#[must_use]
pub const fn spread_tuple(opening: &Tuple) -> u32 {
    let ends = opening.src.hi
        ^ opening.src.lo.rotate_left(17)
        ^ opening.dst.hi.rotate_left(29)
        ^ opening.dst.lo.rotate_left(43);
    let ports = (opening.sport as u64) << 24 | (opening.dport as u64) << 8 | opening.proto as u64;
    mix(ends ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Spreads neighbours far apart (the finalizer of SplitMix64).
#[inline(always)]
pub(crate) const fn mix(number: u64) -> u32 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (number >> 32) as u32
}

layout! {
    /// What a socket remembers of its connection to a service.
    pub struct Connected (40) {
        /// Address of the backend that it is connected to.
        pub backend: Addr,
        /// Address of the frontend that its owner asked for.
        pub frontend: Addr,
        /// Port of the backend in network order.
        pub backend_port: u16,
        /// Port of the frontend in network order.
        pub frontend_port: u16,
        /// `Service::id`.
        pub service: u32,
    }
}

layout! {
    /// A socket that remembers, as a program tells of it (`programs/sock_memory.rs`).
    pub struct SocketMemory (48) {
        /// Its cookie.
        pub cookie: u64,
        /// What it remembers.
        pub connected: Connected,
    }
}

layout! {
    /// An unconnected socket and a backend that it has sent to.
    pub struct ReverseKey (32) {
        /// Socket cookie.
        pub cookie: u64,
        /// Backend address.
        pub addr: Addr,
        /// Backend port in network order.
        pub port: u16,
        /// Zero.
        pub pad: [u8; 6],
    }
}

layout! {
    /// The frontend that the socket's owner asked for.
    pub struct ReverseEntry (24) {
        /// Frontend address.
        pub addr: Addr,
        /// Frontend port in network order.
        pub port: u16,
        /// Zero.
        pub pad: u16,
        /// `Service::id`.
        pub service: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_mark_is_no_frontend() {
        let addr = Addr::from_v4_be(u32::from_ne_bytes([10, 96, 0, 1]));
        assert!(ServiceKey::mark(addr).is_mark() && ServiceKey::mark(addr).addr == addr);
        for (port, proto) in [(80_u16.to_be(), 6), (0, 17), (1, 0)] {
            assert!(!ServiceKey { port, proto, ..ServiceKey::mark(addr) }.is_mark());
        }
        assert_eq!((Service::MARK.count, Service::MARK.flags & flags::CLUSTER_IP), (0, 0));
    }

    #[test]
    fn a_member_is_no_slot() {
        for id in [0, 1, MEMBER - 1] {
            let (member, slot) = (SlotKey::member(7, id), SlotKey { service: 7, slot: id });
            assert!(member.is_member() && !slot.is_member());
            assert_eq!((member.service, member.slot - MEMBER), (7, id));
        }
    }

    #[test]
    fn the_admitted_and_the_refused_of_a_service_have_keys_of_their_own() {
        let [admitted, refused] = [false, true].map(|denied| SourceRangeKey::new(7, denied, [1; 16]));
        assert_ne!(admitted, refused);
        assert_eq!((admitted.id(), refused.id(), admitted.client, refused.client), (7, 7, [1; 16], [1; 16]));
    }

    #[test]
    fn every_position_of_a_lookup_table_has_a_place_of_its_own() {
        let size = 1021;
        let places: BTreeSet<_> = (0..size).filter_map(|number| maglev_place(number, size)).collect();
        assert_eq!(places.len(), size as usize);
        assert!(places.iter().all(|(part, row, column)| *part < 4 && *row < MAGLEV_PART / 16 && *column < 16));
        assert_eq!(maglev_place(size + 300, size), Some((1, 2, 12)));
        assert_eq!(maglev_place(7, 0), None);
    }

    /// A connection keeps its backend over an upgrade, node by node.
    #[test]
    fn the_numbers_by_which_backends_are_chosen_never_change() {
        let end = |seed: u64| Addr {
            hi: 0x0123_4567_89ab_cdef ^ seed,
            lo: 0xfedc_ba98_7654_3210_u64.rotate_left(seed as u32),
        };
        assert_eq!((spread(end(3)), spread(end(9))), (0x54d0_cd2a, 0x7375_ffa9));
        let opening = Tuple { src: end(3), dst: end(9), sport: 0x1234, dport: 0xabcd, proto: 6, ..Tuple::NONE };
        assert_eq!((spread_tuple(&opening), spread_tuple(&opening.reversed())), (0xe7f7_1d91, 0x72eb_bd11));
    }
}
