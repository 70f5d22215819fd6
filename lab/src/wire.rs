// SPDX-License-Identifier: Apache-2.0
//! For tests: a device of a namespace with nothing in between: frames go out as they are given, and all that arrive are seen. What sends so needs NET_RAW and
//! nothing else.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket};

use crate::netns::Netns;

/// A hardware address.
pub type Mac = [u8; 6];

/// Timeout of a read: how soon the reader notices that it should stop.
const TICK: Duration = Duration::from_millis(50);
/// Buffer for frames that arrive while nobody reads.
const BUFFER: usize = 32 << 20;
/// `PACKET_OTHERHOST` and `PACKET_OUTGOING` of `linux/if_packet.h`.
const NOT_FOR_US: [u8; 2] = [3, 4];

/// One end of a cable.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    mac: Mac,
}

impl Wire {
    /// To send on a device.
    pub fn sending(netns: &Netns, device: &str) -> Result<Self> {
        Self::open(netns, device, None)
    }

    /// To see what arrives on a device.
    pub fn listening(netns: &Netns, device: &str) -> Result<Self> {
        let wire = Self::open(netns, device, Some(SockProtocol::EthAll))?;
        setsockopt(&wire.socket, RcvBufForce, &BUFFER).context("no room for what arrives")?;
        wire.socket.set_read_timeout(Some(TICK))?;
        Ok(wire)
    }

    fn open(netns: &Netns, device: &str, protocol: Option<SockProtocol>) -> Result<Self> {
        netns.run(|| {
            let address = address(device)?;
            let mac = address.addr().with_context(|| format!("{device} has no hardware address"))?;
            let socket: OwnedFd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
                .context("no raw socket")?;
            bind(socket.as_raw_fd(), &address).with_context(|| format!("cannot bind to {device}"))?;
            // This type can send on any socket and set its timeouts.
            Ok(Self { socket: socket.into(), mac })
        })
    }

    /// The device's hardware address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// The next frame that arrives within a moment; neither those sent here nor those for others.
    pub fn receive<'room>(&self, room: &'room mut [u8]) -> Option<&'room [u8]> {
        let (length, from) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), room).ok()?;
        let for_us = from.is_some_and(|from| !NOT_FOR_US.contains(&from.pkttype()));
        if for_us { room.get(..length) } else { None }
    }
}

/// The hardware address of a device of this namespace.
fn address(device: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().context("cannot list the devices")?.filter(|one| one.interface_name == device);
    let found = all.find_map(|one| one.address?.as_link_addr().copied());
    found.ok_or_else(|| anyhow!("there is no device {device}"))
}
