// SPDX-License-Identifier: Apache-2.0
//! Listening sockets, here or in another network namespace: a socket stays in the one where it was created.

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tokio::net::TcpListener;

/// Opens a listener.
pub(super) fn listen(address: SocketAddr, netns: Option<&OwnedFd>) -> io::Result<TcpListener> {
    let fd = match netns {
        None => open(address)?,
        Some(netns) => {
            let opened = datapath::netns::run(netns.as_fd(), || open(address));
            opened.map_err(|error| io::Error::other(statedb::with_causes(&error)))??
        }
    };
    TcpListener::from_std(fd.into())
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    // Do not wait for lingering connections of an earlier process.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // The IPv6 wildcard would cover IPv4 too, which has its own socket.
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    nix::sys::socket::listen(&fd, Backlog::new(1024)?)?;
    Ok(fd)
}
