// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Layouts of version 1, which only migrations read: a table that older programs have filled is taken over by them.

use crate::Addr;
use crate::flow::action;

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
        /// What to do with the packet: [`action`], of the same values today.
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
        /// [`crate::flow::TICK_NS`] ticks since boot, of the last packet.
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

/// The opposite direction's key of an entry stored under `key`, by what the entry does to addresses and where it sends.
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

layout! {
    /// Facts of the node.
    pub struct NodeConfig (64) {
        /// Source address of masqueraded IPv4 traffic, or none.
        pub masquerade_ipv4: Addr,
        /// Source address of masqueraded IPv6 traffic, or none.
        pub masquerade_ipv6: Addr,
        /// Interface index of the tunnel device, or 0.
        pub overlay_ifindex: u32,
        /// Interface index of the native device that leads to other nodes and to the world, or 0.
        pub native_ifindex: u32,
        /// Security identity under which the node's own traffic is known to other nodes.
        pub node_identity: u32,
        /// Interface index of `cilium_host`, or 0.
        pub host_ifindex: u32,
        /// Hardware address of the native device.
        pub native_mac: [u8; 6],
        /// Zero.
        pub pad: [u8; 10],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lo: u64) -> Addr {
        Addr { hi: 0, lo }
    }

    #[test]
    fn the_opposite_of_an_entry_has_what_replies_have() {
        let key = FlowKey { src: end(1), dst: end(2), sport: 10, dport: 20, proto: 6, hook: FROM_POD, pad: 0 };
        let translated =
            FlowEntry { nat_src: end(3), nat_sport: 30, nat_dst: end(4), nat_dport: 40, ..FlowEntry::default() };
        let opposite = |flags, action| opposite(&key, &FlowEntry { flags, action, ..translated });
        let reply = FlowKey { src: end(2), dst: end(1), sport: 20, dport: 10, hook: ARRIVING, ..key };
        assert_eq!(opposite(flags::REPLY | flags::MASQUERADE, action::TUNNEL), reply);
        assert_eq!(opposite(flags::NAT_SRC, action::TUNNEL), FlowKey { dst: end(3), dport: 30, ..reply });
        assert_eq!(opposite(flags::NAT_DST, action::TUNNEL), FlowKey { src: end(4), sport: 40, ..reply });
        assert_eq!(opposite(0, action::LOCAL), FlowKey { hook: FROM_POD, ..reply }, "both ends are pods of this node");
        let arriving = FlowKey { hook: ARRIVING, ..key };
        assert_eq!(super::opposite(&arriving, &FlowEntry::default()).hook, FROM_POD);
    }
}
