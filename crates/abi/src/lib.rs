// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]

#[macro_use]
mod layout;

pub mod addr;
pub mod config;
pub mod drop_reason;
pub mod endpoint;
pub mod epoch;
pub mod event;
pub mod flow;
pub mod fragments;
pub mod ipcache;
pub mod l2;
pub mod lb;
pub mod limit;
pub mod maps;
pub mod metrics;
#[cfg(feature = "user")]
pub mod packed;
pub mod policy;
pub mod ports;
pub mod rings;
pub mod sctp;
#[cfg(feature = "user")]
pub mod spine;
pub mod told;
pub mod tuple;

pub use addr::Addr;
pub use drop_reason::DropReason;
pub use maps::{MapDef, MapKind};

/// Version of the folder in which everything is pinned. Layouts have versions of their own ([`MapDef::VERSION`]).
pub const ABI_VERSION: u32 = 1;

/// Numeric security identities that both sides must agree on.
pub mod identity {
    /// Not known.
    pub const UNKNOWN: u32 = 0;
    /// The local node.
    pub const HOST: u32 = 1;
    /// Anything outside of the cluster, of any family.
    pub const WORLD: u32 = 2;
    /// The health endpoint of a node.
    pub const HEALTH: u32 = 4;
    /// An endpoint whose identity is not known yet.
    pub const INIT: u32 = 5;
    /// Any other node of the cluster.
    pub const REMOTE_NODE: u32 = 6;
    /// A node on which an API server runs.
    pub const KUBE_APISERVER: u32 = 7;
    /// The world over IPv4, on dual stack.
    pub const WORLD_IPV4: u32 = 9;
    /// The world over IPv6, on dual stack.
    pub const WORLD_IPV6: u32 = 10;

    /// Whether the number means the same on every node: those of prefixes are the node's own, and do not fit into a VNI.
    #[inline(always)]
    #[must_use]
    pub const fn is_known_everywhere(identity: u32) -> bool {
        identity < 1 << 24
    }
}

#[cfg(test)]
mod tests {
    use super::identity::{HOST, is_known_everywhere};

    #[test]
    fn what_fits_into_a_vni_is_known_everywhere() {
        assert!(is_known_everywhere(HOST) && is_known_everywhere((1 << 24) - 1));
        assert!(!is_known_everywhere(1 << 24) && !is_known_everywhere(u32::MAX));
    }
}
