// SPDX-License-Identifier: Apache-2.0
//! A node with two pods, a pod on another node and a Service, as far as the programs can tell: its devices are in a network
//! namespace, and its maps are filled by hand.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use abi::config::{NodeConfig, ProgramConfig};
use abi::endpoint::{Endpoint, flags};
use abi::flow::proto;
use abi::ipcache::IpcacheEntry;
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Endpoints, Ipcache4, Ipcache6, Locals, Node, Policies, Services, Slots};
use abi::policy::{INGRESS, PREFIX_PORT, PolicyEntry, PolicyKey};
use abi::{Addr, identity};
use anyhow::{Context as _, Result};
use datapath::bpf::{Datapath, Options, Program};
use datapath::events::Reader;
use datapath::netlink::Mac;
use datapath::{Kernel, LpmKey};
use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;

use crate::networks;
use crate::place::{Place, enter_netns};

/// The port of the Service.
pub(crate) const SERVICE_PORT: u16 = 80;
/// The port on which pod B listens.
pub(crate) const PORT: u16 = 8080;
/// The first port that no rule allows.
pub(crate) const DENIED_PORT: u16 = PORT - 1;
/// Entries of the flow table.
pub(crate) const FLOWS: u32 = 65536;
/// Number of rules for pod B, if it has policy.
pub(crate) const RULES: u16 = 1000;

const POLICY: u32 = 102;
/// The addresses of this node and of the other one.
pub(crate) const NODE1: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
pub(crate) const NODE2: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 20));
pub(crate) const REMOTE_IDENTITY: u32 = 2001;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) a: IpAddr,
    pub(crate) b: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) service: IpAddr,
}

impl Family {
    /// IPv4 and IPv6.
    pub(crate) fn both() -> [Self; 2] {
        let v4 = |a, b, c, d| IpAddr::from([a, b, c, d]);
        let v6 = |a, b, c| IpAddr::from([a, b, 0, 0, 0, 0, 0, c]);
        [
            Self { a: v4(10, 0, 0, 11), b: v4(10, 0, 0, 12), remote: v4(10, 0, 1, 21), service: v4(10, 96, 0, 10) },
            Self {
                a: v6(0xfd00, 0, 0x11),
                b: v6(0xfd00, 0, 0x12),
                remote: v6(0xfd00, 1, 0x21),
                service: v6(0xfd00, 0x96, 0x10),
            },
        ]
    }
}

/// The node.
pub(crate) struct World {
    pub(crate) datapath: Datapath,
    a: Endpoint,
    b: Endpoint,
    pub(crate) eth0: u32,
    pub(crate) overlay: u32,
    reader: Reader,
    runtime: tokio::runtime::Runtime,
}

impl World {
    /// Creates it. The calling thread is then in its network namespace.
    pub(crate) fn new(netns: &str, config: ProgramConfig) -> Result<Self> {
        networks::node(netns)?;
        let place = Place::named(netns);
        enter_netns(place.netns.as_deref().context("a named place")?)?;
        // Frames for another machine are none of the programs' business.
        let mac = Mac(frames::NODE_MAC);
        let devices = format!(
            "link add lxca type veth peer name pa
            link add lxcb type veth peer name pb
            link add eth0 address {mac} type veth peer name pe
            link add cilium_vxlan type vxlan external dstport 8472
            link set lxca up
            link set lxcb up
            link set pa up
            link set pb up
            link set eth0 up
            link set cilium_vxlan up
            address add 192.0.2.10/24 dev eth0
            neighbour replace 192.0.2.20 lladdr 02:00:00:00:0c:20 dev eth0 nud permanent\n"
        );
        networks::ip(None, &devices)?;
        let bpffs = PathBuf::from(format!("/run/netns/bpf-{netns}"));
        std::fs::create_dir_all(&bpffs).context("cannot create a folder for the bpf file system")?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount bpf")?;
        let options = Options { bpffs: bpffs.clone(), flows: FLOWS, config, ..Options::default() };
        let datapath = Datapath::load(&options).context("cannot load the programs")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reader = runtime.block_on(async { Reader::open(&bpffs) })?;
        let index = |name: &str| if_nametoindex(name).with_context(|| format!("no device {name}"));
        let (a, b) = (pod(101, index("lxca")?), pod(102, index("lxcb")?));
        let (eth0, overlay) = (index("eth0")?, index("cilium_vxlan")?);
        let world = Self { datapath, a, b, eth0, overlay, reader, runtime };
        world.fill()?;
        Ok(world)
    }

    fn fill(&self) -> Result<()> {
        let node = NodeConfig {
            overlay_ifindex: self.overlay,
            native_ifindex: self.eth0,
            node_identity: identity::REMOTE_NODE,
            tunnel_ipv4: Addr::from(NODE1),
            ..NodeConfig::default()
        };
        self.datapath.map::<Node>()?.insert(&0, &node)?;
        self.datapath.map::<Endpoints>()?.insert(&self.a.ifindex, &self.a)?;
        self.datapath.map::<Locals>()?.insert(&self.a.ipv4, &self.a)?;
        self.datapath.map::<Locals>()?.insert(&self.a.ipv6, &self.a)?;
        self.set_policy(false)?;
        for (family, service) in Family::both().into_iter().zip(1..) {
            let there = IpcacheEntry { identity: REMOTE_IDENTITY, tunnel: NODE2.into(), ..IpcacheEntry::default() };
            match family.remote {
                IpAddr::V4(ip) => self.datapath.trie::<Ipcache4>()?.insert(&LpmKey::new(24, ip.octets()), &there)?,
                IpAddr::V6(ip) => self.datapath.trie::<Ipcache6>()?.insert(&LpmKey::new(64, ip.octets()), &there)?,
            }
            let backend =
                Backend { addr: family.b.into(), port: PORT.to_be(), proto: proto::TCP, ..Backend::default() };
            let key = ServiceKey {
                addr: family.service.into(),
                port: SERVICE_PORT.to_be(),
                proto: proto::TCP,
                ..ServiceKey::default()
            };
            self.datapath.map::<Backends>()?.insert(&service, &backend)?;
            self.datapath.map::<Slots>()?.insert(&SlotKey { service, slot: 0 }, &service)?;
            self.datapath.map::<Services>()?.insert(&key, &Service { id: service, count: 1, ..Service::default() })?;
        }
        let node = IpcacheEntry { identity: identity::REMOTE_NODE, ..IpcacheEntry::default() };
        if let IpAddr::V4(ip) = NODE2 {
            self.datapath.trie::<Ipcache4>()?.insert(&LpmKey::new(32, ip.octets()), &node)?;
        }
        let rules = self.datapath.trie::<Policies>()?;
        for port in PORT..PORT + RULES {
            let key = PolicyKey {
                policy: POLICY,
                identity: self.a.identity,
                direction: INGRESS,
                proto: proto::TCP,
                port: port.to_be(),
            };
            let entry = PolicyEntry {
                precedence: PREFIX_PORT,
                provenance: u32::from(port),
                prefix_len: PREFIX_PORT as u8,
                ..PolicyEntry::default()
            };
            rules.insert(&LpmKey::new(PREFIX_PORT, key), &entry)?;
        }
        Ok(())
    }

    /// Turns pod B's policy on or off.
    pub(crate) fn set_policy(&self, enforced: bool) -> Result<()> {
        let flags = if enforced { flags::INGRESS_ENFORCED } else { 0 };
        let b = Endpoint { flags, policy: POLICY, ..self.b };
        self.datapath.map::<Endpoints>()?.insert(&b.ifindex, &b)?;
        for address in [b.ipv4, b.ipv6] {
            self.datapath.map::<Locals>()?.insert(&address, &b)?;
        }
        Ok(())
    }

    /// Interface of pod A.
    pub(crate) fn a(&self) -> u32 {
        self.a.ifindex
    }

    /// Interface of pod B.
    pub(crate) fn b(&self) -> u32 {
        self.b.ifindex
    }

    /// Runs a program on a frame. Returns the verdict and the nanoseconds per run.
    pub(crate) fn run(&self, program: Program, ifindex: u32, frame: &[u8], repeat: u32) -> Result<(i32, f64)> {
        let run = self.datapath.test_run(program, frame, ifindex, repeat)?;
        Ok((run.verdict, f64::from(run.duration)))
    }

    /// Empties the ring: writing to a full one is quicker than to one with a reader.
    pub(crate) fn drain(&mut self) {
        let _context = self.runtime.enter();
        while self.reader.read_present(|_| ()) > 0 {}
    }
}

fn pod(id: u16, ifindex: u32) -> Endpoint {
    let [v4, v6] = Family::both().map(|family| if id == 101 { family.a } else { family.b });
    let last = id as u8;
    Endpoint {
        ifindex,
        identity: 900 + u32::from(id),
        id,
        mac: [2, 0, 0, 0, 0xa, last],
        host_mac: [2, 0, 0, 0, 0xb, last],
        ipv4: Addr::from(v4),
        ipv6: Addr::from(v6),
        ..Endpoint::default()
    }
}
