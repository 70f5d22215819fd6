// SPDX-License-Identifier: Apache-2.0
//! Ports for tests that have to know a port before somebody listens on it.
//!
//! A port that the kernel has just given out and taken back is not free: the next connection of any test may leave from it. These are below
//! what the kernel gives out by itself, and reserved among all processes of the network namespace for as long as the one that asked lives.
#![allow(clippy::panic, reason = "a test without a port has failed")]

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the kernel's default `ip_local_port_range` and below the node ports of Kubernetes.
const PORTS: Range<u16> = 20_000..30_000;

/// A port on which nobody listens, on no address, and which no other caller is given while this process lives.
pub fn free() -> u16 {
    let mut reserved = PORTS.filter_map(|port| Some((port, reserve(port)?)));
    let Some((port, reservation)) = reserved.find(|(port, _)| is_free(*port)) else {
        panic!("all ports from {} to {} are in use", PORTS.start, PORTS.end - 1)
    };
    // The kernel gives the name back when the process ends.
    std::mem::forget(reservation);
    port
}

/// A name that stands for the port among all processes: that of an abstract socket.
fn reserve(port: u16) -> Option<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("cilium-rs/tests/port/{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

fn is_free(port: u16) -> bool {
    let (ipv4, ipv6) = ((Ipv4Addr::UNSPECIFIED, port), (Ipv6Addr::LOCALHOST, port));
    TcpListener::bind(ipv4).is_ok()
        && UdpSocket::bind(ipv4).is_ok()
        && TcpListener::bind(ipv6).is_ok()
        && UdpSocket::bind(ipv6).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_never_by_the_kernel() {
        let (first, second) = (free(), free());
        assert_ne!(first, second);
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(first < lowest && second < lowest);
        assert!(reserve(first).is_none(), "another process is refused");
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_left_out() {
        let taken = free();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        assert!(!is_free(taken));
    }
}
