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

#[cfg(test)]
mod tests {
    use super::*;

    const fn tuple(src: (Addr, u16), dst: (Addr, u16), proto: u8) -> Tuple {
        Tuple { src: src.0, dst: dst.0, sport: src.1, dport: dst.1, proto, class: 0, asks: true }
    }

    /// Keys are in tables that outlive the build.
    #[test]
    fn the_lower_end_comes_first_by_address_and_then_by_port() {
        let end = |hi, lo, port| (Addr { hi, lo }, port);
        let rising = [end(0, 1, 9), end(0, 2, 1), end(0, 2, 3), end(1, 0, 0)];
        for (lower, upper) in rising.iter().zip(&rising[1..]) {
            for (src, dst, from_b) in [(*lower, *upper, false), (*upper, *lower, true)] {
                let (key, is_b) = tuple(src, dst, proto::UDP).key();
                assert_eq!(((key.a, key.a_port), (key.b, key.b_port), is_b), (*lower, *upper, from_b));
            }
            assert!(!tuple(*lower, *lower, proto::UDP).key().1);
        }
    }

    #[test]
    fn only_icmp_tells_who_asks_and_its_answers_are_the_other_way_round() {
        let (lower, upper) = ((Addr { hi: 0, lo: 1 }, 7), (Addr { hi: 0, lo: 2 }, 0));
        for protocol in [proto::ICMP, proto::ICMPV6] {
            let request = tuple(lower, upper, protocol);
            assert_eq!((request.key().0.asker, tuple(upper, lower, protocol).key().0.asker), (ASKER_A, ASKER_B));
            assert_eq!((request.reversed().asks, request.reversed().reversed()), (false, request));
        }
        for protocol in [proto::TCP, proto::UDP, proto::SCTP] {
            let packet = tuple(lower, upper, protocol);
            assert_eq!((packet.key().0.asker, packet.reversed().asks), (0, true));
        }
    }

    #[test]
    fn answers_have_the_class_of_what_they_answer() {
        let pairs = [(proto::ICMP, 8, 0), (proto::ICMP, 13, 14), (proto::ICMP, 15, 16), (proto::ICMP, 17, 18)];
        for (protocol, request, answer) in
            pairs.into_iter().chain([(proto::ICMPV6, 128, 129), (proto::ICMPV6, 139, 140)])
        {
            assert_eq!(icmp_class(protocol, request), (request, true));
            assert_eq!(icmp_class(protocol, answer), (request, false));
            assert_eq!(has_identifier(protocol, request), request != 139);
            assert!(!has_identifier(proto::UDP, request) && !has_identifier(protocol, answer));
        }
        assert_eq!(icmp_class(proto::ICMPV6, 0), (0, true));
    }
}
