// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Telling user space that a socket was translated: which service it named, and which backend that became.
//!
//! A system call costs its caller nothing and may be made without end, so what sockets do is told of once in a while where it repeats itself
//! (`abi::told`), and finds no room where it would take that of packets.

use crate::config;
use crate::epochs;
use crate::events;
use crate::maps;
use crate::netns;
use abi::Addr;
use abi::event::{Event, SocketEvent, kind};
use abi::identity;
use abi::lb::Connected;
use abi::told;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_socket_cookie, bpf_ktime_get_ns};

/// Tells of a translation, before or after it has been made, at a point of `abi::event::translation`.
#[inline(always)]
pub fn translated(context: *mut bpf_sock_addr, translation: &Connected, point: u8) {
    if config::on(&config::TRACE_SOCKETS) {
        tell(context, translation, point);
    }
}

#[inline(never)]
fn tell(context: *mut bpf_sock_addr, translation: &Connected, point: u8) -> i32 {
    // SAFETY: valid context.
    let cookie = unsafe { bpf_get_socket_cookie(context.cast()) };
    if !is_news(told::which(cookie, translation, point)) {
        return 0;
    }
    let Some(mut room) = events::reserve_in_half() else { return 0 };
    let netns = netns::of(context.cast());
    // SAFETY: valid context, whose socket is one.
    let (proto, port) = unsafe { ((*context).protocol, (*(*context).__bindgen_anon_1.sk).src_port) };
    let event = SocketEvent {
        // SAFETY: no preconditions.
        time: unsafe { bpf_ktime_get_ns() },
        src: Addr::NONE,
        dst: translation.backend,
        cookie,
        // SAFETY: no preconditions.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        dst_orig: translation.frontend,
        sport: (port as u16).to_be(),
        dport: translation.backend_port,
        dport_orig: translation.frontend_port,
        pad: [0; 10],
        src_identity: if netns::is_host(netns) { identity::HOST } else { identity::UNKNOWN },
        dst_identity: identity::UNKNOWN,
        src_endpoint: 0,
        dst_endpoint: 0,
        pad2: [0; 12],
        netns,
        pad3: 0,
        kind: kind::TRACE_SOCK,
        point,
        reason: 0,
        proto: proto as u8,
        pad4: [0; 4],
    };
    room.entry.write(Event::from(event));
    events::submit(room);
    0
}

/// Whether user space does not know of it yet. Packets are told of in the same intervals.
#[inline(always)]
fn is_news(which: u64) -> bool {
    let Some(told) = maps::SOCKETS_TOLD.get_ptr_mut(told::slot(which)) else { return false };
    // SAFETY: array values are never freed. Two processors that write at once tell once more, or once less.
    unsafe { (*told).admit(which, epochs::now(), config::EVENT_INTERVAL.load()) }
}
