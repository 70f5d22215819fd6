// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Redirects at tc: what becomes of them, and the one to a neighbour.

use crate::verdict::Verdict;
use abi::{Addr, DropReason};
use aya_ebpf::bindings::{TC_ACT_REDIRECT, bpf_redir_neigh};
use aya_ebpf::helpers::generated::bpf_redirect_neigh;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// What became of a redirect.
#[inline(always)]
pub fn redirected(result: i64) -> Verdict {
    if result == TC_ACT_REDIRECT as i64 { Verdict::Sent } else { Verdict::Drop(DropReason::FibLookupFailed) }
}

/// Out of a device, to the neighbour, or to where the kernel's routes lead when none is named.
#[inline(always)]
pub fn to_neighbour(ifindex: u32, hop: &Addr) -> Verdict {
    if hop.is_none() {
        // SAFETY: no parameters: the kernel looks the next hop up itself.
        return redirected(unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) });
    }
    // SAFETY: all-zero is valid.
    let mut to: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    if hop.is_v4() {
        to.nh_family = AF_INET;
        to.__bindgen_anon_1.ipv4_nh = hop.v4_be();
    } else {
        to.nh_family = AF_INET6;
        to.__bindgen_anon_1.ipv6_nh = [hop.hi as u32, (hop.hi >> 32) as u32, hop.lo as u32, (hop.lo >> 32) as u32];
    }
    // SAFETY: valid parameters of the stated size.
    redirected(unsafe { bpf_redirect_neigh(ifindex, &mut to, size_of::<bpf_redir_neigh>() as i32, 0) })
}
