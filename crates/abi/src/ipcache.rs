// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Which identity an address has, and behind which node it is.

use crate::Addr;

layout! {
    /// What is known of a prefix.
    pub struct IpcacheEntry (24) {
        /// Security identity.
        pub identity: u32,
        /// Bits of [`flags`].
        pub flags: u8,
        /// Encryption key index: 0 none, 255 WireGuard.
        pub encrypt_key: u8,
        /// Zero.
        pub pad: u16,
        /// The node to tunnel to, or none.
        pub tunnel: Addr,
    }
}

/// Bits of [`IpcacheEntry::flags`].
pub mod flags {
    /// Sent without masquerading.
    pub const NO_MASQUERADE: u8 = 1;
    /// An address of a node, which is not reached through the tunnel: `tunnel` names the address that its node is known by, when
    /// that is another one.
    pub const NODE: u8 = 2;
}

/// Key data of the IPv4 trie: the address in network order.
pub type Key4 = [u8; 4];
/// Key data of the IPv6 trie: the address in network order.
pub type Key6 = [u8; 16];
