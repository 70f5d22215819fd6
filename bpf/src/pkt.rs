// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What is known of a packet: what its bytes say (`parse`), where it came from, and under which key the flow table has its flow.

use crate::packet::From;
use abi::Addr;
use abi::flow::{FlowKey, proto, tcp};
use abi::tuple::Tuple;

/// What is known of a packet.
#[derive(Clone, Copy)]
pub struct Pkt {
    /// The tuple.
    pub tuple: Tuple,
    /// The key of its record in the flow table.
    pub key: FlowKey,
    /// Tag of the record.
    pub tag: u32,
    /// Where it came from (`abi::flow::origin`).
    pub origin: u32,
    /// Length from the network header on.
    pub len: u32,
    /// Identification of a fragmented datagram.
    pub fragment_id: u32,
    /// Identity in the tunnel's VNI.
    pub vni: u32,
    /// The node that sent it through the tunnel, or none.
    pub node: Addr,
    /// What its way takes at most, when it is too big for that.
    pub room: u16,
    /// Offset of the transport header.
    pub l4: u16,
    /// What kind of place it came from.
    pub from: From,
    /// 4 or 6.
    pub family: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags, or the ICMP type.
    pub flags: u8,
    /// ICMP code.
    pub code: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub fragment: u8,
    /// What the fragment header says comes next (IPv6), or the protocol (IPv4).
    pub fragment_next: u8,
    /// Where a first fragment ends by its own length: what the frame has behind that, the receiver cuts off.
    pub end: u16,
    /// [`FROM_B`], [`REPLY`], [`NOTED`], [`KNOWN`], [`CLASH`], [`OCCUPIED`], [`DIRECT`], [`INSIDE`].
    pub marks: u8,
    /// Of a packet with the mark [`DIRECT`]: the address that its client has asked. With the mark [`INSIDE`]: that of its backend.
    pub frontend: Addr,
    /// And the port, in network order.
    pub frontend_port: u16,
}

/// The sender is `b` of the tuple's own key.
pub const FROM_B: u8 = 1;

/// It is of the reply direction of its flow.
pub const REPLY: u8 = 2;

/// The slow path's notes (`scratch`) are about this packet.
pub const NOTED: u8 = 4;

/// There is a record of its flow, whether its decision stands or not.
pub const KNOWN: u8 = 8;

/// Replies to this tuple would be taken for those of another, translated flow.
pub const CLASH: u8 = 16;

/// The record under its key is of a flow the other way, whose replies have another tuple.
pub const OCCUPIED: u8 = 32;

/// Another node has sent it to its backend here, and told which frontend its client has asked (direct server return).
pub const DIRECT: u8 = 64;

/// The same, but in a packet to the backend, as its client has sent it (`ipip.rs`).
pub const INSIDE: u8 = 128;

/// Not fragmented.
pub const WHOLE: u8 = 0;

/// The first fragment, with the ports.
pub const FIRST: u8 = 1;

/// A later fragment, without ports.
pub const LATER: u8 = 2;

impl Pkt {
    /// Nothing known yet but where it came from.
    #[inline(always)]
    pub fn new(origin: u32, from: From) -> Self {
        let (key, _) = Tuple::NONE.key();
        Self {
            tuple: Tuple::NONE,
            key,
            tag: 0,
            origin,
            len: 0,
            fragment_id: 0,
            vni: 0,
            node: Addr::NONE,
            room: 0,
            l4: 0,
            from,
            family: 0,
            ttl: 0,
            flags: 0,
            code: 0,
            fragment: WHOLE,
            fragment_next: 0,
            end: 0,
            marks: 0,
            frontend: Addr::NONE,
            frontend_port: 0,
        }
    }

    /// Whether a mark is set.
    #[inline(always)]
    pub fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    /// Whether it is an ICMP error, which concerns another packet (RFC 792, RFC 4443).
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        (self.tuple.proto == proto::ICMP && matches!(self.flags, 3 | 11 | 12))
            || (self.tuple.proto == proto::ICMPV6 && matches!(self.flags, 1..=4))
    }

    /// A segment from the middle of a connection that has no record.
    #[inline(always)]
    pub fn is_midway(&self) -> bool {
        self.tuple.proto == proto::TCP && self.flags & (tcp::SYN | tcp::ACK) != tcp::SYN
    }
}
