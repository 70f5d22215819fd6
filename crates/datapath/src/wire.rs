// SPDX-License-Identifier: Apache-2.0
//! The links behind the node's devices, spoken to in frames: telling everybody where an address is, and hearing those who ask for it.

mod frames;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

use crate::netlink::Mac;
use crate::sys::packet;
use crate::{Error, Result};

/// What addresses that a node announces need of its links. Implemented by the real ones ([`Links`]) and by [`crate::fake::Wire`].
pub trait Wire: Debug + Send + Sync {
    /// The clock by which `abi::l2::Announced` ends: time since boot, with that of suspension.
    fn since_boot(&self) -> Duration;

    /// Tells everybody on a link that an address is at that hardware address now: by a gratuitous ARP request (RFC 5227, 3), or by an
    /// unsolicited neighbour advertisement (RFC 4861, 7.2.6).
    fn announce(&self, ifindex: u32, mac: Mac, address: IpAddr) -> Result<()>;

    /// Has the device receive what is sent to the group of those who look for an IPv6 address (RFC 4291, 2.7.1), until [`ignore`](Self::ignore)
    /// or the end of the process. IPv4 addresses are looked for by broadcast.
    fn listen(&self, ifindex: u32, address: IpAddr) -> Result<()>;

    /// The end of [`listen`](Self::listen). What is absent is ignored already.
    fn ignore(&self, ifindex: u32, address: IpAddr) -> Result<()>;
}

/// The links of a network namespace.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
    /// Addresses by the group that they are looked for in.
    groups: Mutex<BTreeMap<(u32, Mac), BTreeSet<Ipv6Addr>>>,
}

impl Links {
    /// Those of the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// No packet socket can be opened.
    pub fn open() -> Result<Self> {
        let socket = packet::open().map_err(|source| failed("open a packet socket", 0, source))?;
        Ok(Self { socket, groups: Mutex::default() })
    }
}

impl Wire for Links {
    fn since_boot(&self) -> Duration {
        // This clock cannot fail; an entry that has ended is the safe answer if it does.
        clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
    }

    fn announce(&self, ifindex: u32, mac: Mac, address: IpAddr) -> Result<()> {
        let sent = match address {
            IpAddr::V4(address) => packet::send(&self.socket, ifindex, &frames::gratuitous_arp(mac, address)),
            IpAddr::V6(address) => packet::send(&self.socket, ifindex, &frames::advertisement(mac, address)),
        };
        sent.map_err(|source| failed("announce an address", ifindex, source))
    }

    fn listen(&self, ifindex: u32, address: IpAddr) -> Result<()> {
        let IpAddr::V6(address) = address else { return Ok(()) };
        let (mut groups, group) = (self.groups.lock(), frames::group(address));
        if !groups.contains_key(&(ifindex, group)) {
            packet::join(&self.socket, ifindex, group.0).map_err(|source| failed("join a group", ifindex, source))?;
        }
        groups.entry((ifindex, group)).or_default().insert(address);
        Ok(())
    }

    fn ignore(&self, ifindex: u32, address: IpAddr) -> Result<()> {
        let IpAddr::V6(address) = address else { return Ok(()) };
        let (mut groups, group) = (self.groups.lock(), frames::group(address));
        let Some(addresses) = groups.get_mut(&(ifindex, group)) else { return Ok(()) };
        addresses.remove(&address);
        if addresses.is_empty() {
            groups.remove(&(ifindex, group));
            // A device that has gone has left its groups.
            let left = packet::leave(&self.socket, ifindex, group.0);
            left.or_else(
                |error| if is_absence(&error) { Ok(()) } else { Err(failed("leave a group", ifindex, error)) },
            )?;
        }
        Ok(())
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EADDRNOTAVAIL))
}

fn failed(operation: &'static str, ifindex: u32, source: io::Error) -> Error {
    Error::Wire { operation, ifindex, source }
}
