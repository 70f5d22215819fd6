// SPDX-License-Identifier: Apache-2.0
//! Numbered messages, each of which must come back.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::PACE;
use crate::clock;
use crate::netns::Netns;

/// Read timeout; nothing is lost because of it.
const TICK: Duration = Duration::from_millis(50);
/// How long the last messages may take.
const LAST: Duration = Duration::from_secs(2);
/// Echo requests of ICMP (RFC 792) and ICMPv6 (RFC 4443). The kernel fills in the checksum and the identifier of a ping socket.
const REQUESTS: [[u8; 8]; 2] = [[8, 0, 0, 0, 0, 0, 0, 0], [128, 0, 0, 0, 0, 0, 0, 0]];

/// Datagrams, which a socket of the server sends back.
pub(super) fn datagrams(
    client: &Netns,
    server: &Netns,
    to: SocketAddr,
    stop: &Arc<AtomicBool>,
) -> Result<JoinHandle<Result<()>>> {
    let echo = server.datagrams(to)?;
    echo.set_read_timeout(Some(TICK))?;
    let socket = client.run(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    let (over, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (done, count) = (Arc::clone(&over), Arc::clone(&arrived));
    thread::spawn(move || {
        let mut room = [0; 4];
        while !done.load(Ordering::Relaxed) {
            if let Ok((_, from)) = echo.recv_from(&mut room) {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = echo.send_to(&room, from);
            }
        }
    });
    let load = send_and_receive(socket, &[], stop)?;
    Ok(thread::spawn(move || {
        let outcome = load.join().unwrap_or_else(|_| Err(anyhow!("a thread ended")));
        over.store(true, Ordering::Relaxed);
        outcome.with_context(|| format!("{} arrived", arrived.load(Ordering::Relaxed)))
    }))
}

/// Echo requests, which the server's kernel answers.
pub(super) fn pings(client: &Netns, to: IpAddr, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let (family, protocol, request) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, &REQUESTS[0]),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, &REQUESTS[1]),
    };
    let socket = client.run(|| {
        // The group range allowed to open ping sockets, for both families; empty unless the container runtime sets it.
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").context("cannot allow ping sockets")?;
        let socket = UdpSocket::from(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?);
        socket.connect(SocketAddr::new(to, 0))?;
        Ok(socket)
    })?;
    send_and_receive(socket, request, stop)
}

/// Sends a header with a number, then the next, until stopped; fails if one did not come back.
fn send_and_receive(
    socket: UdpSocket,
    header: &'static [u8],
    stop: &Arc<AtomicBool>,
) -> Result<JoinHandle<Result<()>>> {
    socket.set_read_timeout(Some(TICK))?;
    let (over, back) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let receiver = thread::spawn({
        let (socket, over, back) = (socket.try_clone()?, Arc::clone(&over), Arc::clone(&back));
        move || receive(&socket, header.len(), &over, &back)
    });
    let stop = Arc::clone(stop);
    Ok(thread::spawn(move || {
        let (mut sent, mut refused) = (0u32, 0);
        while !stop.load(Ordering::Relaxed) {
            refused += u32::from(socket.send(&[header, &sent.to_be_bytes()].concat()).is_err());
            sent += 1;
            clock::breathe(PACE);
        }
        let last = clock::poll(LAST, "the last messages", || {
            ensure!(back.load(Ordering::Relaxed) >= sent, "on their way");
            Ok(())
        });
        drop(last);
        over.store(true, Ordering::Relaxed);
        let came_back = receiver.join().map_err(|_| anyhow!("a thread ended"))?;
        let lost: Vec<u32> = (0..sent).filter(|number| !came_back.contains(number)).collect();
        let (first, last) = (lost.first(), lost.last());
        ensure!(
            lost.is_empty() && refused == 0,
            "{sent} sent ({refused} refused), {} came back; lost from {first:?} to {last:?}",
            came_back.len()
        );
        Ok(())
    }))
}

/// Reads the numbers behind headers of this length until stopped; `back` counts them.
fn receive(socket: &UdpSocket, header: usize, over: &AtomicBool, back: &AtomicU32) -> BTreeSet<u32> {
    let (mut numbers, mut room) = (BTreeSet::new(), [0; 64]);
    while !over.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut room) else { continue };
        if let Some(number) = room.get(header..length).and_then(|rest| rest.first_chunk()) {
            back.fetch_add(u32::from(numbers.insert(u32::from_be_bytes(*number))), Ordering::Relaxed);
        }
    }
    numbers
}
