// SPDX-License-Identifier: Apache-2.0
//! A raw ICMP socket connected to one address, so that the kernel delivers only packets from there. Needs NET_RAW.

use super::Echo;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::io;
use std::net::IpAddr;
use tokio::net::UdpSocket;

/// Longer than any reply to our requests: an IPv4 header with options, and the message.
const PACKET: usize = 256;

/// Tokio's UDP socket serves for any datagram socket: connect, send and receive are the same calls.
pub(super) struct Socket(UdpSocket);

impl Socket {
    pub(super) fn open(address: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = std::net::UdpSocket::from(socket(family, SockType::Raw, flags, protocol)?);
        socket.connect((address, 0))?;
        UdpSocket::from_std(socket).map(Self)
    }

    pub(super) async fn send(&self, message: &[u8]) -> io::Result<()> {
        self.0.send(message).await.map(drop)
    }

    /// Waits for a reply and returns the sequence number of its request. An error reported for an earlier message also
    /// ends the wait.
    pub(super) async fn reply(&self, echo: &Echo) -> io::Result<u16> {
        let mut packet = [0; PACKET];
        loop {
            let length = self.0.recv(&mut packet).await?;
            if let Some(sequence) = packet.get(..length).and_then(|packet| echo.answered(packet)) {
                return Ok(sequence);
            }
        }
    }
}
