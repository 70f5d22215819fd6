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

use crate::frame::Mac;
use crate::netns::Netns;

/// For the socket's read: how soon one notices that nobody looks any more.
const TICK: Duration = Duration::from_millis(50);
/// Room for what arrives while nobody reads.
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
            // Any socket can be sent on and given a deadline through this type.
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

    /// The next frame that arrives here, if one does within a moment; neither what was sent here nor what is for others.
    pub fn receive<'room>(&self, room: &'room mut [u8]) -> Option<&'room [u8]> {
        let (length, from) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), room).ok()?;
        let for_us = from.is_some_and(|from| !NOT_FOR_US.contains(&from.pkttype()));
        if for_us { room.get(..length) } else { None }
    }
}

/// The address of a device of this namespace, by its name.
fn address(device: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().context("cannot list the devices")?.filter(|one| one.interface_name == device);
    let found = all.find_map(|one| one.address?.as_link_addr().copied());
    found.ok_or_else(|| anyhow!("there is no device {device}"))
}
