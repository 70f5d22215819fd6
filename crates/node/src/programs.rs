// SPDX-License-Identifier: Apache-2.0
//! Programs on native devices and on the tunnel device, and the facts about the node they need.

use crate::Config;
use crate::fib::Concerned;
use crate::local::{Facts, Host};
use crate::{HOST_DEVICE, OVERLAY_DEVICE};
use abi::Addr;
use abi::config::{Device, NodeConfig};
use datapath::bpf::{Direction, Program, XdpMode};
use datapath::{Due, Epochs, Hooks, Kernel, Map, Result, sync_map};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;

mod early;

/// Attaches programs and tracks where.
#[derive(Debug)]
pub(crate) struct Programs {
    hooks: Arc<dyn Hooks>,
    map: Map<abi::maps::Node>,
    devices: Map<abi::maps::Devices>,
    epochs: Epochs,
    due: Due,
    /// Interface index of each attachment, by pin name.
    attached: BTreeMap<String, u32>,
    /// Whether attachments of earlier processes have been checked.
    swept: bool,
    exposure: Exposure,
    /// Devices on which no program serves before the stack, as has been told.
    slow: BTreeSet<String>,
}

/// How Services are reached from outside the cluster.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    /// Whether they are: replies of the node's own processes then pass through a program.
    pub(crate) exposed: bool,
    /// Where programs serve them before the stack, the best place first.
    pub(crate) before_stack: &'static [XdpMode],
    /// Told where they do, by device.
    pub(crate) accelerated: watch::Sender<BTreeMap<String, XdpMode>>,
}

impl Programs {
    pub(crate) fn new(
        maps: &Arc<dyn Kernel>,
        hooks: Arc<dyn Hooks>,
        epochs: Epochs,
        exposure: Exposure,
    ) -> Result<Self> {
        let (map, devices) = (maps.map()?, maps.map()?);
        Ok(Self {
            hooks,
            map,
            devices,
            epochs,
            due: Due::default(),
            attached: BTreeMap::new(),
            swept: false,
            exposure,
            slow: BTreeSet::new(),
        })
    }

    /// Attaches to the current devices, updates the programs' facts, and detaches from devices that are no longer
    /// native.
    pub(crate) async fn sync(&mut self, config: &Config, facts: &Facts, host: &Host) -> Result<()> {
        let wanted = wanted(facts, host, self.exposure.exposed);
        self.sweep()?;
        for (pin, &(program, ifindex)) in &wanted {
            if self.attached.get(pin) != Some(&ifindex) {
                let direction = direction(program);
                self.change(pin, move |hooks, pin| hooks.attach_tc(program, ifindex, direction, pin)).await?;
                self.attached.insert(pin.clone(), ifindex);
            }
        }
        let early = self.accelerate(facts, host).await?;
        self.detach_others(|pin| wanted.contains_key(pin) || early.contains(pin)).await?;
        let node = node_config(config, facts, host);
        let told = self.devices.entries()?.into_iter().collect();
        // Until both are known to be in order, assume that something was changed: another attempt may find nothing left to change.
        let mut due = std::mem::take(&mut self.due);
        self.due.node();
        if sync_map(&self.devices, devices(config, facts, host, &told))?.is_change() {
            due.node();
        }
        if self.map.get(&0)? != Some(node) {
            self.map.insert(&0, &node)?;
            due.node();
        }
        self.due = due;
        self.due.raise(&self.epochs)
    }

    /// Exempts that UDP port, or none, from the host's connection tracking.
    pub(crate) async fn untrack(&self, port: Option<u16>) -> Result<()> {
        let hooks = Arc::clone(&self.hooks);
        statedb::blocking(move || hooks.untrack_udp(port)).await
    }

    /// Routes out of the node have changed: flows that used them are decided again.
    pub(crate) fn routes_changed(&self, concerned: &Concerned) -> Result<()> {
        match concerned {
            Concerned::Nobody => Ok(()),
            Concerned::Everyone => self.epochs.bump_node(),
            Concerned::Peers(peers) => one_of_each_slot(peers).try_for_each(|peer| self.epochs.bump_peer(peer)),
        }
    }

    /// Attaching and detaching wait for the kernel's lock for all interfaces.
    async fn change(
        &self,
        pin: &str,
        work: impl FnOnce(&dyn Hooks, &str) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (hooks, pin) = (Arc::clone(&self.hooks), pin.to_owned());
        statedb::blocking(move || work(&*hooks, &pin)).await
    }

    /// Notes what earlier processes have attached.
    fn sweep(&mut self) -> Result<()> {
        if !self.swept {
            for link in self.hooks.links()?.into_iter().filter(|link| is_ours(&link.name)) {
                self.attached.entry(link.name).or_default();
            }
            self.swept = true;
        }
        Ok(())
    }

    async fn remove(&mut self, pin: &str) -> Result<()> {
        self.change(pin, |hooks, pin| hooks.detach(pin).map(drop)).await?;
        self.attached.remove(pin);
        Ok(())
    }

    async fn detach_others(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let others: Vec<String> = self.attached.keys().filter(|pin| !is_wanted(pin)).cloned().collect();
        for pin in others {
            self.remove(&pin).await?;
        }
        Ok(())
    }
}

/// Peers that share a slot are bumped together.
fn one_of_each_slot(peers: &BTreeSet<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let slot = |peer: &IpAddr| (abi::epoch::of_peer((*peer).into()), *peer);
    let by_slot: BTreeMap<u32, IpAddr> = peers.iter().map(slot).collect();
    by_slot.into_values()
}

fn pin(device: &str, program: Program) -> String {
    format!("dev_{device}_{}", direction(program).name())
}

fn is_ours(pin: &str) -> bool {
    let at_tc = [Direction::Ingress, Direction::Egress].iter().any(|way| pin.ends_with(way.name()));
    pin.starts_with("dev_") && (at_tc || early::is_pin(pin))
}

fn direction(program: Program) -> Direction {
    if program == Program::NetdevEgress { Direction::Egress } else { Direction::Ingress }
}

fn index(host: &Host, name: &str) -> Option<u32> {
    host.links.iter().find(|link| link.name == name).map(|link| link.index)
}

/// Which program belongs where, by pin name.
fn wanted(facts: &Facts, host: &Host, exposed: bool) -> BTreeMap<String, (Program, u32)> {
    let way_out = exposed.then_some(Program::NetdevEgress);
    let of_native = || std::iter::once(Program::NetdevIngress).chain(way_out);
    let named = |device: &str, program, index| (pin(device, program), (program, index));
    let native =
        facts.devices.iter().flat_map(|device| of_native().map(|program| named(&device.name, program, device.index)));
    let overlay = index(host, OVERLAY_DEVICE).map(|index| named(OVERLAY_DEVICE, Program::OverlayIngress, index));
    native.chain(overlay).collect()
}

/// The facts about the node for the programs.
fn node_config(config: &Config, facts: &Facts, host: &Host) -> NodeConfig {
    let first = facts.devices.first();
    let masquerade = first.map(|device| masquerade(config, facts, device)).unwrap_or_default();
    NodeConfig {
        masquerade_ipv4: masquerade.masquerade_ipv4,
        masquerade_ipv6: masquerade.masquerade_ipv6,
        tunnel_ipv4: facts.wire.ipv4.map(Into::into).unwrap_or_default(),
        tunnel_ipv6: facts.wire.ipv6.map(Into::into).unwrap_or_default(),
        overlay_ifindex: index(host, OVERLAY_DEVICE).unwrap_or_default(),
        native_ifindex: first.map(|device| device.index).unwrap_or_default(),
        node_identity: abi::identity::REMOTE_NODE,
        host_ifindex: index(host, HOST_DEVICE).unwrap_or_default(),
        native_mac: first.and_then(model::Device::mac).map(|mac| mac.0).unwrap_or_default(),
        pad: [0; 10],
    }
}

/// A device's masquerading addresses, if it masquerades.
fn masquerade(config: &Config, facts: &Facts, device: &model::Device) -> Device {
    let ipv4 = device.ipv4.filter(|_| config.masquerade_ipv4 && facts.row.ipv4.is_some());
    let ipv6 = device.ipv6.filter(|_| config.masquerade_ipv6 && facts.row.ipv6.is_some());
    Device {
        masquerade_ipv4: ipv4.map(|ip| IpAddr::V4(ip).into()).unwrap_or_default(),
        masquerade_ipv6: ipv6.map(|ip| IpAddr::V6(ip).into()).unwrap_or_default(),
    }
}

/// The facts about native devices for the programs, given the previous ones. A masquerading address stays as long as
/// the device has it, since connections use it, although the kernel lists a newly added IPv6 address first.
fn devices(
    config: &Config,
    facts: &Facts,
    host: &Host,
    told: &BTreeMap<u32, Device>,
) -> impl Iterator<Item = (u32, Device)> {
    facts.devices.iter().map(|device| {
        let before = told.get(&device.index).copied().unwrap_or_default();
        let wanted = masquerade(config, facts, device);
        let has = |address: Addr| {
            host.addresses.iter().any(|a| a.ifindex == device.index && Addr::from(a.net.addr()) == address)
        };
        let choose = |before: Addr, wanted: Addr| if !wanted.is_none() && has(before) { before } else { wanted };
        let device_row = Device {
            masquerade_ipv4: choose(before.masquerade_ipv4, wanted.masquerade_ipv4),
            masquerade_ipv6: choose(before.masquerade_ipv6, wanted.masquerade_ipv6),
        };
        (device.index, device_row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::KubeNode;
    use crate::local::tests::{config, facts, host, kube, link};
    use crate::publish::tests::published;
    use crate::publish::{NodeFacts, Publication};
    use datapath::fake;
    use datapath::netlink::{Address, Scope};

    fn found(host: &Host) -> Facts {
        facts(&config(), host, &kube(), None).unwrap()
    }

    #[test]
    fn every_native_device_and_the_tunnel_have_a_program() {
        let mut host = host();
        let native: Vec<_> = wanted(&found(&host), &host, false).into_iter().collect();
        assert_eq!(
            native,
            [
                ("dev_eth0_ingress".to_owned(), (Program::NetdevIngress, 2)),
                ("dev_eth1_ingress".to_owned(), (Program::NetdevIngress, 3)),
            ]
        );
        let exposed: Vec<_> = wanted(&found(&host), &host, true).into_values().collect();
        let both = [Program::NetdevEgress, Program::NetdevIngress];
        assert_eq!(exposed, [2, 3].map(|index| both.map(|program| (program, index))).as_flattened());
        host.links.push(link(9, OVERLAY_DEVICE));
        let overlay = wanted(&found(&host), &host, false).remove("dev_cilium_vxlan_ingress");
        assert_eq!(overlay, Some((Program::OverlayIngress, 9)));
    }

    #[test]
    fn programs_are_told_of_the_device_that_leads_to_other_nodes() {
        let mut host = host();
        host.links.push(link(9, OVERLAY_DEVICE));
        let told = node_config(&config(), &found(&host), &host);
        assert_eq!((told.native_ifindex, told.overlay_ifindex, told.host_ifindex), (3, 9, 6));
        assert_eq!(told.native_mac, [2, 0, 0, 0, 0, 3]);
        assert_eq!(IpAddr::from(told.masquerade_ipv4).to_string(), "192.168.77.11");
    }

    #[test]
    fn masqueraded_traffic_leaves_each_device_under_an_address_of_its_own() {
        let (host, off) = (host(), Config { masquerade_ipv6: false, ..config() });
        let told = |config: &Config| -> Vec<(u32, [String; 2])> {
            let text = |addr: abi::Addr| IpAddr::from(addr).to_string();
            let of =
                |(index, device): (u32, Device)| (index, [text(device.masquerade_ipv4), text(device.masquerade_ipv6)]);
            let found = facts(config, &host, &kube(), None).unwrap();
            devices(config, &found, &host, &BTreeMap::new()).map(of).collect()
        };
        let [eth1, eth0] = [["192.168.77.11", "fd77::11"], ["203.0.113.7", "::"]].map(|both| both.map(str::to_owned));
        assert_eq!(told(&config()), [(3, eth1.clone()), (2, eth0.clone())]);
        let no_ipv4 = Config { masquerade_ipv4: false, ..config() };
        assert_eq!(told(&no_ipv4)[0], (3, ["::".to_owned(), eth1[1].clone()]));
        assert_eq!(told(&off), [(3, [eth1[0].clone(), "::".to_owned()]), (2, eth0)]);
    }

    #[test]
    fn masqueraded_traffic_keeps_its_address_while_the_device_has_it() {
        let global = |address: &str| Address { ifindex: 2, net: address.parse().unwrap(), scope: Scope::Universe };
        let mut host = host();
        host.addresses.push(global("2001:db8::7/64"));
        let of = |config: &Config, host: &Host, told: &BTreeMap<u32, Device>| -> BTreeMap<u32, Device> {
            devices(config, &facts(config, host, &kube(), None).unwrap(), host, told).collect()
        };
        let told = of(&config(), &host, &BTreeMap::new());
        for (new, old) in [("203.0.113.1/24", "203.0.113.7/24"), ("2001:db8::1/64", "2001:db8::7/64")] {
            // The kernel may list new addresses first.
            let mut both = host.clone();
            both.addresses.insert(0, global(new));
            assert_ne!(of(&config(), &both, &BTreeMap::new()), told, "{new} would be chosen");
            assert_eq!(of(&config(), &both, &told), told, "{new}");
            let mut only = both.clone();
            only.addresses.retain(|address| *address != global(old));
            assert_eq!(of(&config(), &only, &told), of(&config(), &only, &BTreeMap::new()), "{old} is gone");
        }
        let off = Config { masquerade_ipv4: false, masquerade_ipv6: false, ..config() };
        assert_eq!(of(&off, &host, &told), of(&off, &host, &BTreeMap::new()), "nothing is masqueraded");
    }

    #[test]
    fn tunnel_packets_come_from_the_address_that_other_nodes_know() {
        let told = |config: &Config, host: &Host, kube: &KubeNode| {
            let node = node_config(config, &facts(config, host, kube, None).unwrap(), host);
            [node.masquerade_ipv4, node.tunnel_ipv4, node.tunnel_ipv6].map(|addr| IpAddr::from(addr).to_string())
        };
        // The node's address in Kubernetes is not on the device.
        let kube = KubeNode { internal_ips: vec!["192.168.77.99".parse().unwrap()], ..kube() };
        assert_eq!(told(&config(), &host(), &kube), ["203.0.113.7", "192.168.77.99", "::"]);
        let off = Config { masquerade_ipv4: false, masquerade_ipv6: false, ..config() };
        assert_eq!(told(&off, &host(), &self::kube()), ["::", "192.168.77.11", "fd77::11"], "whatever is masqueraded");
        let only_ipv6 = Config { ipv4: false, ..config() };
        assert_eq!(told(&only_ipv6, &host(), &self::kube()), ["::", "::", "fd77::11"]);
    }

    #[tokio::test]
    async fn flows_are_told_of_new_facts_however_often_telling_fails() {
        for seed in 0..50 {
            let kernel = fake::Kernel::new();
            let chaos = fake::chaos(kernel.clone(), 0.3, seed);
            let epochs = (0..100).find_map(|_| Epochs::open(&chaos).ok()).unwrap();
            let (maps, hooks): (Arc<dyn Kernel>, Arc<dyn Hooks>) = (Arc::new(chaos), Arc::new(fake::Hooks::default()));
            let programs = || Programs::new(&maps, Arc::clone(&hooks), epochs.clone(), Exposure::default()).ok();
            let mut programs = (0..100).find_map(|_| programs()).unwrap();
            let mut tries = 0..1000;
            while programs.sync(&config(), &found(&host()), &host()).await.is_err() {
                assert!(tries.next().is_some());
            }
            assert!(Epochs::open(&kernel).unwrap().node().unwrap() > 0, "seed {seed}");
        }
    }

    #[test]
    fn they_are_the_addresses_that_are_published() {
        let (kube, host) = (kube(), host());
        let found = facts(&config(), &host, &kube, None).unwrap();
        let node = published(&Publication::new(&config(), &kube, NodeFacts::Complete(&found), Vec::new(), "b"));
        let told = node_config(&config(), &found, &host);
        let first = |v4: bool| node.internal_ips.iter().find(|ip| ip.is_ipv4() == v4).copied().unwrap();
        assert_eq!((IpAddr::from(told.tunnel_ipv4), IpAddr::from(told.tunnel_ipv6)), (first(true), first(false)));
    }

    #[test]
    fn only_pins_of_devices_are_taken_for_ours() {
        assert!(is_ours("dev_eth0_ingress") && !is_ours("pod_lxc1_ingress") && !is_ours("sock_connect4"));
    }
}
