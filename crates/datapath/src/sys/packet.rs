// SPDX-License-Identifier: Apache-2.0
//! packet(7): sockets that send frames and receive none.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A socket of no protocol.
pub(crate) fn open() -> io::Result<OwnedFd> {
    // SAFETY: plain values; a new descriptor has no other owner.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Sends a frame, with its Ethernet header, out of a device.
pub(crate) fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all-zero is valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    to.sll_ifindex = index(ifindex)?;
    let size = libc::socklen_t::try_from(size_of_val(&to)).unwrap_or_default();
    // SAFETY: both live until the call returns, and their sizes are passed along.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), size)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the device receive what is sent to that hardware address, until it is left or the socket closes.
pub(crate) fn join(socket: &OwnedFd, ifindex: u32, group: [u8; 6]) -> io::Result<()> {
    membership(socket, libc::PACKET_ADD_MEMBERSHIP, ifindex, group)
}

pub(crate) fn leave(socket: &OwnedFd, ifindex: u32, group: [u8; 6]) -> io::Result<()> {
    membership(socket, libc::PACKET_DROP_MEMBERSHIP, ifindex, group)
}

fn membership(socket: &OwnedFd, option: libc::c_int, ifindex: u32, [a, b, c, d, e, f]: [u8; 6]) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index(ifindex)?,
        mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).unwrap_or_default(),
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    let size = libc::socklen_t::try_from(size_of_val(&request)).unwrap_or_default();
    // SAFETY: the structure lives until the call returns, and its size is passed along.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const request).cast(), size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}
