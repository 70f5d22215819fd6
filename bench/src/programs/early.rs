// SPDX-License-Identifier: Apache-2.0
//! What forwarding before the stack costs, beside a program that does nothing.
//!
//! A packet of a known flow is run in series: a Service's backend is a Service as well, whose backend is the first, and the neighbour has the
//! node's own hardware address. So the packet that leaves, which is to be answered directly, is one that arrives for the other.

use std::net::IpAddr;

use abi::Addr;
use abi::config::ProgramConfig;
use abi::flow::proto;
use abi::ipcache::IpcacheEntry;
use abi::lb::{Backend, Service, ServiceKey, SlotKey, flags};
use abi::maps::{Backends, Ipcache4, Ipcache6, Node, Services, Slots};
use anyhow::{Result, bail};
use datapath::bpf::Program;
use datapath::{Kernel, LpmKey};
use frames::{ACK, NODE_MAC, SYN};

use super::world::World;
use super::{REMOTE_IDENTITY, SERIES, tcp};
use crate::networks;
use crate::report::Figure;
use crate::stats;

const NETNS: &str = "early";
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
/// How often a packet is tried that may be left to the kernel, which looks after a neighbour now and then.
const TRIES: u32 = 10;

/// A client outside, and the frontends of two Services, each the other's backend.
struct Ends {
    client: (IpAddr, u16),
    services: [(IpAddr, u16); 2],
}

fn ends() -> [Ends; 2] {
    let v4 = |a, b, c, d| IpAddr::from([a, b, c, d]);
    let v6 = |last| IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last]);
    let ends = |client, one, other| Ends { client: (client, 40_001), services: [(one, 80), (other, 8080)] };
    [ends(v4(198, 51, 100, 7), v4(203, 0, 113, 1), v4(203, 0, 113, 2)), ends(v6(7), v6(1), v6(2))]
}

/// Measures on the calling thread, which ends up in another network namespace. `nothing` is the time of a program that does nothing.
pub(super) fn measure(calls: u32, nothing: f64) -> Result<Vec<Figure>> {
    let config = ProgramConfig {
        tunnel: 0,
        direct_tunnel: 0,
        expose_services: 1,
        direct_return: 1,
        accelerate: 1,
        ..ProgramConfig::default()
    };
    let world = World::new(NETNS, config)?;
    prepare(&world)?;
    let mut figures = Vec::new();
    for (ends, version) in ends().into_iter().zip([4, 6]) {
        for (program, sent, place) in
            [(Program::NetdevXdp, XDP_TX, "before the stack"), (Program::NetdevIngress, super::REDIRECT, "at tc")]
        {
            let times = series(&world, &ends, (program, sent), calls)?;
            let what = format!("established TCP of a Service, answered directly, {place} IPv{version}");
            let time = stats::percentile(&times, 0.1);
            let mut figure = Figure::new(what, program.name(), time, "ns");
            figure.p50 = Some(stats::percentile(&times, 0.5));
            figure.latency_unit = Some("ns");
            figures.push(figure);
            if program == Program::NetdevXdp {
                let what = format!("share of a program that drops everything, IPv{version}");
                figures.push(Figure::new(what, program.name(), nothing / time, "").target(">= 0.5"));
            }
        }
    }
    Ok(figures)
}

/// Neighbours, routes and Services.
fn prepare(world: &World) -> Result<()> {
    let mac = datapath::netlink::Mac(NODE_MAC);
    let lines = format!(
        "address add 2001:db8::10/64 dev eth0 nodad
        neighbour replace 192.0.2.1 lladdr {mac} dev eth0 nud permanent
        neighbour replace 2001:db8::1 lladdr {mac} dev eth0 nud permanent
        route add default via 192.0.2.1
        route add default via 2001:db8::1\n"
    );
    networks::ip(None, &lines)?;
    let nodes = world.datapath.map::<Node>()?;
    let mut node = nodes.get(&0)?.unwrap_or_default();
    node.native_mac = NODE_MAC;
    nodes.insert(&0, &node)?;
    for (Ends { services: [one, other], .. }, id) in ends().into_iter().zip([11, 13]) {
        serve(world, id, one, other)?;
        serve(world, id + 1, other, one)?;
    }
    Ok(())
}

fn serve(world: &World, id: u32, (ip, port): (IpAddr, u16), (backend, backend_port): (IpAddr, u16)) -> Result<()> {
    let entry = IpcacheEntry { identity: REMOTE_IDENTITY, ..IpcacheEntry::default() };
    match ip {
        IpAddr::V4(ip) => world.datapath.trie::<Ipcache4>()?.insert(&LpmKey::new(32, ip.octets()), &entry)?,
        IpAddr::V6(ip) => world.datapath.trie::<Ipcache6>()?.insert(&LpmKey::new(128, ip.octets()), &entry)?,
    }
    let proto = proto::TCP;
    let value = Backend { addr: backend.into(), port: backend_port.to_be(), proto, ..Backend::default() };
    world.datapath.map::<Backends>()?.insert(&id, &value)?;
    world.datapath.map::<Slots>()?.insert(&SlotKey { service: id, slot: 0 }, &id)?;
    let key = ServiceKey { addr: Addr::from(ip), port: port.to_be(), proto, ..ServiceKey::default() };
    let flags = flags::LOAD_BALANCER | flags::EXPOSED | flags::DSR;
    world.datapath.map::<Services>()?.insert(&key, &Service { id, count: 1, flags, affinity: 0 })?;
    Ok(())
}

/// Nanoseconds per run of each series.
fn series(world: &World, ends: &Ends, (program, sent): (Program, i32), calls: u32) -> Result<Vec<f64>> {
    let run = |frame: &[u8], repeat| world.run(program, world.eth0, frame, repeat);
    let [one, other] = ends.services;
    for frontend in [one, other] {
        let syn = tcp(ends.client, frontend, SYN);
        for _ in 0..TRIES {
            if run(&syn, 1)?.0 == sent {
                break;
            }
        }
    }
    let segment = tcp(ends.client, one, ACK);
    run(&segment, SERIES)?;
    let mut times = Vec::new();
    for _ in 0..calls {
        match run(&segment, SERIES)? {
            (verdict, time) if verdict == sent => times.push(time),
            (XDP_PASS, _) => {}
            (verdict, _) => bail!("{}: the program returned {verdict}, expected {sent}", program.name()),
        }
    }
    if times.is_empty() { bail!("{}: no packet is sent on", program.name()) } else { Ok(times) }
}
