// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Sockets: a service's address becomes a backend's when a program connects or sends, so that its packets need no
//! translation; and back again where the program asks who its peer is.
//!
//! A socket that connects remembers the service itself, in its own storage (`cilium_lb_connected`). One that sends without connecting may
//! talk to many: what it sent to is in a table of all such sockets (`cilium_lb_reverse_sk`), which only `recvmsg` reads.

use crate::config;
use crate::lb::{self, Client};
use crate::maps;
use crate::netns;
use crate::sock_events;
use abi::Addr;
use abi::event::translation::{FORWARD, REVERSE};
use abi::flow::proto;
use abi::lb::{Backend, Connected, ReverseEntry, ReverseKey, flags};
use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
/// `BPF_TCP_ESTABLISHED`, which connected datagram sockets are in too.
const ESTABLISHED: u32 = 1;

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

/// What an address and port stand for.
enum Choice {
    /// Themselves.
    NotAService,
    /// Nothing: the address is a service's at other ports.
    NotServed,
    /// A service without a backend.
    NoBackend,
    /// This backend, of the service of that id.
    Chosen(&'static Backend, u32),
}

/// What the system call's address and port stand for.
#[inline(always)]
fn choose(ctx: &SockAddrContext, addr: Addr) -> Choice {
    let netns = netns::of(ctx.sock_addr.cast());
    let of_host = netns::is_host(netns);
    if config::on(&config::SOCKETS_OF_HOST_ONLY) && !of_host {
        return Choice::NotAService;
    }
    let (port, proto) = asked(ctx);
    let Some(service) = lb::inside(addr, port, proto, of_host) else {
        return if lb::is_unserved(&addr) { Choice::NotServed } else { Choice::NotAService };
    };
    // The address that a pod's socket will have is not known yet; the program at its interface sees it.
    let left_alone = if of_host { flags::PODS_ONLY } else { flags::SPARES_BACKENDS | flags::SOURCE_RANGES };
    let mut service = service;
    if service.flags & left_alone != 0 {
        // No program would see the packets of the host's sockets.
        match lb::unredirected(addr, port, proto) {
            Some(spared) if of_host => service = spared,
            _ => return Choice::NotAService,
        }
    }
    let client = Client { addr: Addr { hi: 0, lo: netns }, is_cookie: true, connection: lb::random() };
    match lb::choose(service, &client) {
        Some((backend, _)) => Choice::Chosen(backend, service.id),
        None => Choice::NoBackend,
    }
}

/// The socket is to be connected: it remembers itself by which name.
#[inline(always)]
fn connect<N: Named + Copy>(ctx: &SockAddrContext, name: N) -> i32 {
    let (port, proto) = asked(ctx);
    match choose(ctx, name.addr()) {
        // Connecting a datagram socket sends nothing and is how a source address is asked for, at any port: resolvers do, and ping. Only
        // a stream is refused at once where nobody serves; what the others send is dropped on its way.
        Choice::NotServed if proto == proto::TCP => refuse(),
        Choice::NotAService | Choice::NotServed => {
            forget(ctx);
            ALLOW
        }
        Choice::NoBackend => refuse(),
        Choice::Chosen(backend, service) => {
            let (frontend, frontend_port) = (name.addr(), port);
            let (backend, backend_port) = (backend.addr, backend.port);
            let connected = Connected { backend, frontend, backend_port, frontend_port, service };
            remember(ctx, connected);
            sock_events::translated(ctx.sock_addr, &connected, FORWARD);
            rename(ctx, name, backend, backend_port);
            ALLOW
        }
    }
}

/// An unconnected socket sends: one socket may talk to many services.
#[inline(always)]
fn send<N: Named + Copy>(ctx: &SockAddrContext, name: N) -> i32 {
    let frontend = name.addr();
    match choose(ctx, frontend) {
        Choice::NotAService => ALLOW,
        Choice::NotServed | Choice::NoBackend => refuse(),
        Choice::Chosen(backend, service) => {
            let key = reverse_key(ctx, backend.addr, backend.port);
            let frontend_port = asked(ctx).0;
            let entry = ReverseEntry { addr: frontend, port: frontend_port, pad: 0, service };
            // A full table evicts the oldest; without the entry the program sees its backend's address.
            let _ = maps::REVERSE_SOCKETS.insert(key, entry, 0);
            let sent =
                Connected { backend: backend.addr, frontend, backend_port: backend.port, frontend_port, service };
            sock_events::translated(ctx.sock_addr, &sent, FORWARD);
            rename(ctx, name, sent.backend, sent.backend_port);
            ALLOW
        }
    }
}

/// Where a datagram came from: of a connected socket, or of one that has sent there.
#[inline(always)]
fn sender<N: Named + Copy>(ctx: &SockAddrContext, name: N) -> i32 {
    // After a connection to no family, which no program sees, the memory of it is still there.
    if is_connected(ctx) && connection(ctx, name) {
        return ALLOW;
    }
    let (port, _) = asked(ctx);
    let key = reverse_key(ctx, name.addr(), port);
    // SAFETY: read at once.
    if let Some(&ReverseEntry { addr: frontend, port: frontend_port, service, .. }) =
        unsafe { maps::REVERSE_SOCKETS.get(key) }
    {
        let heard = Connected { backend: key.addr, frontend, backend_port: key.port, frontend_port, service };
        sock_events::translated(ctx.sock_addr, &heard, REVERSE);
        rename(ctx, name, frontend, frontend_port);
    }
    ALLOW
}

/// Who the peer is. Most who ask have accepted their connection and remember nothing, which costs one read.
#[inline(always)]
fn peer<N: Named + Copy>(ctx: &SockAddrContext, name: N) -> i32 {
    connection(ctx, name);
    ALLOW
}

/// Puts the service's name in place of the backend that the socket is connected to.
#[inline(always)]
fn connection<N: Named + Copy>(ctx: &SockAddrContext, name: N) -> bool {
    // SAFETY: the context's socket is one; the value is part of it.
    let Some(known) = (unsafe { maps::CONNECTED.get_ptr_mut(ctx).as_ref() }) else { return false };
    let (port, _) = asked(ctx);
    let same = known.backend == name.addr() && known.backend_port == port;
    if same {
        sock_events::translated(ctx.sock_addr, known, REVERSE);
        rename(ctx, name, known.frontend, known.frontend_port);
    }
    same
}

/// Without memory for it, the program sees its backend's address.
#[inline(always)]
fn remember(ctx: &SockAddrContext, mut connected: Connected) {
    // SAFETY: the context's socket is one; it is locked, so nobody else writes or reads its value.
    unsafe {
        let value = maps::CONNECTED.get_or_insert_ptr_mut(ctx, Some(&mut connected));
        if let Some(value) = value.as_mut() {
            // What is there from another connection is not replaced by the kernel.
            *value = connected;
        }
    }
}

#[inline(always)]
fn forget(ctx: &SockAddrContext) {
    // SAFETY: valid context, and its socket is one.
    let _ = unsafe { maps::CONNECTED.delete(socket(ctx)) };
}

#[inline(always)]
fn is_connected(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context's socket is one.
    unsafe { (*socket(ctx)).state == ESTABLISHED }
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: valid context.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// Port and protocol that the system call names.
#[inline(always)]
fn asked(ctx: &SockAddrContext) -> (u16, u8) {
    // SAFETY: valid context.
    unsafe { ((*ctx.sock_addr).user_port as u16, (*ctx.sock_addr).protocol as u8) }
}

#[inline(always)]
fn rename<N: Named>(ctx: &SockAddrContext, name: N, addr: Addr, port: u16) {
    name.set_addr(addr);
    // SAFETY: valid context.
    unsafe { (*ctx.sock_addr).user_port = port as u32 };
}

#[inline(always)]
fn refuse() -> i32 {
    if config::on(&config::SET_RETVAL) {
        // SAFETY: no preconditions.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    REFUSE
}

#[inline(always)]
fn reverse_key(ctx: &SockAddrContext, addr: Addr, port: u16) -> ReverseKey {
    // SAFETY: valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    ReverseKey { cookie, addr, port, pad: [0; 6] }
}

macro_rules! socket_programs {
    ($($(#[$meta:meta])* $name:ident ($hook:ident) = $family:ident, $does:ident;)+) => {
        $(
            $(#[$meta])*
            #[cgroup_sock_addr($hook)]
            pub fn $name(ctx: SockAddrContext) -> i32 {
                $does(&ctx, $family(ctx.sock_addr))
            }
        )+
    };
}

socket_programs! {
    /// IPv4 `connect`.
    sock_connect4 (connect4) = V4, connect;
    /// IPv6 `connect`.
    sock_connect6 (connect6) = V6, connect;
    /// IPv4 `sendmsg` of an unconnected socket.
    sock_sendmsg4 (sendmsg4) = V4, send;
    /// IPv6 `sendmsg` of an unconnected socket.
    sock_sendmsg6 (sendmsg6) = V6, send;
    /// IPv4 `recvmsg`.
    sock_recvmsg4 (recvmsg4) = V4, sender;
    /// IPv6 `recvmsg`.
    sock_recvmsg6 (recvmsg6) = V6, sender;
    /// IPv4 `getpeername`.
    sock_getpeername4 (getpeername4) = V4, peer;
    /// IPv6 `getpeername`.
    sock_getpeername6 (getpeername6) = V6, peer;
}
