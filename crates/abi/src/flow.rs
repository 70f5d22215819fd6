// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The flow table: what was decided for the first packet of a flow, replayed for all others.

use crate::Addr;

layout! {
    /// A flow as one hook sees it. The reply direction is an entry of its own.
    pub struct FlowKey (40) {
        /// Source address of the packet as it reaches the hook.
        pub src: Addr,
        /// Destination address of the packet as it reaches the hook.
        pub dst: Addr,
        /// Source port in network order; the identifier for an ICMP echo request.
        pub sport: u16,
        /// Destination port in network order; the identifier for an ICMP echo reply.
        pub dport: u16,
        /// IP protocol number (IANA).
        pub proto: u8,
        /// [`FROM_POD`] or [`ARRIVING`].
        pub hook: u8,
        /// Zero.
        pub pad: u16,
    }
}

/// Seen by `pod_egress`: the packet leaves a pod.
pub const FROM_POD: u8 = 0;
/// Seen by any other hook: the packet arrives from the host's stack, the overlay or a device.
pub const ARRIVING: u8 = 1;

impl FlowKey {
    /// The tuple of the opposite direction, for the given hook.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self, hook: u8) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, proto: self.proto, hook, pad: 0 }
    }
}

layout! {
    /// The decision for a flow, and its connection state in this direction.
    pub struct FlowEntry (144) {
        /// Sum of the epochs of the node ([`crate::epoch::NODE`]) and of `peer_slot` at the decision. Both only grow, so an
        /// equal sum means that neither has moved.
        pub topology_epoch: u32,
        /// Policy epoch of `src_endpoint` at the decision.
        pub src_epoch: u32,
        /// Policy epoch of `dst_endpoint` at the decision.
        pub dst_epoch: u32,
        /// Local endpoint that is the source, or 0.
        pub src_endpoint: u16,
        /// Local endpoint that is the destination, or 0.
        pub dst_endpoint: u16,
        /// Identity of the source.
        pub src_identity: u32,
        /// Identity of the destination.
        pub dst_identity: u32,
        /// Interface on which the packets of the flow must come in; a packet from elsewhere is decided anew.
        pub in_ifindex: u32,
        /// Interface to send to, by `action`.
        pub out_ifindex: u32,
        /// What to do with the packet: [`action`].
        pub action: u8,
        /// Bits of [`flags`].
        pub flags: u8,
        /// TCP flags seen in this direction, all ORed.
        pub tcp_seen: u8,
        /// TCP flags of this direction that an event has reported.
        pub tcp_reported: u8,
        /// Destination hardware address for local delivery.
        pub dst_mac: [u8; 6],
        /// Source hardware address for local delivery.
        pub src_mac: [u8; 6],
        /// Source port to rewrite to (network order), with `flags::NAT_SRC`.
        pub nat_sport: u16,
        /// Destination port to rewrite to (network order), with `flags::NAT_DST`.
        pub nat_dport: u16,
        /// Provenance id of the policy entry that allowed the flow.
        pub provenance: u32,
        /// The peer node, for `action::TUNNEL`.
        pub tunnel: Addr,
        /// Source address to rewrite to, with `flags::NAT_SRC`.
        pub nat_src: Addr,
        /// Destination address to rewrite to, with `flags::NAT_DST`.
        pub nat_dst: Addr,
        /// [`TICK_NS`] ticks since boot, of the last packet.
        pub last_seen: u32,
        /// Ticks since boot, of the decision.
        pub created: u32,
        /// Ticks since boot, of the last event.
        pub last_report: u32,
        /// The service (`lb::Service::id`) that the flow was translated by, or 0.
        pub service: u32,
        /// The backend (key of `maps::Backends`) that was chosen, or 0.
        pub backend: u32,
        /// Slot of the peer's address ([`crate::epoch::of_peer`]).
        pub peer_slot: u32,
        /// Packets in this direction.
        pub packets: u64,
        /// Bytes in this direction, from the network header on.
        pub bytes: u64,
    }
}

/// Values of [`FlowEntry::action`].
pub mod action {
    /// Hand over to the host's stack (or, on the way into a pod, let it pass).
    pub const STACK: u8 = 0;
    /// Deliver into the pod behind `out_ifindex`.
    pub const LOCAL: u8 = 1;
    /// Encapsulate to `tunnel` with the source identity, through `out_ifindex`.
    pub const TUNNEL: u8 = 2;
    /// Send out of `out_ifindex`, with the neighbour resolved by the kernel.
    pub const NEIGH: u8 = 3;
}

/// Bits of [`FlowEntry::flags`].
pub mod flags {
    /// Source address and port are rewritten.
    pub const NAT_SRC: u8 = 1;
    /// Destination address and port are rewritten.
    pub const NAT_DST: u8 = 2;
    /// The entry is the reply direction: it stands as long as its forward direction is allowed.
    pub const REPLY: u8 = 4;
    /// The source rewrite is masquerading (and not the reverse of a service translation).
    pub const MASQUERADE: u8 = 8;
    /// A FIN or RST was seen in either direction.
    pub const CLOSING: u8 = 16;
    /// The reply direction has been seen, so the connection is established.
    pub const ESTABLISHED: u8 = 32;
}

/// TCP header flags, as the header's byte 13 holds them (RFC 9293, 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}

/// IP protocol numbers (IANA).
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Flow times count in ticks of 2^30 ns (1.07 s): a shift, where seconds would take a division per packet.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;
/// The shift from nanoseconds to ticks.
pub const TICK_SHIFT: u32 = 30;

/// The opposite direction's key of an entry stored under `key`, by what the entry does to addresses and where it sends.
#[inline(always)]
#[must_use]
pub const fn opposite(key: &FlowKey, entry: &FlowEntry) -> FlowKey {
    let (mut src, mut sport, mut dst, mut dport) = (key.dst, key.dport, key.src, key.sport);
    if entry.flags & flags::NAT_DST != 0 {
        src = entry.nat_dst;
        sport = entry.nat_dport;
    }
    if entry.flags & flags::NAT_SRC != 0 {
        dst = entry.nat_src;
        dport = entry.nat_sport;
    }
    let hook = if key.hook == ARRIVING || entry.action == action::LOCAL { FROM_POD } else { ARRIVING };
    FlowKey { src, dst, sport, dport, proto: key.proto, hook, pad: 0 }
}

/// Ticks for which a flow of this state may be silent before it is garbage; the field's defaults.
#[must_use]
pub const fn lifetime(proto: u8, flags: u8) -> u32 {
    if proto != proto::TCP {
        60
    } else if flags & flags::CLOSING != 0 {
        10
    } else if flags & flags::ESTABLISHED != 0 {
        8000
    } else {
        60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversing_a_tuple_twice_gives_it_back() {
        let key = FlowKey {
            src: Addr { hi: 1, lo: 2 },
            dst: Addr { hi: 3, lo: 4 },
            sport: 5,
            dport: 6,
            proto: 17,
            hook: FROM_POD,
            pad: 0,
        };
        let reply = key.reversed(ARRIVING);
        assert_eq!((reply.src, reply.dport, reply.hook), (key.dst, key.sport, ARRIVING));
        assert_eq!(reply.reversed(FROM_POD), key);
    }

    #[test]
    fn the_opposite_of_a_translated_flow_is_found_from_both_sides() {
        let addr = |lo| Addr { hi: 0, lo };
        let (pod, service, backend) = (addr(1), addr(2), addr(3));
        let key = FlowKey { src: pod, dst: service, sport: 10, dport: 20, proto: 6, hook: FROM_POD, pad: 0 };
        let forward = FlowEntry {
            action: action::LOCAL,
            flags: flags::NAT_DST,
            nat_dst: backend,
            nat_dport: 30,
            ..FlowEntry::default()
        };
        let reply_key = opposite(&key, &forward);
        assert_eq!((reply_key.src, reply_key.sport, reply_key.dst, reply_key.dport), (backend, 30, pod, 10));
        let reply = FlowEntry {
            action: action::LOCAL,
            flags: flags::NAT_SRC,
            nat_src: service,
            nat_sport: 20,
            ..FlowEntry::default()
        };
        assert_eq!(opposite(&reply_key, &reply), key);
    }

    #[test]
    fn a_closing_connection_dies_sooner_than_an_established_one() {
        assert_eq!(lifetime(proto::TCP, flags::ESTABLISHED), 8000);
        assert_eq!(lifetime(proto::TCP, flags::ESTABLISHED | flags::CLOSING), 10);
        assert_eq!(lifetime(proto::TCP, 0), 60);
        assert_eq!(lifetime(proto::UDP, flags::ESTABLISHED), 60);
    }
}
