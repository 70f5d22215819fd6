// SPDX-License-Identifier: Apache-2.0
//! What user space changes, in the maps and in the model.

use std::net::IpAddr;

use abi::Addr;
use abi::endpoint::{Endpoint, flags};
use abi::ipcache::IpcacheEntry;
use abi::ipcache::flags::NO_MASQUERADE;
use abi::maps::{Endpoints, Flows, Ipcache4, Ipcache6, Locals};
use abi::policy::{DENY_PRECEDENCE, EGRESS, INGRESS, PREFIX_L3, PolicyEntry, PolicyKey};
use datapath::{Kernel, LpmKey};

use super::super::naive::{Enforced, News, Peer, Pod, Side};
use super::super::steps::{self, Who};
use super::super::talk::Slot;
use super::{Drive, mac};
use crate::world::full;

impl Drive<'_> {
    pub(super) fn set_peer(&mut self, ip: IpAddr, peer: Peer) {
        self.model.peers.insert(ip, peer);
        let entry = IpcacheEntry {
            identity: peer.identity,
            tunnel: peer.node.map_or(Addr::NONE, Addr::from),
            flags: if peer.plain { NO_MASQUERADE } else { 0 },
            ..IpcacheEntry::default()
        };
        self.world.set_ipcache(ip, full(ip), entry);
    }

    /// Nothing is known of the address.
    pub(super) fn remove_peer(&mut self, who: Who) {
        let ip = self.ip(who);
        self.model.peers.remove(&ip);
        match ip {
            IpAddr::V4(ip) => {
                self.world.datapath.trie::<Ipcache4>().unwrap().remove(&LpmKey::new(32, ip.octets())).unwrap();
            }
            IpAddr::V6(ip) => {
                self.world.datapath.trie::<Ipcache6>().unwrap().remove(&LpmKey::new(128, ip.octets())).unwrap();
            }
        }
    }

    pub(super) fn shift(&mut self, who: Who, identity: u32, to_third: bool) {
        let [second, third] = self.nodes();
        let node = (!matches!(who, Who::World | Who::Guest)).then_some(if to_third { third } else { second });
        let ip = self.ip(who);
        self.set_peer(ip, Peer { identity, node, plain: node.is_some() && !self.model.tunnel });
        self.untold.push(News::Peer(ip));
    }

    pub(super) fn enforce(&mut self, slot: Slot, enforced: Enforced) {
        if let Some(pod) = &mut self.model.pods[slot] {
            pod.enforced = enforced;
            let pod = *pod;
            self.install(slot, pod);
            self.untold.push(News::Pod(pod.id));
        }
    }

    pub(super) fn prepare(&mut self, slot: Slot, ready: bool) {
        if let Some(pod) = &mut self.model.pods[slot] {
            pod.ready = ready;
            let pod = *pod;
            self.install(slot, pod);
            self.untold.push(News::Pod(pod.id));
        }
    }

    fn install(&self, slot: Slot, pod: Pod) {
        let flag = |on, flag| if on { flag } else { 0 };
        let addr = Addr::from(pod.ip);
        let endpoint = Endpoint {
            ifindex: self.interfaces[slot],
            identity: pod.identity,
            policy: pod.id.into(),
            id: pod.id,
            flags: flag(pod.enforced.ingress, flags::INGRESS_ENFORCED)
                | flag(pod.enforced.egress, flags::EGRESS_ENFORCED)
                | flag(!pod.ready, flags::NOT_READY),
            mac: mac(0xa, slot),
            host_mac: mac(0xb, slot),
            pad: 0,
            ipv4: if pod.ip.is_ipv4() { addr } else { Addr::NONE },
            ipv6: if pod.ip.is_ipv6() { addr } else { Addr::NONE },
        };
        self.world.put(self.world.datapath.map::<Endpoints>().unwrap(), &endpoint.ifindex, &endpoint);
        self.world.put(self.world.datapath.map::<Locals>().unwrap(), &addr, &endpoint);
    }

    pub(super) fn leave(&mut self, slot: Slot) {
        self.world.datapath.map::<Endpoints>().unwrap().remove(&self.interfaces[slot]).unwrap();
        if let Some(pod) = self.model.pods[slot].take() {
            self.world.remove_local(pod.ip);
            self.untold.extend([News::Pod(pod.id), News::Peer(pod.ip)]);
        }
    }

    pub(super) fn come(&mut self, slot: Slot, address_of: Slot) {
        let ip = self.ip(Who::Pod(address_of));
        if self.model.pods[slot].is_some() || self.model.slot_of(ip).is_some() {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let pod = Pod { id, identity: 900 + u32::from(id), ip, enforced: Enforced::default(), ready: true };
        self.model.pods[slot] = Some(pod);
        self.install(slot, pod);
        self.untold.extend([News::Pod(id), News::Peer(ip)]);
    }

    pub(super) fn rule(&mut self, slot: Slot, side: Side, peer: steps::Peer, allow: Option<bool>) {
        let Some(pod) = self.model.pods[slot] else { return };
        let identity = match peer {
            steps::Peer::Anybody => 0,
            steps::Peer::Is(who) => self.model.identity(self.ip(who)),
            steps::Peer::Identity(identity) => identity,
        };
        let direction = if side == Side::Ingress { INGRESS } else { EGRESS };
        let key = PolicyKey { policy: pod.id.into(), identity, direction, proto: 0, port: 0 };
        let key = LpmKey::new(PREFIX_L3, key);
        let policies = self.world.datapath_policies();
        let name = (pod.id, side, identity);
        match allow {
            Some(allow) => {
                let precedence = if allow { PREFIX_L3 } else { DENY_PRECEDENCE };
                let entry = PolicyEntry {
                    precedence,
                    deny: u8::from(!allow),
                    prefix_len: PREFIX_L3 as u8,
                    ..PolicyEntry::default()
                };
                self.world.put(policies, &key, &entry);
                self.model.rules.insert(name, allow);
            }
            None => {
                if self.model.rules.remove(&name).is_some() {
                    policies.remove(&key).unwrap();
                }
            }
        }
        self.untold.push(News::Pod(pod.id));
    }

    pub(super) fn tell(&mut self) {
        for news in std::mem::take(&mut self.untold) {
            match news {
                News::Node => self.world.epochs.bump_node(),
                News::Peer(ip) => self.world.epochs.bump_peer(ip),
                News::Pod(id) => self.world.epochs.bump_endpoint(id),
            }
            .unwrap();
            self.model.hear(news);
        }
    }

    pub(super) fn lose(&mut self, nth: usize, record: bool, alias: bool) {
        let dump = self.dump();
        let Some((pair, (key, lost))) = dump.records.iter().nth(nth % dump.records.len().max(1)) else { return };
        let flows = self.world.datapath.map::<Flows>().unwrap();
        if record {
            flows.remove(key).unwrap();
        }
        if alias
            && let Some((key, _, own)) = dump.aliases.get(&lost.answer.pair())
            && own == pair
        {
            flows.remove(key).unwrap();
        }
        self.model.lose(*pair, record, alias);
    }
}
