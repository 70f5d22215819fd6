// SPDX-License-Identifier: Apache-2.0
//! Frames with a tag that names no VLAN but a priority (IEEE 802.1Q): to the kernel they are untagged.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use abi::DropReason;
use datapath::bpf::{Direction, Program};
use datapath::netns;

use crate::devices::{NODE_MAC, pod_mac};
use crate::packet::Packet;
use crate::tunnel::{ip, nothing, socket};
use crate::world::{World, families};

/// Sends a frame out of a device of a network namespace.
#[allow(unsafe_code, reason = "the library makes no address of a device")]
fn send(place: &OwnedFd, device: &str, frame: &[u8]) {
    let sent = netns::run(place.as_fd(), || {
        let index = nix::net::if_::if_nametoindex(device).unwrap();
        // SAFETY: plain values; the socket is closed with its owner.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            let raw = OwnedFd::from_raw_fd(fd);
            let mut to: libc::sockaddr_ll = std::mem::zeroed();
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = i32::try_from(index).unwrap();
            let len = u32::try_from(size_of_val(&to)).unwrap();
            libc::sendto(raw.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), len)
        }
    });
    assert_eq!(usize::try_from(sent.unwrap()).unwrap(), frame.len());
}

#[test]
fn a_priority_does_not_let_the_wire_claim_to_be_a_pod() {
    World::test(|world| {
        let f = families()[0];
        world.datapath.attach_tc(Program::NetdevIngress, world.eth0, Direction::Ingress, "eth0").unwrap();
        let here = UdpSocket::bind((f.node, 0)).unwrap();
        here.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = here.local_addr().unwrap().port();
        let frame = |src, vlan: Option<u16>| {
            let packet = Packet::udp((src, 1000), (f.node, port)).macs(pod_mac(1), NODE_MAC);
            vlan.map_or(packet.clone(), |id| packet.vlan(id)).bytes()
        };
        for vlan in [None, Some(0), Some(5 << 13)] {
            send(&world.node2, "eth0", &frame(f.world, vlan));
            assert_eq!(here.recv_from(&mut [0; 64]).expect("nothing arrived").1.ip(), f.world);
            send(&world.node2, "eth0", &frame(f.a, vlan));
            let event = world.events();
            assert_eq!(
                event.iter().map(|event| DropReason::from_code(event.reason)).collect::<Vec<_>>(),
                [Some(DropReason::InvalidSourceIp)],
                "{vlan:?}"
            );
        }
        assert_eq!(nothing(&here), ErrorKind::WouldBlock);
    });
}

/// The kernel takes off as many of them as there are.
#[test]
fn nor_do_several_priorities() {
    World::test(|world| {
        let f = families()[0];
        world.datapath.attach_tc(Program::NetdevIngress, world.eth0, Direction::Ingress, "eth0").unwrap();
        let here = UdpSocket::bind((f.node, 0)).unwrap();
        here.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = here.local_addr().unwrap().port();
        let frame = |src, ethertype: u16, tags: usize| {
            let packet = Packet::udp((src, 1000), (f.node, port)).macs(pod_mac(1), NODE_MAC).bytes();
            let (macs, rest) = packet.split_at(12);
            let tag = [ethertype.to_be_bytes(), [0; 2]].concat();
            [macs.to_vec(), tag.repeat(tags), rest.to_vec()].concat()
        };
        let reasons = |world: &mut World| -> Vec<_> {
            world.events().iter().map(|event| DropReason::from_code(event.reason)).collect()
        };
        for ethertype in [0x8100, 0x88a8] {
            for tags in [2, 3, 4] {
                send(&world.node2, "eth0", &frame(f.world, ethertype, tags));
                assert_eq!(here.recv_from(&mut [0; 64]).expect("nothing arrived").1.ip(), f.world);
                send(&world.node2, "eth0", &frame(f.a, ethertype, tags));
                assert_eq!(reasons(world), [Some(DropReason::InvalidSourceIp)], "{tags} tags of {ethertype:x}");
            }
            send(&world.node2, "eth0", &frame(f.a, ethertype, 9));
            assert_eq!(reasons(world), [Some(DropReason::VlanFiltered)]);
        }
        assert_eq!(nothing(&here), ErrorKind::WouldBlock);
    });
}

#[test]
fn an_answer_with_a_priority_reaches_its_pod() {
    World::test(|world| {
        let f = families()[0];
        let attach = |program, ifindex| {
            world.datapath.attach_tc(program, ifindex, Direction::Ingress, &format!("{program:?}")).unwrap();
        };
        attach(Program::PodEgress, world.a.ifindex);
        attach(Program::NetdevIngress, world.eth0);
        ip(&world.pods[0], &format!("addr add {}/32 dev a\nroute add 0.0.0.0/0 dev a", f.a));
        let pod = socket(&world.pods[0], f.a);
        let port = pod.local_addr().unwrap().port();
        pod.send_to(b"question", (f.world, 53)).unwrap();
        let answer = Packet::udp((f.world, 53), (f.node, port)).macs(pod_mac(1), NODE_MAC).vlan(0);
        send(&world.node2, "eth0", &answer.bytes());
        let (_, from) = pod.recv_from(&mut [0; 64]).expect("nothing arrived");
        assert_eq!(from.ip(), f.world);
    });
}
