// SPDX-License-Identifier: Apache-2.0
//! The number by which programs know a network namespace.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// `SO_NETNS_COOKIE` (5.14).
const SO_NETNS_COOKIE: i32 = 71;

/// The cookie of the calling thread's network namespace; 0 when the kernel does not tell.
pub(crate) fn cookie() -> u64 {
    let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::", 0))) else { return 0 };
    let (mut cookie, mut len) = (0_u64, size_of::<u64>() as u32);
    let (value, size) = (std::ptr::from_mut(&mut cookie), std::ptr::from_mut(&mut len));
    // SAFETY: the option is a number of eight bytes, for which there is room.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, value.cast(), size) };
    if result == 0 { cookie } else { 0 }
}
