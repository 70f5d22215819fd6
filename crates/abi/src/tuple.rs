// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What identifies the flow that a packet belongs to.

use crate::Addr;
use crate::flow::{ASKER_A, ASKER_B, FlowKey, proto};

/// The ends of a flow as a packet names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port in network order; the identifier of an ICMP message that asks.
    pub sport: u16,
    /// Destination port in network order; the identifier of an ICMP message that answers.
    pub dport: u16,
    /// IP protocol number (IANA).
    pub proto: u8,
    /// ICMP: the type of the message that opens such a flow. Else 0.
    pub class: u8,
    /// ICMP: whether the message asks (or stands alone) rather than answers. Else always true.
    pub asks: bool,
}

impl Tuple {
    /// Nothing known.
    pub const NONE: Self =
        Self { src: Addr::NONE, dst: Addr::NONE, sport: 0, dport: 0, proto: 0, class: 0, asks: true };

    /// The key of its flow, and whether the sender is `b` there.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self) -> (FlowKey, bool) {
        let from_b = precedes(self.dst, self.dport, self.src, self.sport);
        let mut asker = 0;
        if is_icmp(self.proto) {
            asker = if self.asks == from_b { ASKER_B } else { ASKER_A };
        }
        let (a, a_port, b, b_port) = if from_b {
            (self.dst, self.dport, self.src, self.sport)
        } else {
            (self.src, self.sport, self.dst, self.dport)
        };
        (FlowKey { a, b, a_port, b_port, proto: self.proto, class: self.class, asker, alias: 0 }, from_b)
    }

    /// The other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self { asks: if is_icmp(self.proto) { !self.asks } else { true }, ..self.swapped() }
    }

    /// The ends exchanged, still the same message.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn swapped(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..*self }
    }
}

/// Whether it is ICMP of either family.
#[inline(always)]
#[must_use]
pub const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
}

/// Whether the first end is the lower one.
#[inline(always)]
const fn precedes(a: Addr, a_port: u16, b: Addr, b_port: u16) -> bool {
    if a.hi != b.hi {
        return a.hi < b.hi;
    }
    if a.lo != b.lo {
        return a.lo < b.lo;
    }
    a_port < b_port
}

/// What an ICMP message is to its flow: the type that opens such a flow, and whether this one asks. Only a message that asks opens
/// a flow, and it opens it for the answers to it and for nothing else (RFC 792, RFC 4443, RFC 4620).
#[inline(always)]
#[must_use]
pub const fn icmp_class(protocol: u8, kind: u8) -> (u8, bool) {
    match (protocol, kind) {
        (proto::ICMP, 0) => (8, false),
        (proto::ICMP, 14 | 16 | 18) | (proto::ICMPV6, 129) => (kind - 1, false),
        (proto::ICMPV6, 140) => (139, false),
        _ => (kind, true),
    }
}

/// Whether messages of this class carry an identifier that the answer repeats.
#[inline(always)]
#[must_use]
pub const fn has_identifier(protocol: u8, class: u8) -> bool {
    matches!((protocol, class), (proto::ICMP, 8 | 13 | 15 | 17) | (proto::ICMPV6, 128))
}
