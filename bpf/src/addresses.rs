// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What an address is on this node, or by itself: the node's, a pod's, everybody's or nobody's.

use crate::maps;
use abi::Addr;
use abi::endpoint::flags;

/// Whether it is an address of this node or of a pod on it.
#[inline(always)]
pub fn is_local(addr: &Addr) -> bool {
    maps::LOCALS.get_ptr(addr).is_some()
}

/// Whether it is an address of this node itself.
#[inline(always)]
pub fn is_host(addr: &Addr) -> bool {
    // SAFETY: read at once.
    unsafe { maps::LOCALS.get(addr) }.is_some_and(|local| local.flags & flags::HOST != 0)
}

/// Whether it is the address of a pod of this node.
#[inline(always)]
pub fn is_pod(addr: &Addr) -> bool {
    // SAFETY: read at once.
    unsafe { maps::LOCALS.get(addr) }.is_some_and(|local| local.flags & flags::HOST == 0)
}

/// Whether it means whoever speaks to it.
#[inline(always)]
pub fn is_loopback(addr: &Addr) -> bool {
    if addr.is_v4() {
        let [first, ..] = addr.v4_be().to_ne_bytes();
        return first == 127;
    }
    *addr == Addr { hi: 0, lo: 1u64.to_be() }
}

/// Whether it stands for no address (RFC 1122, 3.2.1.3; RFC 4291, 2.5.2).
#[inline(always)]
pub fn is_nobody(addr: &Addr) -> bool {
    if addr.is_v4() {
        let [first, ..] = addr.v4_be().to_ne_bytes();
        return first == 0;
    }
    addr.is_none()
}

/// Whether it is the address of a group, or of everybody on the link.
#[inline(always)]
pub fn is_for_all(addr: &Addr) -> bool {
    if addr.is_v4() {
        let [first, ..] = addr.v4_be().to_ne_bytes();
        return first & 0xf0 == 0xe0 || addr.v4_be() == u32::MAX;
    }
    let [first, ..] = addr.hi.to_ne_bytes();
    first == 0xff
}
