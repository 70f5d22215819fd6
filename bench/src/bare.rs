// SPDX-License-Identifier: Apache-2.0
//! The programs alone: nodes like those of `networks`, with our programs attached and their maps filled by hand, without the
//! cost of an agent, a kubelet and their netfilter rules.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use abi::config::{NodeConfig, ProgramConfig};
use abi::endpoint::{Endpoint, flags};
use abi::ipcache::IpcacheEntry;
use abi::maps::{Endpoints, Ipcache4, Ipcache6, Locals, Node};
use abi::{Addr, identity};
use anyhow::{Context as _, Result, bail};
use datapath::bpf::{Datapath, Direction, Options, Program};
use datapath::events::Reader;
use datapath::{Kernel as _, LpmKey};
use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;

use crate::networks;
use crate::place::{Place, enter_netns};
use crate::traffic::{Arm, Shape};

/// How often the reader looks for events, as the agent's does.
const EVENTS: Duration = Duration::from_millis(5);

/// A pod, with the number of its subnet.
type Pod = (u8, (Place, [IpAddr; 2]));

/// On one node and on two.
pub(crate) fn arms() -> Result<[Arm; 2]> {
    networks::wire("bare")?;
    let pod = |name: &str, node, number| networks::pod(name, node, number).map(|pod| (number, pod));
    let [a, b] = [pod("bare-a", "bare1", 11)?, pod("bare-b", "bare1", 12)?];
    let c = pod("bare-c", "bare2", 13)?;
    start("bare1", [1, 2], vec![a.clone(), b.clone()], vec![c.clone()])?;
    start("bare2", [2, 1], vec![c.clone()], vec![a.clone(), b.clone()])?;
    Ok([
        Arm::new(Shape::OneNode, "ours, programs alone", a.1.clone(), b.1),
        Arm::new(Shape::TwoNodes, "ours, programs alone", a.1, c.1),
    ])
}

/// Attaches the programs on a node with these pods, and others behind its peer. They stay until the process ends.
fn start(name: &'static str, nodes: [u8; 2], here: Vec<Pod>, there: Vec<Pod>) -> Result<()> {
    let bpffs = Path::new("/run/netns").join(format!("{name}-bpf"));
    std::fs::create_dir_all(&bpffs).context("cannot create a folder for the bpf file system")?;
    mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpf")?;
    let load = {
        let bpffs = bpffs.clone();
        move || {
            enter_netns(Place::named(name).netns.as_deref().context("a named place")?)?;
            load(&bpffs, nodes, &here, &there)
        }
    };
    match std::thread::spawn(load).join() {
        Ok(loaded) => loaded?,
        Err(_) => bail!("the thread that loads the programs ended"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || runtime.block_on(read(&bpffs)));
    Ok(())
}

fn load(bpffs: &Path, [own, peer]: [u8; 2], here: &[Pod], there: &[Pod]) -> Result<()> {
    networks::ip(None, "link add cilium_vxlan type vxlan external dstport 8472\nlink set cilium_vxlan up\n")?;
    let config = ProgramConfig { direct_tunnel: 1, expose_services: 1, ..ProgramConfig::default() };
    let options = Options { bpffs: bpffs.to_owned(), config, ..Options::default() };
    let datapath = Datapath::load(&options).context("cannot load the programs")?;
    let index = |name: &str| if_nametoindex(name).with_context(|| format!("no device {name}"));
    let (eth0, overlay) = (index("eth0")?, index("cilium_vxlan")?);
    let [own, peer] = [own, peer].map(|node| IpAddr::from([192, 0, 2, node]));
    let node = NodeConfig {
        overlay_ifindex: overlay,
        native_ifindex: eth0,
        node_identity: identity::REMOTE_NODE,
        tunnel_ipv4: own.into(),
        masquerade_ipv4: own.into(),
        ..NodeConfig::default()
    };
    datapath.map::<Node>()?.insert(&0, &node)?;
    let host = Endpoint { identity: identity::HOST, flags: flags::HOST, ..Endpoint::default() };
    datapath.map::<Locals>()?.insert(&own.into(), &host)?;
    know(&datapath, peer, &IpcacheEntry { identity: identity::REMOTE_NODE, ..IpcacheEntry::default() })?;
    for (number, (_, addresses)) in there {
        let entry = IpcacheEntry { identity: identity_of(*number), tunnel: peer.into(), ..IpcacheEntry::default() };
        for address in addresses {
            know(&datapath, *address, &entry)?;
        }
    }
    for (number, (_, [v4, v6])) in here {
        let device = format!("p{number}");
        let pod = endpoint(*number, index(&device)?, [(*v4).into(), (*v6).into()])?;
        datapath.map::<Endpoints>()?.insert(&pod.ifindex, &pod)?;
        for address in [pod.ipv4, pod.ipv6] {
            datapath.map::<Locals>()?.insert(&address, &pod)?;
        }
        datapath.attach_tc(Program::PodEgress, pod.ifindex, Direction::Ingress, &format!("{device}-out"))?;
        datapath.attach_tc(Program::PodIngress, pod.ifindex, Direction::Egress, &format!("{device}-in"))?;
    }
    datapath.attach_tc(Program::NetdevIngress, eth0, Direction::Ingress, "eth0-in")?;
    datapath.attach_tc(Program::NetdevEgress, eth0, Direction::Egress, "eth0-out")?;
    datapath.attach_tc(Program::OverlayIngress, overlay, Direction::Ingress, "overlay")?;
    Ok(())
}

const fn identity_of(pod: u8) -> u32 {
    2000 + pod as u32
}

fn endpoint(pod: u8, ifindex: u32, [ipv4, ipv6]: [Addr; 2]) -> Result<Endpoint> {
    let [mac, host_mac] = networks::macs(pod);
    let endpoint =
        Endpoint { ifindex, identity: identity_of(pod), id: u16::from(pod), mac, host_mac, ..Endpoint::default() };
    Ok(Endpoint { ipv4, ipv6, ..endpoint })
}

/// Puts an address into the ipcache.
fn know(datapath: &Datapath, address: IpAddr, entry: &IpcacheEntry) -> Result<()> {
    match address {
        IpAddr::V4(ip) => datapath.trie::<Ipcache4>()?.insert(&LpmKey::new(32, ip.octets()), entry)?,
        IpAddr::V6(ip) => datapath.trie::<Ipcache6>()?.insert(&LpmKey::new(128, ip.octets()), entry)?,
    }
    Ok(())
}

/// Reads events as the agent does: a full ring costs less than one with a reader.
async fn read(bpffs: &Path) -> Result<()> {
    let mut reader = Reader::open(bpffs)?;
    loop {
        while reader.read_present(|_| ()) > 0 {}
        tokio::time::sleep(EVENTS).await;
    }
}
