// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Network namespaces of sockets.

use crate::config;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;

/// The cookie of the network namespace that the context's socket is in.
#[inline(always)]
pub fn of(context: *mut core::ffi::c_void) -> u64 {
    // SAFETY: valid context.
    unsafe { bpf_get_netns_cookie(context) }
}

/// Whether it is the host's.
#[inline(always)]
pub fn is_host(cookie: u64) -> bool {
    let known = config::HOST_NETNS.load();
    // Without a context it is the machine's first one.
    cookie == if known != 0 { known } else { of(core::ptr::null_mut()) }
}
