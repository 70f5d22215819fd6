// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What the programs know about a local address: a pod of this node, or the node itself.

use crate::Addr;

/// Endpoints that have shares of their own of what all need; beyond, some have one together. A prime, because interface indexes of pods
/// often step by two.
pub const SHARES: u32 = 127;

/// Which of the shares is that of the endpoint behind an interface.
#[inline(always)]
#[must_use]
pub const fn share(ifindex: u32) -> u32 {
    ifindex % SHARES
}

layout! {
    /// A local endpoint, found by interface index ([`crate::maps::Endpoints`]) or by address ([`crate::maps::Locals`]).
    pub struct Endpoint (64) {
        /// Interface index of the host side of the pod's veth pair; 0 for the host itself.
        pub ifindex: u32,
        /// Security identity.
        pub identity: u32,
        /// Which compiled policy applies (first part of [`crate::policy::PolicyKey`]); 0 when none is enforced.
        pub policy: u32,
        /// Endpoint id, and its slot in [`crate::maps::Epochs`]; 0 for the host.
        pub id: u16,
        /// Bits of [`flags`].
        pub flags: u16,
        /// Hardware address of the pod's interface.
        pub mac: [u8; 6],
        /// Hardware address of the host side, which answers for the pod's gateway.
        pub host_mac: [u8; 6],
        /// Zero.
        pub pad: u32,
        /// The endpoint's IPv4 address, or none.
        pub ipv4: Addr,
        /// The endpoint's IPv6 address, or none.
        pub ipv6: Addr,
    }
}

/// Bits of [`Endpoint::flags`].
pub mod flags {
    /// An address of this node.
    pub const HOST: u16 = 1;
    /// Ingress policy is enforced: what no entry allows is denied.
    pub const INGRESS_ENFORCED: u16 = 2;
    /// Egress policy is enforced: what no entry allows is denied.
    pub const EGRESS_ENFORCED: u16 = 4;
    /// Policy has not been installed yet: everything is dropped with `DropReason::DropEpNotReady`.
    pub const NOT_READY: u16 = 8;
    /// The source address check is off (annotation `config.cilium.io/disable-source-ip-verification`).
    pub const ANY_SOURCE: u16 = 16;
}
