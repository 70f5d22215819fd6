// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Pods of this node: the addresses that they may have, and whose packets come from an interface.

use crate::maps;
use abi::Addr;
use abi::endpoint::{Endpoint, flags};
use abi::flow::{Flow, origin};

/// Whether a pod may send from that address.
#[inline(always)]
pub fn owns(pod: &Endpoint, addr: &Addr) -> bool {
    let own = if addr.is_v4() { pod.ipv4 } else { pod.ipv6 };
    (*addr == own && !own.is_none()) || pod.flags & flags::ANY_SOURCE != 0
}

/// The pod whose packets the host's stack sends on, under whatever address.
#[inline(always)]
pub fn forwarded(from: u32) -> Option<&'static Endpoint> {
    if from & origin::STACK == 0 {
        return None;
    }
    // SAFETY: read at once.
    unsafe { maps::ENDPOINTS.get(from & origin::IFINDEX) }
}

/// The pod behind an interface that a flow came from, if it is still the one that opened it.
#[inline(always)]
pub fn opener(known: &Flow, src: &Addr) -> Option<&'static Endpoint> {
    // SAFETY: read at once.
    let pod = unsafe { maps::ENDPOINTS.get(known.forward.origin & origin::IFINDEX) }?;
    if pod.id == known.src_endpoint && owns(pod, src) { Some(pod) } else { None }
}
