// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Services: frontends, their slots, backends, and the memory of translated sockets.

use crate::Addr;

layout! {
    /// A frontend.
    pub struct ServiceKey (24) {
        /// Address of the frontend.
        pub addr: Addr,
        /// Port in network order.
        pub port: u16,
        /// IP protocol number.
        pub proto: u8,
        /// [`SCOPE_EXTERNAL`] or [`SCOPE_INTERNAL`].
        pub scope: u8,
        /// Zero.
        pub pad: u32,
    }
}

/// The backends for any client.
pub const SCOPE_EXTERNAL: u8 = 0;
/// The backends for clients inside of the cluster, where they differ.
pub const SCOPE_INTERNAL: u8 = 1;

layout! {
    /// What a frontend stands for.
    pub struct Service (16) {
        /// Service id, first part of [`SlotKey`].
        pub id: u32,
        /// Number of slots, numbered from 0; 0 means no backend.
        pub count: u32,
        /// Bits of [`flags`].
        pub flags: u32,
        /// Seconds of session affinity, or 0.
        pub affinity: u32,
    }
}

/// Bits of [`Service::flags`].
pub mod flags {
    /// The frontend is a ClusterIP.
    pub const CLUSTER_IP: u32 = 1;
}

layout! {
    /// One slot of a service.
    pub struct SlotKey (8) {
        /// `Service::id`.
        pub service: u32,
        /// From 0 to `Service::count` - 1.
        pub slot: u32,
    }
}

layout! {
    /// Where a connection to a service ends.
    pub struct Backend (24) {
        /// Address.
        pub addr: Addr,
        /// Port in network order.
        pub port: u16,
        /// IP protocol number.
        pub proto: u8,
        /// Zero.
        pub pad8: u8,
        /// Zero.
        pub pad: u32,
    }
}

layout! {
    /// A translated socket and the backend it talks to.
    pub struct ReverseKey (32) {
        /// Socket cookie.
        pub cookie: u64,
        /// Backend address.
        pub addr: Addr,
        /// Backend port in network order.
        pub port: u16,
        /// Zero.
        pub pad: [u8; 6],
    }
}

layout! {
    /// The frontend that the socket's owner asked for.
    pub struct ReverseEntry (24) {
        /// Frontend address.
        pub addr: Addr,
        /// Frontend port in network order.
        pub port: u16,
        /// Zero.
        pub pad: u16,
        /// `Service::id`.
        pub service: u32,
    }
}
