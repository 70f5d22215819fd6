// SPDX-License-Identifier: Apache-2.0
//! What we ask of netfilter: not to track the tunnel's own packets.
//!
//! To the host's connection tracking every flow in the tunnel is a new connection between two nodes, since its source port
//! is a hash of the flow (RFC 7348, 5). Wherever somebody has a rule on connections, as the kubelet has on every node, each
//! new connection of a pod would cost two entries on both nodes, and fill a table that the administrator sized for the host.
//!
//! The table is replaced whole, in one transaction (`linux/netfilter/nf_tables.h`, `nfnetlink.h`).

#[cfg(fuzzing)]
pub mod fuzz;
mod message;

use crate::{Error, Result};
use message::{Batch, Chain, Expression, Hook};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Our table, in the family that stands for IPv4 and IPv6.
const TABLE: &str = "cilium_tunnel";
/// How long the kernel may take for an answer, in seconds.
const PATIENCE: i64 = 5;
/// Larger than the answers to all messages of a batch.
const ANSWER: usize = 16 * 1024;

/// Has the host's connection tracking pass over what is sent to that UDP port, in the network namespace of the calling
/// thread. Doing so again changes nothing, and for another port changes the port.
///
/// # Errors
///
/// The kernel has no nf_tables, or refuses.
pub fn untrack_udp(port: u16) -> Result<()> {
    let mut batch = Batch::without(TABLE);
    batch.table(TABLE);
    for (name, hook) in [("incoming", Hook::Prerouting), ("outgoing", Hook::Output)] {
        batch.chain(&Chain { table: TABLE, name, hook });
        batch.rule(
            TABLE,
            name,
            &[
                Expression::LoadProtocol,
                Expression::Equals(&[libc::IPPROTO_UDP as u8]),
                Expression::LoadDestinationPort,
                Expression::Equals(&port.to_be_bytes()),
                Expression::NoTrack,
            ],
        );
    }
    commit("exempt the tunnel from connection tracking", batch)
}

/// Removes what [`untrack_udp`] has made, if anything. Where there is no nf_tables, there is nothing.
///
/// # Errors
///
/// The kernel refuses.
pub fn cleanup() -> Result<()> {
    match commit("remove the tunnel's netfilter table", Batch::without(TABLE)) {
        Err(Error::Netfilter { source, .. }) if is_absent(&source) => Ok(()),
        outcome => outcome,
    }
}

/// Whether the kernel was built without what we talk to.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn commit(operation: &'static str, batch: Batch) -> Result<()> {
    let last = batch.last();
    exchange(&batch.finish(), last).map_err(|source| Error::Netfilter { operation, source })
}

/// Sends a batch, and waits for the answer to its last message or the first refusal.
fn exchange(batch: &[u8], last: u32) -> io::Result<()> {
    let socket = open()?;
    sendto(socket.as_raw_fd(), batch, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER];
    loop {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        for (sequence, code) in message::answers(answer.get(..length).unwrap_or_default()) {
            match code {
                0 if sequence == last => return Ok(()),
                0 => {}
                code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
