// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What the programs tell user space about packets, one fixed-size record per event in the ring buffer.

use crate::Addr;

layout! {
    /// What one direction's policy said to the packet.
    pub struct Verdict (8) {
        /// Provenance id of the deciding entry, 0 when none matched.
        pub provenance: u32,
        /// [`outcome`].
        pub outcome: u8,
        /// `policy::match_type`.
        pub match_type: u8,
        /// Zero.
        pub pad: u16,
    }
}

/// Values of [`Verdict::outcome`].
pub mod outcome {
    /// Policy is not enforced in this direction, or was not asked.
    pub const NONE: u8 = 0;
    /// Allowed.
    pub const ALLOW: u8 = 1;
    /// Denied.
    pub const DENY: u8 = 2;
}

layout! {
    /// One event. A record may stand for several of Hubble's flows: the trace or drop, and a policy verdict per direction.
    pub struct Event (136) {
        /// Nanoseconds since boot (CLOCK_MONOTONIC).
        pub time: u64,
        /// Source address as seen by the pod.
        pub src: Addr,
        /// Destination address as it was routed (after service translation).
        pub dst: Addr,
        /// The source as it leaves the node when it was rewritten, else none.
        pub src_xlated: Addr,
        /// The service address that the pod asked for when it was rewritten, else none.
        pub dst_orig: Addr,
        /// Source port, network order.
        pub sport: u16,
        /// Destination port, network order.
        pub dport: u16,
        /// Source hardware address.
        pub src_mac: [u8; 6],
        /// Destination hardware address.
        pub dst_mac: [u8; 6],
        /// Identity of the source.
        pub src_identity: u32,
        /// Identity of the destination.
        pub dst_identity: u32,
        /// Local endpoint that is the source, or 0.
        pub src_endpoint: u16,
        /// Local endpoint that is the destination, or 0.
        pub dst_endpoint: u16,
        /// Interface on which the program ran.
        pub ifindex: u32,
        /// Length of the packet from the network header on.
        pub len: u32,
        /// Packets of the flow since the last event, this one included.
        pub packets: u32,
        /// What the egress policy of the source said.
        pub egress: Verdict,
        /// What the ingress policy of the destination said.
        pub ingress: Verdict,
        /// Message type: [`kind`].
        pub kind: u8,
        /// Observation point of a trace ([`point`]); for a drop the point at which it was dropped.
        pub point: u8,
        /// Drop reason code of a drop; trace reason ([`trace_reason`]) of a trace.
        pub reason: u8,
        /// IP protocol number.
        pub proto: u8,
        /// TCP flags of the packet; for ICMP its type.
        pub tcp_flags: u8,
        /// ICMP code.
        pub icmp_code: u8,
        /// 1 when the packet is of the reply direction.
        pub reply: u8,
        /// `policy::INGRESS` or `policy::EGRESS` of a drop: of the policy that refused the packet, else of the program that dropped it;
        /// 0 when unknown.
        pub direction: u8,
    }
}

layout! {
    /// The same record where a socket was translated ([`kind::TRACE_SOCK`]): what has the name of a field of [`Event`] has its place too. It
    /// stands for two of Hubble's flows, one before the translation and one after it.
    pub struct SocketEvent (136) {
        /// Nanoseconds since boot (CLOCK_MONOTONIC).
        pub time: u64,
        /// Address of the socket's pod, by user space.
        pub src: Addr,
        /// The backend's address.
        pub dst: Addr,
        /// Number of the socket.
        pub cookie: u64,
        /// Control group of the process that asked.
        pub cgroup: u64,
        /// The service's address.
        pub dst_orig: Addr,
        /// Port of the socket in network order, or 0 while it has none.
        pub sport: u16,
        /// The backend's port, network order.
        pub dport: u16,
        /// The service's port, network order.
        pub dport_orig: u16,
        /// Zero.
        pub pad: [u8; 10],
        /// Identity of the socket's pod, by user space; of the host, by the program.
        pub src_identity: u32,
        /// Identity of the backend, by user space.
        pub dst_identity: u32,
        /// Local endpoint that has the socket, by user space, or 0.
        pub src_endpoint: u16,
        /// Local endpoint that is the backend, by user space, or 0.
        pub dst_endpoint: u16,
        /// Zero.
        pub pad2: [u8; 12],
        /// Cookie of the socket's network namespace, by which user space finds its pod and which it takes out then.
        pub netns: u64,
        /// Zero.
        pub pad3: u64,
        /// [`kind::TRACE_SOCK`].
        pub kind: u8,
        /// [`translation`].
        pub point: u8,
        /// Zero.
        pub reason: u8,
        /// IP protocol number.
        pub proto: u8,
        /// Zero.
        pub pad4: [u8; 4],
    }
}

const _: () = {
    use core::mem::offset_of;
    macro_rules! same_place {
        ($($field:ident),+) => { $(assert!(offset_of!(Event, $field) == offset_of!(SocketEvent, $field));)+ };
    }
    same_place!(time, src, dst, dst_orig, sport, dport, src_identity, dst_identity, src_endpoint, dst_endpoint);
    same_place!(kind, point, reason, proto);
};

impl Event {
    /// The record as that of a socket, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn socket(&self) -> Option<SocketEvent> {
        if self.kind != kind::TRACE_SOCK {
            return None;
        }
        // SAFETY: both are integers alone, without padding and of one size (`layout!`).
        Some(unsafe { core::mem::transmute::<Self, SocketEvent>(*self) })
    }
}

impl From<SocketEvent> for Event {
    #[inline(always)]
    fn from(socket: SocketEvent) -> Self {
        // SAFETY: both are integers alone, without padding and of one size (`layout!`).
        unsafe { core::mem::transmute::<SocketEvent, Self>(socket) }
    }
}

/// Values of [`SocketEvent::point`]: the one before the translation; the next number is the one after it.
pub mod translation {
    /// A socket connects or sends: the service becomes a backend.
    pub const FORWARD: u8 = 1;
    /// A socket asks who its peer or a sender is: the backend becomes the service.
    pub const REVERSE: u8 = 3;
}

/// Monitor message types.
pub mod kind {
    /// A packet was dropped.
    pub const DROP: u8 = 1;
    /// A packet was forwarded.
    pub const TRACE: u8 = 4;
    /// A socket was translated.
    pub const TRACE_SOCK: u8 = 7;
}

/// Trace observation points, datapath values.
pub mod point {
    /// Into a local endpoint.
    pub const TO_ENDPOINT: u8 = 0;
    /// To the node itself.
    pub const TO_HOST: u8 = 2;
    /// To the node's network stack, for others.
    pub const TO_STACK: u8 = 3;
    /// Into the tunnel.
    pub const TO_OVERLAY: u8 = 4;
    /// From a local endpoint.
    pub const FROM_ENDPOINT: u8 = 5;
    /// From the node itself.
    pub const FROM_HOST: u8 = 7;
    /// Out of the tunnel.
    pub const FROM_OVERLAY: u8 = 9;
    /// From a native device.
    pub const FROM_NETWORK: u8 = 10;
    /// Out of a native device.
    pub const TO_NETWORK: u8 = 11;
}

/// Trace reasons, datapath values.
pub mod trace_reason {
    /// First packet of a flow.
    pub const NEW: u8 = 0;
    /// Later packet of the forward direction.
    pub const ESTABLISHED: u8 = 1;
    /// Packet of the reply direction.
    pub const REPLY: u8 = 2;
    /// ICMP error that concerns a flow.
    pub const RELATED: u8 = 3;
}

#[cfg(test)]
mod tests {
    use super::{Event, SocketEvent, kind, translation};
    use crate::Addr;

    #[test]
    fn the_record_of_a_socket_comes_back_as_it_was_and_no_other_is_one() {
        let addr = |last: u8| Addr::from_v4_be(u32::from_ne_bytes([10, 0, 0, last]));
        let socket = SocketEvent {
            dst: addr(2),
            dst_orig: addr(3),
            cookie: 7 << 40,
            cgroup: 8,
            netns: 9,
            dport_orig: 53_u16.to_be(),
            kind: kind::TRACE_SOCK,
            point: translation::REVERSE,
            ..SocketEvent::default()
        };
        let event = Event::from(socket);
        assert_eq!((event.dst, event.dst_orig, event.point), (addr(2), addr(3), translation::REVERSE));
        assert_eq!(event.socket(), Some(socket));
        assert_eq!(Event { kind: kind::TRACE, ..event }.socket(), None);
    }
}
