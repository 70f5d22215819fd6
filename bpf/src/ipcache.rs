// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Who an address is to the cluster: what the address cache has of it.

use crate::addresses::is_local;
use crate::maps;
use abi::ipcache::{IpcacheEntry, flags};
use abi::{Addr, identity};
use aya_ebpf::maps::lpm_trie::Key;

/// The most specific entry for the address.
#[inline(always)]
pub fn lookup(addr: &Addr) -> Option<&'static IpcacheEntry> {
    if addr.is_v4() {
        maps::IPCACHE4.get(Key::new(32, addr.v4_be().to_ne_bytes()))
    } else {
        maps::IPCACHE6.get(Key::new(128, addr.octets()))
    }
}

/// Identity of an address.
#[inline(never)]
pub fn identity_of(addr: &Addr) -> u32 {
    // SAFETY: read at once.
    if let Some(local) = unsafe { maps::LOCALS.get(addr) } {
        return local.identity;
    }
    lookup(addr).map_or(identity::WORLD, |entry| entry.identity)
}

/// Identity of what is outside of the cluster.
#[inline(never)]
pub fn world(family: u8) -> u32 {
    let any = if family == 4 { Addr::from_v4_be(0) } else { Addr::NONE };
    lookup(&any).map_or(identity::WORLD, |entry| entry.identity)
}

/// Whether the entry is a node's own address.
#[inline(always)]
pub fn is_node(entry: &IpcacheEntry) -> bool {
    entry.flags & flags::NODE != 0
        || (entry.tunnel.is_none() && matches!(entry.identity, identity::REMOTE_NODE | identity::KUBE_APISERVER))
}

/// Whether its address is reached through the tunnel.
#[inline(always)]
pub fn is_behind_tunnel(entry: &IpcacheEntry) -> bool {
    !entry.tunnel.is_none() && entry.flags & flags::NODE == 0
}

/// Whether it is an address of another node.
#[inline(always)]
pub fn is_other_node(addr: &Addr) -> bool {
    node_of(addr).is_some()
}

/// The address that a node is known by, from any of its addresses.
#[inline(never)]
pub fn node_of(addr: &Addr) -> Option<Addr> {
    let entry = lookup(addr)?;
    if !is_node(entry) || is_local(addr) {
        return None;
    }
    Some(if entry.tunnel.is_none() { *addr } else { entry.tunnel })
}
