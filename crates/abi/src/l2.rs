// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Addresses of Services that this node announces on the link: who asks for their hardware address is answered.

use crate::Addr;

layout! {
    /// An address, where it is announced.
    pub struct AnnouncedKey (24) {
        /// Address.
        pub addr: Addr,
        /// Interface index of the device on which it is asked for.
        pub ifindex: u32,
        /// Zero.
        pub pad: u32,
    }
}

impl AnnouncedKey {
    /// That address on that device.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, ifindex: u32) -> Self {
        Self { addr, ifindex, pad: 0 }
    }
}

layout! {
    /// What is answered, and for how long. An entry ends by itself, because another node answers when this one has failed to renew its lease,
    /// be it that nobody is left to remove the entry.
    pub struct Announced (16) {
        /// Hardware address of the device.
        pub mac: [u8; 6],
        /// Zero.
        pub pad: [u8; 2],
        /// Nanoseconds since boot, with those of suspension (CLOCK_BOOTTIME): from then on nothing is answered.
        pub until: u64,
    }
}
