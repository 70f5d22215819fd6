// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The flow table: what was decided for the first packet of a flow, replayed for all others.
//!
//! A flow is one record. Its key names both ends in an order of their own, so that packets of either direction find it; the
//! record says which end opened the flow, and has a [`Half`] per direction. Only where a translation gives replies another
//! tuple is there a second entry, an alias, which holds nothing but the record's key.

use crate::tuple::Tuple;
use crate::{Addr, rings};

layout! {
    /// The two ends of a flow, the lower one first, whoever opened it.
    pub struct FlowKey (40) {
        /// Address of the lower end.
        pub a: Addr,
        /// Address of the upper end.
        pub b: Addr,
        /// Port of the lower end in network order; for ICMP the identifier, if it is the one that asks.
        pub a_port: u16,
        /// Port of the upper end, likewise.
        pub b_port: u16,
        /// IP protocol number (IANA).
        pub proto: u8,
        /// For ICMP the type of the message that opens such a flow, else 0.
        pub class: u8,
        /// For ICMP which end asks: [`ASKER_A`] or [`ASKER_B`], else 0.
        pub asker: u8,
        /// 1 for an alias: its ends are those of the replies of a translated flow. In a ring [`SETTLED`], or 0.
        pub alias: u8,
    }
}

/// In the place of a key in a ring: the connection stands, so nobody takes it for one that nobody has answered.
pub const SETTLED: u8 = 2;
/// The lower end asks.
pub const ASKER_A: u8 = 1;
/// The upper end asks.
pub const ASKER_B: u8 = 2;

layout! {
    /// One direction of a flow: a cache line of its own in the table, which packets of the other direction, perhaps on another processor,
    /// seldom look at.
    pub struct Half (64) {
        /// By `action`: hardware addresses for [`action::LOCAL`] (destination, then source, in the first twelve bytes), the peer
        /// node for [`action::TUNNEL`], the next hop for [`action::NEIGH`], or none when the kernel shall look it up.
        pub hop: Addr,
        /// Bytes from the network header on.
        pub bytes: u64,
        /// Packets.
        pub packets: u64,
        /// [`TICK_NS`] ticks since boot, of the last packet.
        pub last_seen: u32,
        /// Ticks since boot, of the last event.
        pub last_report: u32,
        /// Where packets of this direction come from ([`origin`]); one from elsewhere is decided anew.
        pub origin: u32,
        /// Interface to send to, by `action`.
        pub out_ifindex: u32,
        /// Longest packet that the way out takes, from the network header on; 0 when any will do.
        pub mtu: u16,
        /// What to do with the packet: [`action`].
        pub action: u8,
        /// TCP flags seen, all ORed.
        pub tcp_seen: u8,
        /// TCP flags that an event has reported.
        pub tcp_reported: u8,
        /// Bits of [`half`].
        pub flags: u8,
        /// TCP: half of the number that the flow's opener has to acknowledge ([`Flow::expect`]), the upper one in the reply's half; 0 when
        /// it is not known.
        pub expected: u16,
        /// Zero.
        pub pad: [u8; 4],
        /// Of the forward direction: where in its ring ([`crate::rings`]) the flow was listed, counted from 1; 0 when it was not.
        pub place: u32,
    }
}

layout! {
    /// A flow: what its decision stands on, what is done with its packets, and the state of its connection.
    ///
    /// The kernel's table puts 48 bytes of its own and the key before it: so the halves begin where cache lines do, and what every packet
    /// reads lies with the key's end.
    pub struct Flow (232) {
        /// [`FlowKey::tag`] of its key. Memory of a flow that ends is used for the next one at once: a reader that is overtaken sees
        /// another tag. The first field, because it is written first, and read last.
        pub tag: u32,
        /// Sum of the epochs of the node ([`crate::epoch::NODE`]) and of `peers` at the decision. All only grow, so an equal sum means
        /// that none has moved.
        pub topology_epoch: u32,
        /// Policy epoch of `src_endpoint` at the decision.
        pub src_epoch: u32,
        /// Policy epoch of `dst_endpoint` at the decision.
        pub dst_epoch: u32,
        /// Slots of the peers' addresses ([`crate::epoch::of_peers`]).
        pub peers: u32,
        /// Bits of [`flags`].
        pub flags: u16,
        /// Proxy port that the flow is redirected to in network order, or 0. Of an alias: the record's `asker`.
        pub proxy_port: u16,
        /// Local endpoint that opened the flow, or 0.
        pub src_endpoint: u16,
        /// Local endpoint that the flow was opened to, or 0.
        pub dst_endpoint: u16,
        /// Identity of the end that opened the flow.
        pub src_identity: u32,
        /// Identity of the other end.
        pub dst_identity: u32,
        /// Provenance id of the policy entry that allowed the flow.
        pub provenance: u32,
        /// The service (`lb::Service::id`) that the flow was translated by, or 0.
        pub service: u32,
        /// The backend (key of `maps::Backends`) that was chosen, or 0.
        pub backend: u32,
        /// Ticks since boot, of the first decision; never 0.
        pub created: u32,
        /// Source port after translation, network order. Of an alias: the record's `a_port`.
        pub nat_sport: u16,
        /// Destination port after translation, network order. Of an alias: the record's `b_port`.
        pub nat_dport: u16,
        /// Source address of the forward direction after translation, with [`flags::NAT_SRC`]. Of an alias: the record's `a`.
        pub nat_src: Addr,
        /// Destination address of the forward direction after translation, with [`flags::NAT_DST`]; with [`flags::DIRECT`] alone the
        /// frontend's. Of an alias: the record's `b`.
        pub nat_dst: Addr,
        /// Zero.
        pub pad: [u8; 16],
        /// Packets of the end that opened the flow.
        pub forward: Half,
        /// Packets of the other end.
        pub reply: Half,
    }
}

/// What the kernel's table puts before a key (`struct htab_elem`).
const BEFORE_KEY: usize = 48;
const LINE: usize = 64;
const KEY: usize = BEFORE_KEY + core::mem::size_of::<FlowKey>();
const _: () =
    assert!((KEY + core::mem::offset_of!(Flow, forward)).is_multiple_of(LINE) && core::mem::size_of::<Half>() == LINE);
const _: () = assert!((KEY + core::mem::size_of::<Flow>()).is_multiple_of(LINE), "every record begins at a line");

/// Values of [`Half::action`].
pub mod action {
    /// Hand over to the host's stack (or, on the way into a pod, let it pass).
    pub const STACK: u8 = 0;
    /// Deliver into the pod behind `out_ifindex`.
    pub const LOCAL: u8 = 1;
    /// Encapsulate to the node `hop` with the sender's identity.
    pub const TUNNEL: u8 = 2;
    /// Send out of `out_ifindex` to the neighbour `hop`.
    pub const NEIGH: u8 = 3;
}

/// Values of [`Half::origin`]: an interface index, and what kind of arrival it is.
pub mod origin {
    /// The host's stack sends it to a pod. The index is that of the interface it came in by, 0 for what is made on this node.
    pub const STACK: u32 = 1 << 31;
    /// It came through the tunnel, whose device has that index.
    pub const TUNNEL: u32 = 1 << 30;
    /// The interface index.
    pub const IFINDEX: u32 = TUNNEL - 1;
}

/// Bits of [`Half::flags`].
pub mod half {
    /// TCP: this end has acknowledged what the other had answered, so the connection stands.
    pub const CONFIRMED: u8 = 1;
    /// `hop` is a neighbour of the device: with [`super::action::TUNNEL`] the peer node is not behind a router.
    pub const ON_LINK: u8 = 2;
}

/// Bits of [`Flow::flags`].
pub mod flags {
    /// Source address and port of the forward direction are rewritten.
    pub const NAT_SRC: u16 = 1;
    /// Destination address and port of the forward direction are rewritten.
    pub const NAT_DST: u16 = 2;
    /// The end that opened the flow is `b` of the key.
    pub const OPENED_BY_B: u16 = 4;
    /// The source rewrite is masquerading (and not a port of a service's flow).
    pub const MASQUERADE: u16 = 8;
    /// Policy has refused the flow while it was open: so it is in both directions until it ends.
    pub const REFUSED: u16 = 16;
    /// Replies go from the backend's node to the client (direct server return). With [`NAT_DST`] the backend is on another node, which is told
    /// of the frontend. Without it the backend is here, and another node has told of the frontend, which is in `nat_dst` and `nat_dport`:
    /// replies leave as if from there.
    pub const DIRECT: u16 = 32;
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

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// One end has spoken, or the other has answered without being heard again.
    Opening,
    /// Both ends have spoken and know it.
    Established,
    /// Both ends have said goodbye, or one has reset the connection.
    Closed,
}

impl State {
    /// Ticks for which a flow may be silent before it is garbage; the field's defaults.
    #[must_use]
    pub const fn lifetime(self, proto: u8) -> u32 {
        match self {
            _ if proto != proto::TCP => 60,
            Self::Opening => 60,
            Self::Established => 8000,
            Self::Closed => 10,
        }
    }
}

/// Ticks of silence that are allowed after a reset of an established connection: whoever knows its ends can send one that nobody believes.
const AFTER_RESET: u32 = 600;

/// How much more than the opening segment the first acknowledgement may cover (RFC 7413: data may go with it).
const OPENING_WINDOW: u32 = 1 << 14;

impl FlowKey {
    /// A number of the key that stands in its value.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let ends = self.a.hi ^ self.a.lo.rotate_left(17) ^ self.b.hi.rotate_left(29) ^ self.b.lo.rotate_left(43);
        let rest = (self.a_port as u64) << 48 | (self.b_port as u64) << 32;
        let rest =
            rest | (self.proto as u64) << 24 | (self.class as u64) << 16 | (self.asker as u64) << 8 | self.alias as u64;
        ((ends ^ rest).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

impl Flow {
    /// Whether a packet whose sender is `b` of the key (or `a`) belongs to the reply direction.
    #[inline(always)]
    #[must_use]
    pub const fn is_reply(&self, from_b: bool) -> bool {
        from_b != self.has(flags::OPENED_BY_B)
    }

    /// Whether a flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// How far the connection is.
    #[inline(always)]
    #[must_use]
    pub const fn state(&self, proto: u8) -> State {
        if proto != proto::TCP {
            return if self.reply.packets != 0 { State::Established } else { State::Opening };
        }
        let (forward, reply) = (self.forward.tcp_seen, self.reply.tcp_seen);
        if (forward | reply) & tcp::RST != 0 || forward & reply & tcp::FIN != 0 {
            State::Closed
        } else if self.forward.flags & half::CONFIRMED != 0 {
            State::Established
        } else {
            State::Opening
        }
    }

    /// Whether a connection stands as far as this node can tell: where the backend's node answers the client directly, its opener alone
    /// is seen here, and nothing proves what it says.
    #[inline(always)]
    #[must_use]
    pub const fn goes_on(&self, proto: u8) -> bool {
        const TOLD: u16 = flags::DIRECT | flags::NAT_DST;
        const LATER: u8 = tcp::ACK | tcp::RST | tcp::FIN;
        let said = proto == proto::TCP && self.flags & TOLD == TOLD && self.forward.tcp_seen & LATER == tcp::ACK;
        said || matches!(self.state(proto), State::Established)
    }

    /// TCP: the other end's opening segment begins before that number, which proves that whoever acknowledges it has seen the segment.
    #[inline(always)]
    pub const fn expect(&mut self, number: u32) {
        self.reply.expected = (number >> 16) as u16;
        self.forward.expected = number as u16;
    }

    /// Whether an acknowledgement of the end that opened the flow proves that. Where the other end's opening segment was not seen, any does
    /// that is not about a refusal.
    #[inline(always)]
    #[must_use]
    pub const fn is_proved_by(&self, acknowledged: u32) -> bool {
        let expected = (self.reply.expected as u32) << 16 | self.forward.expected as u32;
        if expected == 0 {
            return self.reply.tcp_seen & tcp::RST == 0;
        }
        acknowledged.wrapping_sub(expected) < OPENING_WINDOW
    }

    /// Whether the connection has ended for certain: both ends have said goodbye, or one has reset it before it was established.
    #[inline(always)]
    #[must_use]
    pub const fn has_ended(&self, proto: u8) -> bool {
        let farewell = self.forward.tcp_seen & self.reply.tcp_seen & tcp::FIN != 0;
        matches!(self.state(proto), State::Closed) && (farewell || self.forward.flags & half::CONFIRMED == 0)
    }

    /// Ticks for which it may be silent before it is garbage.
    #[must_use]
    pub const fn lifetime(&self, proto: u8) -> u32 {
        match self.state(proto) {
            State::Closed if !self.has_ended(proto) => AFTER_RESET,
            State::Opening if self.goes_on(proto) => State::Established.lifetime(proto),
            state => state.lifetime(proto),
        }
    }

    /// The ring that it is listed in, which is of the endpoint or service that it is reckoned to.
    #[inline(always)]
    #[must_use]
    pub const fn ring(&self) -> u32 {
        if self.src_endpoint != 0 {
            return rings::of(self.forward.origin & origin::IFINDEX, true);
        }
        if self.service != 0 {
            return rings::of_service(self.service);
        }
        let target = if self.dst_endpoint != 0 { self.reply.origin & origin::IFINDEX } else { 0 };
        rings::of(target, false)
    }

    /// The record that an alias points to; `proto` and `class` are those of the alias.
    #[inline(always)]
    #[must_use]
    pub const fn target(&self, alias: &FlowKey) -> FlowKey {
        FlowKey {
            a: self.nat_src,
            b: self.nat_dst,
            a_port: self.nat_sport,
            b_port: self.nat_dport,
            proto: alias.proto,
            class: alias.class,
            asker: self.proxy_port as u8,
            alias: 0,
        }
    }

    /// An alias of a record, for replies with the tuple `answer`, and its key.
    #[must_use]
    pub fn alias(record: &FlowKey, answer: &Tuple) -> (FlowKey, Self) {
        let mut alias = Self::default();
        (alias.point_to(record, answer), alias)
    }

    /// Makes it an alias of a record, for replies with the tuple `answer`, and returns the alias's key. It has to be blank.
    #[inline(always)]
    pub const fn point_to(&mut self, record: &FlowKey, answer: &Tuple) -> FlowKey {
        let (key, from_b) = answer.key();
        let key = FlowKey { alias: 1, ..key };
        self.tag = key.tag();
        self.flags = if from_b { 0 } else { flags::OPENED_BY_B };
        self.nat_src = record.a;
        self.nat_dst = record.b;
        self.nat_sport = record.a_port;
        self.nat_dport = record.b_port;
        self.proxy_port = record.asker as u16;
        key
    }

    /// The tuple of the forward direction as the flow's opener sends it.
    #[inline(always)]
    #[must_use]
    pub const fn opening(&self, key: &FlowKey) -> Tuple {
        let forward = Tuple {
            src: key.a,
            dst: key.b,
            sport: key.a_port,
            dport: key.b_port,
            proto: key.proto,
            class: key.class,
            asks: true,
        };
        if self.has(flags::OPENED_BY_B) { forward.swapped() } else { forward }
    }

    /// The tuple of replies as they reach this node: the translated forward direction turned round.
    #[inline(always)]
    #[must_use]
    pub const fn answer(&self, key: &FlowKey) -> Tuple {
        let mut forward = self.opening(key);
        if self.has(flags::NAT_SRC) {
            (forward.src, forward.sport) = (self.nat_src, self.nat_sport);
        }
        if self.has(flags::NAT_DST) {
            (forward.dst, forward.dport) = (self.nat_dst, self.nat_dport);
        }
        forward.reversed()
    }

    /// Whether its replies have a tuple of their own, and so an alias. With direct return those that come here at all have their ends already.
    #[inline(always)]
    #[must_use]
    pub const fn is_translated(&self) -> bool {
        self.flags & (flags::NAT_SRC | flags::NAT_DST) != 0 && !self.has(flags::DIRECT)
    }

    /// Whether its packets, of one direction at least, have other ends when they leave.
    #[inline(always)]
    #[must_use]
    pub const fn is_rewritten(&self) -> bool {
        self.flags & (flags::NAT_SRC | flags::NAT_DST | flags::DIRECT) != 0
    }

    /// Whether another node has sent the flow to its backend here, whose replies leave as the frontend's.
    #[inline(always)]
    #[must_use]
    pub const fn is_returned(&self) -> bool {
        self.flags & (flags::NAT_DST | flags::DIRECT) == flags::DIRECT
    }

    /// Whether both directions have been silent for longer than the state of the connection allows, at tick `now`.
    #[must_use]
    pub const fn is_garbage(&self, proto: u8, now: u32) -> bool {
        let lifetime = self.lifetime(proto);
        now.saturating_sub(self.forward.last_seen) > lifetime && now.saturating_sub(self.reply.last_seen) > lifetime
    }
}

#[cfg(test)]
mod tests;
