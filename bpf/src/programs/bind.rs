// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Sockets of the host that are bound: a port at which the node serves is no one's, since what is sent there never reaches the socket.

use crate::config;
use crate::maps;
use crate::netns;
use abi::Addr;
use abi::lb::{ServiceKey, flags};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const EADDRINUSE: i32 = 98;
const ANY_IPV4: Addr = Addr::from_v4_be(0);

/// A socket is bound to an IPv4 address.
#[cgroup_sock(post_bind4)]
pub fn sock_post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: valid context.
    let addr = Addr::from_v4_be(unsafe { (*ctx.sock).src_ip4 });
    admit(ctx.sock, addr)
}

/// A socket is bound to an IPv6 address. One that is bound to any takes IPv4 as well, unless it says otherwise.
#[cgroup_sock(post_bind6)]
pub fn sock_post_bind6(ctx: SockContext) -> i32 {
    // SAFETY: valid context; volatile, because it is read word by word.
    let [a, b, c, d] = unsafe {
        let words = &raw const (*ctx.sock).src_ip6;
        [0, 1, 2, 3].map(|word| core::ptr::read_volatile(words.cast::<u32>().add(word)))
    };
    let addr = Addr { hi: (b as u64) << 32 | a as u64, lo: (d as u64) << 32 | c as u64 };
    match admit(ctx.sock, addr) {
        ALLOW if addr.is_none() => admit(ctx.sock, ANY_IPV4),
        answer => answer,
    }
}

#[inline(always)]
fn admit(socket: *mut bpf_sock, addr: Addr) -> i32 {
    if !config::on(&config::BIND_PROTECTION) || !netns::is_host(netns::of(socket.cast())) {
        return ALLOW;
    }
    // SAFETY: valid context.
    let (port, proto) = unsafe { ((*socket).src_port as u16, (*socket).protocol as u8) };
    if !(config::NODEPORT_MIN.load()..=config::NODEPORT_MAX.load()).contains(&port) {
        return ALLOW;
    }
    let key = ServiceKey { port: port.to_be(), proto, ..ServiceKey::mark(addr) };
    // SAFETY: read at once.
    let served = unsafe { maps::SERVICES.get(key) }.is_some_and(|service| service.flags & flags::NODE_PORT != 0);
    if !served {
        return ALLOW;
    }
    if config::on(&config::SET_RETVAL) {
        // SAFETY: no preconditions.
        unsafe { bpf_set_retval(-EADDRINUSE) };
    }
    REFUSE
}
