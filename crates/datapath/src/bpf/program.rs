// SPDX-License-Identifier: Apache-2.0
//! The programs, by name.

/// A program of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// Packets that leave a pod: ingress of the host's side of its veth pair.
    PodEgress,
    /// Packets that the host sends to a pod: egress of the host's side of its veth pair.
    PodIngress,
    /// Packets that arrive at a native device.
    NetdevIngress,
    /// Packets that arrive at a native device, before the stack has them.
    NetdevXdp,
    /// Packets that leave by a native device.
    NetdevEgress,
    /// Packets that arrive through the tunnel.
    OverlayIngress,
    /// `connect(2)` to IPv4.
    SockConnect4,
    /// `connect(2)` to IPv6.
    SockConnect6,
    /// `sendmsg(2)` to IPv4.
    SockSendmsg4,
    /// `sendmsg(2)` to IPv6.
    SockSendmsg6,
    /// `recvmsg(2)` from IPv4.
    SockRecvmsg4,
    /// `recvmsg(2)` from IPv6.
    SockRecvmsg6,
    /// `getpeername(2)` of IPv4.
    SockGetpeername4,
    /// `getpeername(2)` of IPv6.
    SockGetpeername6,
    /// `bind(2)` to IPv4.
    SockPostBind4,
    /// `bind(2)` to IPv6.
    SockPostBind6,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 16] = [
        Self::PodEgress,
        Self::PodIngress,
        Self::NetdevIngress,
        Self::NetdevXdp,
        Self::NetdevEgress,
        Self::OverlayIngress,
        Self::SockConnect4,
        Self::SockConnect6,
        Self::SockSendmsg4,
        Self::SockSendmsg6,
        Self::SockRecvmsg4,
        Self::SockRecvmsg6,
        Self::SockGetpeername4,
        Self::SockGetpeername6,
        Self::SockPostBind4,
        Self::SockPostBind6,
    ];

    /// The programs of sockets, which know services.
    pub fn sockets() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|program| program.cgroup_attach_type().is_some())
    }

    /// Its name in the object and of its pin.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PodEgress => "pod_egress",
            Self::PodIngress => "pod_ingress",
            Self::NetdevIngress => "netdev_ingress",
            Self::NetdevXdp => "netdev_xdp",
            Self::NetdevEgress => "netdev_egress",
            Self::OverlayIngress => "overlay_ingress",
            Self::SockConnect4 => "sock_connect4",
            Self::SockConnect6 => "sock_connect6",
            Self::SockSendmsg4 => "sock_sendmsg4",
            Self::SockSendmsg6 => "sock_sendmsg6",
            Self::SockRecvmsg4 => "sock_recvmsg4",
            Self::SockRecvmsg6 => "sock_recvmsg6",
            Self::SockGetpeername4 => "sock_getpeername4",
            Self::SockGetpeername6 => "sock_getpeername6",
            Self::SockPostBind4 => "sock_post_bind4",
            Self::SockPostBind6 => "sock_post_bind6",
        }
    }

    /// `enum bpf_attach_type` of a program for control groups.
    pub(crate) const fn cgroup_attach_type(self) -> Option<u32> {
        match self {
            Self::PodEgress
            | Self::PodIngress
            | Self::NetdevIngress
            | Self::NetdevXdp
            | Self::NetdevEgress
            | Self::OverlayIngress => None,
            Self::SockConnect4 => Some(10),
            Self::SockConnect6 => Some(11),
            Self::SockSendmsg4 => Some(14),
            Self::SockSendmsg6 => Some(15),
            Self::SockRecvmsg4 => Some(19),
            Self::SockRecvmsg6 => Some(20),
            Self::SockGetpeername4 => Some(29),
            Self::SockGetpeername6 => Some(30),
            Self::SockPostBind4 => Some(12),
            Self::SockPostBind6 => Some(13),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Program;

    #[test]
    fn no_two_programs_share_a_name() {
        let names: std::collections::BTreeSet<_> = Program::ALL.iter().map(|program| program.name()).collect();
        assert_eq!(names.len(), Program::ALL.len());
        assert_eq!(Program::sockets().count(), 10);
    }
}
