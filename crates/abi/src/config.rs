// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Program configuration: constants of the node, set as read-only data before the object is loaded, so that the
//! verifier removes what a setting switches off; and the few facts that may change while the programs run.

use crate::Addr;

/// Declares the constants once: the kernel side makes a global of each, user space a structure to fill in.
#[macro_export]
macro_rules! for_each_program_constant {
    ($then:ident) => {
        $then! {
            /// IPv4 packets are forwarded.
            ENABLE_IPV4, enable_ipv4: u8 = 1;
            /// IPv6 packets are forwarded.
            ENABLE_IPV6, enable_ipv6: u8 = 1;
            /// Pods of other nodes are reached through the tunnel device.
            TUNNEL, tunnel: u8 = 1;
            /// IPv4 traffic that leaves the cluster takes the node's address.
            MASQUERADE_IPV4, masquerade_ipv4: u8 = 1;
            /// IPv6 traffic that leaves the cluster takes the node's address.
            MASQUERADE_IPV6, masquerade_ipv6: u8 = 1;
            /// Forwarded packets are reported, by the rules of aggregation.
            TRACE_EVENTS, trace_events: u8 = 1;
            /// Translations of sockets are reported.
            TRACE_SOCKETS, trace_sockets: u8 = 0;
            /// Packets into the tunnel get their outer headers from the programs, not from the tunnel device.
            DIRECT_TUNNEL, direct_tunnel: u8 = 0;
            /// UDP port of the tunnel.
            TUNNEL_PORT, tunnel_port: u16 = 8472;
            /// Places in each ring of `maps::Openings`.
            OPENINGS, openings: u32 = 512;
            /// The kernel has the coarse clock (5.11).
            COARSE_CLOCK, coarse_clock: u8 = 1;
            /// The kernel lets a socket program choose the error (6.1).
            SET_RETVAL, set_retval: u8 = 1;
            /// Ticks (`flow::TICK_NS`) between two reports of one flow without news (`monitor-aggregation-interval`); 0 reports
            /// each packet.
            EVENT_INTERVAL, event_interval: u32 = 5;
            /// Unread bytes in a ring of events at which the reader is woken; below, it looks by itself. Found when the programs are loaded.
            EVENT_WAKEUP, event_wakeup: u32 = 131_072;
            /// Services are reached from outside, at the node's ports and at their external addresses.
            EXPOSE_SERVICES, expose_services: u8 = 0;
            /// Packets for backends of other nodes may name the frontend, so that these nodes answer the client themselves (direct
            /// server return).
            DIRECT_RETURN, direct_return: u8 = 0;
            /// They do not name it, but go there as their clients have sent them, in a packet to the backend (IP in IP).
            DIRECT_IPIP, direct_ipip: u8 = 0;
            /// Services from outside are served before the stack, as far as that can be done there (XDP).
            ACCELERATE, accelerate: u8 = 0;
            /// What is sent where no backend is gets an answer (ICMP, port unreachable) and is not dropped in silence.
            REJECT_NO_BACKEND, reject_no_backend: u8 = 0;
            /// First port of the range of node ports.
            NODEPORT_MIN, nodeport_min: u16 = 30000;
            /// Last port of the range of node ports.
            NODEPORT_MAX, nodeport_max: u16 = 32767;
            /// The host's own programs cannot take a port at which the node serves.
            BIND_PROTECTION, bind_protection: u8 = 0;
            /// Only sockets of the host's network namespace are translated; what pods send is, packet by packet.
            SOCKETS_OF_HOST_ONLY, sockets_of_host_only: u8 = 0;
            /// Cookie of the host's network namespace; 0 stands for the first namespace of the machine. Found when the programs are
            /// loaded.
            HOST_NETNS, host_netns: u64 = 0;
            /// Positions in the lookup table of a service ([`crate::lb::MaglevPart`]).
            MAGLEV_SIZE, maglev_size: u32 = 16381;
        }
    };
}

#[cfg(feature = "user")]
macro_rules! user_constants {
    ($($(#[$meta:meta])* $global:ident, $field:ident : $ty:ty = $default:literal;)+) => {
        /// The constants of the node, with what they are without configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct ProgramConfig { $($(#[$meta])* pub $field: $ty),+ }

        impl Default for ProgramConfig {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }

        impl ProgramConfig {
            /// Each constant's name in the object's read-only data, and its bytes.
            pub fn globals(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
                [$((stringify!($global), bytes_of(&self.$field))),+].into_iter()
            }
        }
    };
}

#[cfg(feature = "user")]
for_each_program_constant!(user_constants);

#[cfg(feature = "user")]
fn bytes_of<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: `Pod` values are plain bytes without padding, and the slice borrows the value.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), core::mem::size_of::<T>()) }
}

layout! {
    /// Facts of the node that may change while the programs run.
    pub struct NodeConfig (96) {
        /// Source address of masqueraded IPv4 traffic that leaves by a device without one of its own, or none.
        pub masquerade_ipv4: Addr,
        /// Source address of masqueraded IPv6 traffic that leaves by a device without one of its own, or none.
        pub masquerade_ipv6: Addr,
        /// Source address of tunnel packets over IPv4, or none.
        pub tunnel_ipv4: Addr,
        /// Source address of tunnel packets over IPv6, or none.
        pub tunnel_ipv6: Addr,
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

layout! {
    /// A native device.
    pub struct Device (32) {
        /// Source address of masqueraded IPv4 traffic that leaves by it, or none.
        pub masquerade_ipv4: Addr,
        /// Source address of masqueraded IPv6 traffic that leaves by it, or none.
        pub masquerade_ipv6: Addr,
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::ProgramConfig;

    #[test]
    fn a_constant_is_written_as_its_bytes() {
        let config = ProgramConfig { tunnel_port: 0x1234, ..ProgramConfig::default() };
        let port = config.globals().find(|(name, _)| *name == "TUNNEL_PORT");
        assert_eq!(port, Some(("TUNNEL_PORT", &0x1234_u16.to_ne_bytes()[..])));
        assert!(config.globals().all(|(_, bytes)| !bytes.is_empty()));
    }
}
