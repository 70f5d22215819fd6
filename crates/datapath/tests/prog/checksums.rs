// SPDX-License-Identifier: Apache-2.0
//! Real packets through a card that sums up whole packets (`CHECKSUM_COMPLETE`), as many do: a VXLAN device does, too, when the outer
//! packet's own checksum was verified before.

use std::net::IpAddr;
use std::process::Command;

use abi::flow::flags;
use datapath::bpf::{Direction, Program};

use crate::devices::{here, there};
use crate::tunnel::mac;
use crate::world::{Family, World, families, full};

/// The node's device `card` leads to the world, and its packets come with the sum; the programs are attached.
fn connect(world: &mut World, f: Family) {
    let prefix = if f.a.is_ipv4() { 24 } else { 64 };
    let card = |local: &str, remote: &str| {
        format!("ip link add card type vxlan id 7 local {local} remote {remote} dstport 4789 udpcsum")
    };
    let ours: IpAddr = if f.a.is_ipv4() { "198.51.100.1" } else { "2001:db8:ffff::1" }.parse().unwrap();
    here(&format!(
        "ethtool -K eth0 gro on
        {}
        ip address add {ours}/{prefix} dev card nodad
        ip link set card up",
        card("192.0.2.10", "192.0.2.20")
    ));
    there(
        &world.node2,
        &format!(
            "ethtool -K eth0 tx off
            {}
            ethtool -K card tx off
            ip address add {}/{prefix} dev card nodad
            ip link set card up",
            card("192.0.2.20", "192.0.2.10"),
            f.world
        ),
    );
    let a = world.a;
    let mac = mac(a.host_mac);
    let gateway = if f.a.is_ipv4() { "169.254.0.1" } else { "fe80::1" };
    there(
        &world.pods[0],
        &format!(
            "ip address add {}/{} dev a nodad
            ip route add {gateway} dev a
            ip route add default via {gateway} dev a
            ip neighbour replace {gateway} lladdr {mac} dev a",
            f.a,
            full(f.a),
        ),
    );
    let index = nix::net::if_::if_nametoindex("card").unwrap();
    world.set_node(|config| {
        config.native_ifindex = index;
        match ours {
            IpAddr::V4(_) => config.masquerade_ipv4 = ours.into(),
            IpAddr::V6(_) => config.masquerade_ipv6 = ours.into(),
        }
    });
    world.set_host(ours);
    let attach = |program, ifindex, direction, pin: &str| {
        world.datapath.attach_tc(program, ifindex, direction, pin).unwrap();
    };
    attach(Program::PodEgress, a.ifindex, Direction::Ingress, "pod_egress");
    attach(Program::PodIngress, a.ifindex, Direction::Egress, "pod_ingress");
    attach(Program::NetdevIngress, index, Direction::Ingress, "card");
}

/// What the kernel says when a card's sum does not fit its packet. It says so once after it has started.
fn complaints() -> usize {
    let log = Command::new("dmesg").output().unwrap();
    String::from_utf8_lossy(&log.stdout).matches("hw csum failure").count()
}

#[test]
fn a_masqueraded_flow_goes_through_a_card_that_sums_up_whole_packets() {
    let before = complaints();
    for family in 0..2 {
        World::test(move |world| {
            let f = families()[family];
            connect(world, f);
            // Sums of TCP and UDP are verified before they come here; nobody does so for ICMP.
            there(&world.pods[0], &format!("busybox ping -c 2 -W 5 -s 500 {}", f.world));
            let (_, flow) = world.flows().into_iter().find(|(opening, _)| opening.dst == f.world.into()).unwrap();
            assert!(flow.has(flags::NAT_SRC) && flow.reply.packets == 2, "{flow:?}");
        });
    }
    assert_eq!(complaints(), before, "the sums of whole packets are right");
}
