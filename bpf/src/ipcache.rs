// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Who an address is: a local endpoint, the node itself, or an identity from the address cache.

use crate::maps;
use crate::scratch::Scratch;
use abi::endpoint::flags;
use abi::flow::action;
use abi::ipcache::{self, IpcacheEntry};
use abi::{Addr, identity};
use aya_ebpf::maps::lpm_trie::Key;

/// The most specific entry for the address.
#[inline(always)]
pub fn lookup(addr: Addr) -> Option<&'static IpcacheEntry> {
    if addr.is_v4() {
        maps::IPCACHE4.get(Key::new(32, addr.v4_be().to_ne_bytes()))
    } else {
        maps::IPCACHE6.get(Key::new(128, addr.octets()))
    }
}

/// Identity of a source that is not a local pod.
#[inline(never)]
pub fn source_identity(addr: &Addr) -> u32 {
    // SAFETY: read at once.
    if let Some(local) = unsafe { maps::LOCALS.get(addr) } {
        return local.identity;
    }
    lookup(*addr).map_or(identity::WORLD, |entry| entry.identity)
}

/// Fills in the destination: identity, local endpoint and how it is reached, as far as addresses tell.
#[inline(never)]
pub fn resolve_destination(scratch: &mut Scratch) -> i32 {
    // SAFETY: read at once.
    if let Some(local) = unsafe { maps::LOCALS.get(scratch.dst) } {
        scratch.forward.dst_identity = local.identity;
        if local.flags & flags::HOST != 0 {
            scratch.dst_is_host = 1;
            scratch.forward.action = action::STACK;
            return 0;
        }
        scratch.forward.dst_endpoint = local.id;
        scratch.forward.action = action::LOCAL;
        scratch.forward.out_ifindex = local.ifindex;
        scratch.forward.dst_mac = local.mac;
        scratch.forward.src_mac = local.host_mac;
        scratch.dst_policy = local.policy;
        scratch.dst_flags = local.flags;
        return 0;
    }
    let Some(entry) = lookup(scratch.dst) else {
        scratch.forward.dst_identity = identity::WORLD;
        scratch.forward.action = action::NEIGH;
        return 0;
    };
    scratch.forward.dst_identity = entry.identity;
    scratch.no_masquerade = entry.flags & ipcache::flags::NO_MASQUERADE;
    if crate::config::on(&crate::config::TUNNEL) && !entry.tunnel.is_none() {
        scratch.forward.action = action::TUNNEL;
        scratch.forward.tunnel = entry.tunnel;
    } else {
        scratch.forward.action = action::NEIGH;
    }
    0
}
