// SPDX-License-Identifier: Apache-2.0
//! A node with two pods, a tunnel device and a native device, its maps filled as the agent would, and the programs run
//! on packets.
//!
//! ```text
//!   pod A ── lxc_a ┐                      ┌ cilium_vxlan ── node 2 (its pod: `remote`)
//!                  ├── the programs ── node
//!   pod B ── lxc_b ┘                      └ eth0 ── router ── the world
//! ```

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use abi::config::NodeConfig;
use abi::endpoint::{Endpoint, flags};
use abi::event::{Event, kind};
use abi::flow::{Flow, proto};
use abi::ipcache::IpcacheEntry;
use abi::maps::{Endpoints, Flows, Ipcache4, Ipcache6, Locals, Metrics, Node, Policies};
use abi::policy::{PREFIX_L3, PREFIX_PORT, PREFIX_PROTO, PolicyEntry, PolicyKey};
use abi::tuple::Tuple;
use abi::{Addr, identity};
use datapath::bpf::{Datapath, Options, Place, Program, TestRun};
use datapath::events::Reader;
use datapath::netlink::{Encap, LinkChange, Mac, Netlink, Route, Scope, VethEnd};
use datapath::{Epochs, Kernel, LpmKey, Table, Trie};
use ipnet::IpNet;

use crate::devices;
use crate::run::Run;
use crate::sandbox::{self, Sandbox};

/// A pod of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) id: u16,
    pub(crate) identity: u32,
    pub(crate) policy: u32,
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
    v4: IpAddr,
    v6: IpAddr,
}

impl Pod {
    pub(crate) fn endpoint(&self, flags: u16) -> Endpoint {
        Endpoint {
            ifindex: self.ifindex,
            identity: self.identity,
            policy: self.policy,
            id: self.id,
            flags,
            mac: self.mac,
            host_mac: self.host_mac,
            pad: 0,
            ipv4: self.v4.into(),
            ipv6: self.v6.into(),
        }
    }
}

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) a: IpAddr,
    pub(crate) b: IpAddr,
    /// A pod of node 2.
    pub(crate) remote: IpAddr,
    pub(crate) node: IpAddr,
    pub(crate) node2: IpAddr,
    pub(crate) world: IpAddr,
    pub(crate) service: IpAddr,
    /// Belongs to nobody here.
    pub(crate) stranger: IpAddr,
}

pub(crate) fn families() -> [Family; 2] {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    [
        Family {
            a: ip("10.0.0.11"),
            b: ip("10.0.0.12"),
            remote: ip("10.0.1.21"),
            node: ip("192.0.2.10"),
            node2: ip("192.0.2.20"),
            world: ip("198.51.100.7"),
            service: ip("10.96.0.10"),
            stranger: ip("10.0.0.99"),
        },
        Family {
            a: ip("fd00::11"),
            b: ip("fd00::12"),
            remote: ip("fd00:1::21"),
            node: ip("2001:db8::10"),
            node2: ip("2001:db8::20"),
            world: ip("2001:db8:ffff::7"),
            service: ip("fd00:96::10"),
            stranger: ip("fd00::99"),
        },
    ]
}

pub(crate) const REMOTE_IDENTITY: u32 = 2001;

/// The node under test.
pub(crate) struct World {
    pub(crate) datapath: Datapath,
    pub(crate) epochs: Epochs,
    pub(crate) a: Pod,
    pub(crate) b: Pod,
    pub(crate) eth0: u32,
    pub(crate) overlay: u32,
    /// Network namespaces of the pods, and of what is behind `eth0`.
    pub(crate) pods: [OwnedFd; 2],
    pub(crate) node2: OwnedFd,
    runtime: tokio::runtime::Runtime,
    reader: Reader,
}

impl World {
    /// Runs the test on a node of its own.
    pub(crate) fn test(test: impl FnOnce(&mut Self) + Send + 'static) {
        Self::test_with(Options::default(), test);
    }

    /// The same with other options.
    pub(crate) fn test_with(options: Options, test: impl FnOnce(&mut Self) + Send + 'static) {
        let flows = if options.flows == Options::default().flows { 1024 } else { options.flows };
        Sandbox::run(move |sandbox| test(&mut Self::new(sandbox, Options { flows, ..options })));
    }

    /// Runs the test for each family, on a node whose maps are fresh.
    pub(crate) fn test_families(test: impl Fn(&mut Self, Family) + Send + 'static) {
        Self::test(move |world| {
            for family in families() {
                world.reset();
                test(world, family);
            }
        });
    }

    fn new(sandbox: &Sandbox, options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [pod_a, pod_b, node2] = [(); 3].map(|()| devices::new_netns());
        let [lxc_a, lxc_b, eth0, overlay] = runtime.block_on(devices::make([&pod_a, &pod_b, &node2]));
        let datapath = sandbox.load_with(options);
        let reader = runtime.block_on(async { Reader::open(&sandbox.bpffs).unwrap() });
        let [v4, v6] = families();
        let pod = |id: u16, ifindex, v4, v6| Pod {
            id,
            identity: 900 + u32::from(id),
            policy: u32::from(id),
            ifindex,
            mac: devices::pod_mac(id),
            host_mac: devices::host_mac(id),
            v4,
            v6,
        };
        let epochs = Epochs::open(&datapath).unwrap();
        let a = pod(101, lxc_a, v4.a, v6.a);
        let b = pod(102, lxc_b, v4.b, v6.b);
        let pods = [pod_a, pod_b];
        let mut world = Self { datapath, epochs, a, b, eth0, overlay, pods, node2, runtime, reader };
        world.reset();
        world
    }

    /// Fills the maps as if nothing had happened.
    pub(crate) fn reset(&mut self) {
        self.clear_flows();
        let policies = self.datapath_policies();
        for key in policies.keys().unwrap() {
            policies.remove(&key).unwrap();
        }
        self.set_node(|_| ());
        for pod in [self.a, self.b] {
            self.set_pod(&pod, 0);
        }
        for family in families() {
            self.set_host(family.node);
            let node2: IpAddr = families()[0].node2;
            let pods = if family.a.is_ipv4() { (family.remote, 24) } else { (family.remote, 64) };
            self.set_identity(pods, REMOTE_IDENTITY, Some(node2));
            self.set_identity((family.node2, full(family.node2)), identity::REMOTE_NODE, None);
        }
        self.events();
    }

    pub(crate) fn clear_flows(&self) {
        let flows = self.datapath.map::<Flows>().unwrap();
        for key in flows.keys().unwrap() {
            flows.remove(&key).unwrap();
        }
    }

    pub(crate) fn datapath_policies(&self) -> Trie<Policies> {
        self.datapath.trie::<Policies>().unwrap()
    }

    /// The address is one of this node.
    pub(crate) fn set_host(&self, ip: IpAddr) {
        let host = Endpoint { identity: identity::HOST, flags: flags::HOST, ..Endpoint::default() };
        self.datapath.map::<Locals>().unwrap().insert(&ip.into(), &host).unwrap();
    }

    /// The address is not this node's any more.
    pub(crate) fn remove_local(&self, ip: IpAddr) {
        self.datapath.map::<Locals>().unwrap().remove(&ip.into()).unwrap();
    }

    pub(crate) fn set_pod(&self, pod: &Pod, flags: u16) {
        let endpoint = pod.endpoint(flags);
        self.datapath.map::<Endpoints>().unwrap().insert(&pod.ifindex, &endpoint).unwrap();
        for addr in [endpoint.ipv4, endpoint.ipv6] {
            self.datapath.map::<Locals>().unwrap().insert(&addr, &endpoint).unwrap();
        }
    }

    pub(crate) fn set_node(&self, change: impl FnOnce(&mut NodeConfig)) {
        let [v4, v6] = families();
        let mut node = NodeConfig {
            masquerade_ipv4: v4.node.into(),
            masquerade_ipv6: v6.node.into(),
            overlay_ifindex: self.overlay,
            native_ifindex: self.eth0,
            node_identity: identity::REMOTE_NODE,
            ..NodeConfig::default()
        };
        change(&mut node);
        self.datapath.map::<Node>().unwrap().insert(&0, &node).unwrap();
    }

    /// One more interface, which leads nowhere. Returns its index.
    pub(crate) fn add_device(&self, name: &str) -> u32 {
        self.runtime.block_on(async {
            let netlink = Netlink::open().unwrap();
            let mac = Some(Mac(devices::NODE_MAC));
            let (host, peer) = (VethEnd { name, mac, ..VethEnd::default() }, format!("{name}_peer"));
            netlink.create_veth(host, VethEnd { name: &peer, ..VethEnd::default() }).await.unwrap();
            let index = netlink.link(name).await.unwrap().unwrap().index;
            netlink.change_link(index, LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
            index
        })
    }

    /// The way to an address is through that interface.
    pub(crate) fn set_route(&self, to: IpAddr, ifindex: u32) {
        self.runtime.block_on(async {
            let route = Route { ifindex: Some(ifindex), scope: Scope::Link, ..Route::to(IpNet::from(to)) };
            Netlink::open().unwrap().replace_route(&route).await.unwrap();
        });
    }

    /// The node's own way to pods of another node, for packets of that size.
    pub(crate) fn set_tunnel_route(&self, prefix: IpNet, node: IpAddr, mtu: u32) {
        self.runtime.block_on(async {
            let encap = Encap { id: identity::REMOTE_NODE.into(), dst: node };
            let route = Route {
                ifindex: Some(self.overlay),
                encap: Some(encap),
                mtu: Some(mtu),
                scope: Scope::Link,
                ..Route::to(prefix)
            };
            Netlink::open().unwrap().replace_route(&route).await.unwrap();
        });
    }

    pub(crate) fn set_identity(&self, (ip, prefix_len): (IpAddr, u32), identity: u32, node: Option<IpAddr>) {
        let entry = IpcacheEntry { identity, tunnel: node.map_or(Addr::NONE, Addr::from), ..Default::default() };
        self.set_ipcache(ip, prefix_len, entry);
    }

    pub(crate) fn set_ipcache(&self, ip: IpAddr, prefix_len: u32, entry: IpcacheEntry) {
        match ip {
            IpAddr::V4(ip) => {
                let trie = self.datapath.trie::<Ipcache4>().unwrap();
                trie.insert(&LpmKey::new(prefix_len, ip.octets()), &entry).unwrap();
            }
            IpAddr::V6(ip) => {
                let trie = self.datapath.trie::<Ipcache6>().unwrap();
                trie.insert(&LpmKey::new(prefix_len, ip.octets()), &entry).unwrap();
            }
        }
    }

    /// Adds a rule: `proto` 0 and `port` 0 stand for any.
    pub(crate) fn add_rule(
        &self,
        (pod, direction): (&Pod, u8),
        peer: u32,
        (proto, port): (u8, u16),
        deny: bool,
    ) -> u32 {
        let prefix_len = match (proto, port) {
            (0, _) => PREFIX_L3,
            (_, 0) => PREFIX_PROTO,
            _ => PREFIX_PORT,
        };
        let key = PolicyKey { policy: pod.policy, identity: peer, direction, proto, port: port.to_be() };
        let provenance = 7000 + u32::from(port);
        let entry = PolicyEntry {
            precedence: if deny { abi::policy::DENY_PRECEDENCE } else { prefix_len },
            provenance,
            proxy_port: 0,
            deny: u8::from(deny),
            prefix_len: prefix_len as u8,
            pad: 0,
        };
        self.datapath_policies().insert(&LpmKey::new(prefix_len, key), &entry).unwrap();
        provenance
    }

    pub(crate) fn put<T: Table>(&self, map: T, key: &T::Key, value: &T::Value) {
        map.insert(key, value).unwrap();
    }

    /// Runs a program on a frame, and looks at everything that it changed.
    pub(crate) fn run(&mut self, program: Program, ifindex: u32, frame: &[u8]) -> Run {
        self.look(|datapath| datapath.test_run(program, frame, ifindex, 1).unwrap())
    }

    fn look(&mut self, run: impl FnOnce(&Datapath) -> TestRun) -> Run {
        let before = self.counters();
        let out = run(&self.datapath);
        let counters = self.counters().into_iter().zip(before).map(|((slot, after), (_, before))| {
            (abi::metrics::reason_and_direction(slot), after.packets - before.packets)
        });
        let counters = counters.filter(|(_, packets)| *packets > 0).collect();
        Run { verdict: out.verdict, frame: out.packet, counters, events: self.events() }
    }

    /// The same for a packet that came in elsewhere.
    pub(crate) fn run_at(&mut self, program: Program, place: Place, frame: &[u8]) -> Run {
        self.look(|datapath| datapath.test_run_at(program, frame, place, 1).unwrap())
    }

    /// Something leaves a pod.
    pub(crate) fn leaves(&mut self, pod: &Pod, frame: &[u8]) -> Run {
        self.run(Program::PodEgress, pod.ifindex, frame)
    }

    /// The host's stack sends something to a pod.
    pub(crate) fn enters(&mut self, pod: &Pod, frame: &[u8]) -> Run {
        self.run(Program::PodIngress, pod.ifindex, frame)
    }

    /// The host's stack forwards something to a pod, or makes it.
    pub(crate) fn forwarded(&mut self, place: Place, frame: &[u8]) -> Run {
        self.look(|datapath| datapath.test_run_at(Program::PodIngress, frame, place, 1).unwrap())
    }

    /// Something arrives at the native device, with a card's sum of the whole packet where the kernel can check what becomes of it.
    pub(crate) fn arrives(&mut self, frame: &[u8]) -> Run {
        let summed = sandbox::version() >= (6, 18);
        let place = Place { ifindex: self.eth0, arrived_by: self.eth0, summed, ..Place::default() };
        self.look(|datapath| datapath.test_run_at(Program::NetdevIngress, frame, place, 1).unwrap())
    }

    /// A pod sends what stands for several packets.
    pub(crate) fn leaves_as_batch(&mut self, pod: &Pod, frame: &[u8], batch_size: u32) -> Run {
        let place = Place { ifindex: pod.ifindex, arrived_by: pod.ifindex, batch_size, ..Place::default() };
        self.look(|datapath| datapath.test_run_at(Program::PodEgress, frame, place, 1).unwrap())
    }

    /// The record of the flow that a packet of that tuple opens.
    pub(crate) fn flow(&self, opening: &Tuple) -> Option<Flow> {
        let flow = self.datapath.map::<Flows>().unwrap().get(&opening.key().0).unwrap()?;
        (flow.opening(&opening.key().0) == *opening).then_some(flow)
    }

    /// All flows, with the tuple of whoever opened them.
    pub(crate) fn flows(&self) -> Vec<(Tuple, Flow)> {
        let entries = self.datapath.map::<Flows>().unwrap().entries().unwrap();
        let records = entries.into_iter().filter(|(key, _)| key.alias == 0);
        records.map(|(key, flow)| (flow.opening(&key), flow)).collect()
    }

    /// How many flows have replies with a tuple of their own.
    pub(crate) fn aliases(&self) -> usize {
        self.datapath.map::<Flows>().unwrap().keys().unwrap().iter().filter(|key| key.alias == 1).count()
    }

    fn counters(&self) -> Vec<(u32, abi::metrics::MetricsValue)> {
        let mut counters = self.datapath.per_cpu::<Metrics>().unwrap().entries().unwrap();
        counters.sort_by_key(|(slot, _)| *slot);
        counters
    }

    /// The next drop of UDP that is told, of packets that are on their way.
    pub(crate) fn next_drop(&mut self) -> Event {
        let mut drops = Vec::new();
        let is_drop = |event: &Event| event.kind == kind::DROP && event.proto == proto::UDP;
        let Self { runtime, reader, .. } = self;
        runtime.block_on(async {
            let read = async {
                while drops.is_empty() {
                    reader.read(|event| drops.extend(is_drop(event).then_some(*event))).await.unwrap();
                }
            };
            tokio::time::timeout(Duration::from_secs(10), read).await.expect("nothing was dropped");
        });
        drops[0]
    }

    /// The events since the last call.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let _entered = self.runtime.enter();
        self.reader.read_present(|event| events.push(*event));
        events
    }
}

pub(crate) fn full(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// A tuple of a protocol with ports.
pub(crate) fn tuple((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16), proto: u8) -> Tuple {
    Tuple { src: src.into(), dst: dst.into(), sport: sport.to_be(), dport: dport.to_be(), proto, class: 0, asks: true }
}
