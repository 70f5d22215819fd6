// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Sockets: a service's address becomes a backend's when a program connects or sends, so that its packets need no
//! translation; and back again where the program asks who its peer is.

use crate::config;
use crate::lb::{self, Choice};
use crate::maps;
use abi::Addr;
use abi::lb::{ReverseEntry, ReverseKey};
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// The address a system call names, in both families' form.
trait Named {
    fn addr(self) -> Addr;
    fn set_addr(self, addr: Addr);
}

#[derive(Clone, Copy)]
struct V4(*mut bpf_sock_addr);
#[derive(Clone, Copy)]
struct V6(*mut bpf_sock_addr);

impl Named for V4 {
    #[inline(always)]
    fn addr(self) -> Addr {
        // SAFETY: valid context.
        Addr::from_v4_be(unsafe { (*self.0).user_ip4 })
    }

    #[inline(always)]
    fn set_addr(self, addr: Addr) {
        // SAFETY: valid context.
        unsafe { (*self.0).user_ip4 = addr.v4_be() };
    }
}

impl Named for V6 {
    #[inline(always)]
    fn addr(self) -> Addr {
        // SAFETY: valid context; the words lie in memory in network order.
        unsafe {
            let [a, b, c, d] = [
                core::ptr::read_volatile(&raw const (*self.0).user_ip6[0]),
                core::ptr::read_volatile(&raw const (*self.0).user_ip6[1]),
                core::ptr::read_volatile(&raw const (*self.0).user_ip6[2]),
                core::ptr::read_volatile(&raw const (*self.0).user_ip6[3]),
            ];
            Addr { hi: (b as u64) << 32 | a as u64, lo: (d as u64) << 32 | c as u64 }
        }
    }

    #[inline(always)]
    fn set_addr(self, addr: Addr) {
        // SAFETY: valid context; volatile, because the context takes stores of one word only.
        unsafe {
            core::ptr::write_volatile(&raw mut (*self.0).user_ip6[0], addr.hi as u32);
            core::ptr::write_volatile(&raw mut (*self.0).user_ip6[1], (addr.hi >> 32) as u32);
            core::ptr::write_volatile(&raw mut (*self.0).user_ip6[2], addr.lo as u32);
            core::ptr::write_volatile(&raw mut (*self.0).user_ip6[3], (addr.lo >> 32) as u32);
        }
    }
}

#[inline(always)]
fn translate<N: Named + Copy>(ctx: *mut bpf_sock_addr, name: N) -> i32 {
    // SAFETY: valid context.
    let (port, proto) = unsafe { ((*ctx).user_port as u16, (*ctx).protocol as u8) };
    let asked = name.addr();
    match lb::choose(asked, port, proto) {
        Choice::NotAService => ALLOW,
        Choice::NoBackend => {
            if config::on(&config::SET_RETVAL) {
                // SAFETY: no preconditions.
                unsafe { bpf_set_retval(-ECONNREFUSED) };
            }
            REFUSE
        }
        Choice::Chosen(backend, _, service) => {
            let key = reverse_key(ctx, backend.addr, backend.port);
            let entry = ReverseEntry { addr: asked, port, pad: 0, service };
            // A full table evicts the oldest; without the entry the program sees its backend's address.
            let _ = maps::REVERSE_SOCKETS.insert(key, entry, 0);
            name.set_addr(backend.addr);
            // SAFETY: valid context.
            unsafe { (*ctx).user_port = backend.port as u32 };
            ALLOW
        }
    }
}

#[inline(always)]
fn restore<N: Named + Copy>(ctx: *mut bpf_sock_addr, name: N) -> i32 {
    // SAFETY: valid context.
    let port = unsafe { (*ctx).user_port as u16 };
    let key = reverse_key(ctx, name.addr(), port);
    // SAFETY: read at once.
    if let Some(entry) = unsafe { maps::REVERSE_SOCKETS.get(key) } {
        name.set_addr(entry.addr);
        // SAFETY: valid context.
        unsafe { (*ctx).user_port = entry.port as u32 };
    }
    ALLOW
}

#[inline(always)]
fn reverse_key(ctx: *mut bpf_sock_addr, addr: Addr, port: u16) -> ReverseKey {
    // SAFETY: valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.cast()) };
    ReverseKey { cookie, addr, port, pad: [0; 6] }
}

macro_rules! socket_programs {
    ($($(#[$meta:meta])* $name:ident ($hook:ident) = $family:ident, $does:ident;)+) => {
        $(
            $(#[$meta])*
            #[cgroup_sock_addr($hook)]
            pub fn $name(ctx: SockAddrContext) -> i32 {
                $does(ctx.sock_addr, $family(ctx.sock_addr))
            }
        )+
    };
}

socket_programs! {
    /// IPv4 `connect`.
    sock_connect4 (connect4) = V4, translate;
    /// IPv6 `connect`.
    sock_connect6 (connect6) = V6, translate;
    /// IPv4 `sendmsg` of an unconnected socket.
    sock_sendmsg4 (sendmsg4) = V4, translate;
    /// IPv6 `sendmsg` of an unconnected socket.
    sock_sendmsg6 (sendmsg6) = V6, translate;
    /// IPv4 `recvmsg`.
    sock_recvmsg4 (recvmsg4) = V4, restore;
    /// IPv6 `recvmsg`.
    sock_recvmsg6 (recvmsg6) = V6, restore;
    /// IPv4 `getpeername`.
    sock_getpeername4 (getpeername4) = V4, restore;
    /// IPv6 `getpeername`.
    sock_getpeername6 (getpeername6) = V6, restore;
}
