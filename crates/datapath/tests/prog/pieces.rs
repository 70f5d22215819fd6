// SPDX-License-Identifier: Apache-2.0
//! Packets whose headers are not all in the part that programs read directly, as network cards deliver them.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use abi::config::ProgramConfig;
use abi::maps::Metrics;
use abi::metrics::slot;
use abi::policy::{EGRESS, INGRESS};
use datapath::Kernel;
use datapath::bpf::{Direction, Options, Program};
use tokio::time::Instant;

use crate::devices::{NODE_MAC, here};
use crate::packet::{Packet, SYN};
use crate::wire::vxlan;
use crate::world::{Family, REMOTE_IDENTITY, World, families, full};

/// A device whose packets come in pieces.
#[derive(Debug)]
struct Card {
    file: File,
    ifindex: u32,
}

impl Card {
    #[allow(unsafe_code, reason = "the library makes no device of that kind")]
    fn new(name: &str, mac: [u8; 6]) -> Self {
        /// Of `linux/if_tun.h`: frames without a header of their own, given to the kernel as a driver gives them, in pieces.
        const FLAGS: u16 = 0x0002 | 0x1000 | 0x0010 | 0x0020;
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/net/tun").unwrap();
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
        // SAFETY: the request is as long as the kernel reads and writes.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        assert!(made >= 0, "{}", std::io::Error::last_os_error());
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        here(&format!("ip link set {name} address {mac} up"));
        Self { file, ifindex: nix::net::if_::if_nametoindex(name).unwrap() }
    }

    /// Delivers a frame of which that many bytes are in the first piece.
    fn deliver(&mut self, frame: &[u8], first: usize) {
        let (first, rest) = frame.split_at(first.min(frame.len()));
        let pieces = [IoSlice::new(first), IoSlice::new(rest)];
        let pieces = if rest.is_empty() { &pieces[..1] } else { &pieces[..] };
        assert_eq!(self.file.write_vectored(pieces).unwrap(), frame.len());
    }
}

/// How many packets were let through in that direction.
fn passed(world: &World, direction: u8) -> u64 {
    let counters = world.datapath.per_cpu::<Metrics>().unwrap();
    counters.get(&slot(0, direction)).unwrap().map_or(0, |counted| counted.packets)
}

/// The packet passes however much of it is in the first piece.
#[track_caller]
fn passes(world: &World, card: &mut Card, direction: u8, frame: &[u8]) {
    for first in [usize::MAX, 14, 34, 42, 54, 62, 102] {
        let before = passed(world, direction);
        card.deliver(frame, first);
        let deadline = Instant::now() + Duration::from_secs(10);
        while passed(world, direction) == before {
            assert!(Instant::now() < deadline, "{first} of {} bytes first: it does not pass", frame.len());
            std::thread::yield_now();
        }
        assert_eq!(passed(world, direction), before + 1, "{first} bytes first");
    }
}

/// Runs the test where what comes from outside comes in pieces.
fn from_outside(test: impl Fn(&mut World, Family, &mut Card) + Send + 'static) {
    let config = ProgramConfig { direct_tunnel: 1, ..ProgramConfig::default() };
    World::test_with(Options { config, ..Options::default() }, move |world| {
        let mut card = Card::new("card", NODE_MAC);
        world.datapath.attach_tc(Program::NetdevIngress, card.ifindex, Direction::Ingress, "card").unwrap();
        for f in families() {
            test(world, f, &mut card);
        }
    });
}

#[test]
fn a_request_from_outside_reaches_its_pod() {
    from_outside(|world, f, card| {
        let long = vec![7; 400];
        for packet in [Packet::udp((f.world, 1000), (f.a, 53)), Packet::tcp((f.world, 1000), (f.a, 80), SYN)] {
            world.clear_flows();
            passes(world, card, INGRESS, &packet.payload(&long).bytes());
        }
    });
}

#[test]
fn an_error_reaches_the_pod_whose_packet_it_quotes() {
    from_outside(|world, f, card| {
        let a = world.a;
        let big = Packet::tcp((f.a, 40001), (f.world, 80), SYN).payload(&[7; 1100]);
        world.leaves(&a, &big.bytes()).redirected();
        let seen = big.from((f.node, 40001)).ttl(60);
        passes(world, card, INGRESS, &Packet::too_big(f.stranger, f.node, &seen).bytes());
    });
}

#[test]
fn what_comes_through_the_tunnel_reaches_its_pod() {
    from_outside(|world, f, card| {
        let [v4, v6] = families();
        let inner = Packet::udp((f.remote, 1000), (f.a, 53)).payload(&[7; 400]);
        for (from, to) in [(v6.node2, v6.node), (v4.node2, v4.node)] {
            world.clear_flows();
            world.set_identity((f.remote, full(f.remote)), REMOTE_IDENTITY, Some(from));
            let outer = Packet::udp((from, 50000), (to, 8472)).payload(&vxlan(REMOTE_IDENTITY, &inner));
            passes(world, card, INGRESS, &outer.bytes());
        }
    });
}

#[test]
fn what_a_pod_sends_leaves_and_its_source_is_checked() {
    World::test(|world| {
        let mut card = Card::new("card", world.a.host_mac);
        world.datapath.attach_tc(Program::PodEgress, card.ifindex, Direction::Ingress, "card").unwrap();
        let mut pod = world.a;
        pod.ifindex = card.ifindex;
        world.set_pod(&pod, 0);
        for f in families() {
            let question = |src: IpAddr| Packet::udp((src, 1000), (f.b, 53)).payload(&[7; 400]).bytes();
            passes(world, &mut card, EGRESS, &question(f.a));
            let before = passed(world, EGRESS);
            for first in [14, 34, 54] {
                card.deliver(&question(f.stranger), first);
                assert_eq!(world.next_drop().src, f.stranger.into());
            }
            assert_eq!(passed(world, EGRESS), before);
        }
    });
}
