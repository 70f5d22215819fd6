// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Telling user space what sockets remember (`cilium_lb_connected`): the kernel calls the program for each one of them, whatever its network
//! namespace, when somebody reads the file (Documentation/bpf/bpf_iterators.rst).

use abi::lb::{Connected, SocketMemory};
use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write};
use core::ffi::c_void;

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub struct Visit {
    meta: *const Meta,
    map: *const c_void,
    socket: *mut c_void,
    memory: *const Connected,
}

/// Head of `struct bpf_iter_meta`.
#[repr(C)]
pub struct Meta {
    file: *mut seq_file,
}

/// Writes one record. After the last one there is no socket.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
extern "C" fn sock_memory(visit: *const Visit) -> i32 {
    // SAFETY: the kernel passes a valid context; what may be absent is null.
    unsafe {
        let (socket, memory) = ((*visit).socket, (*visit).memory);
        if socket.is_null() || memory.is_null() {
            return 0;
        }
        let record = SocketMemory { cookie: bpf_get_socket_cookie(socket), connected: *memory };
        // What finds no room is shown again with the next read.
        bpf_seq_write((*(*visit).meta).file, (&raw const record).cast_mut().cast(), size_of::<SocketMemory>() as u32);
    }
    0
}
