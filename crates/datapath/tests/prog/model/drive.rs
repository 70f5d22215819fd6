// SPDX-License-Identifier: Apache-2.0
//! Takes the datapath and the model through the same steps, and compares them after each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::endpoint::{Endpoint, flags};
use abi::event::kind;
use abi::flow::FlowKey;
use abi::lb::{Backend, Service, ServiceKey, SlotKey};
use abi::maps::{Backends, Endpoints, Flows, Ipcache4, Ipcache6, Locals, Openings, OpeningsNext, Services, Slots};
use abi::policy::{DENY_PRECEDENCE, EGRESS, INGRESS, PREFIX_L3, PolicyEntry, PolicyKey};
use abi::{Addr, DropReason, identity, rings};
use datapath::bpf::{self, Program};
use datapath::flows::{Collector, now};
use datapath::{Kernel, LpmKey};

use super::dump::Dump;
use super::naive::{Enforced, Expected, Hint, Model, News, Peer, Pod, Side};
use super::steps::{self, Conversation, Seen, Step, Who};
use super::talk::{By, End, Message, Outcome, Place, Proto, Slot, Talk, Way};
use super::wire;
use crate::packet::SYN;
use crate::world::{Family, World, families, full};

/// Drops, and what else is told.
const SHOT: i32 = 2;

/// Protocol, port, and the backends that it may have.
type Offer = (Proto, u16, &'static [(Who, u16)]);

const SERVICES: [Offer; 4] = [
    (Proto::Tcp, 80, &[(Who::Pod(1), 8080), (Who::Remote, 8080)]),
    (Proto::Tcp, 81, &[(Who::Pod(1), 8080), (Who::Pod(2), 8080)]),
    (Proto::Udp, 7946, &[(Who::Pod(1), 7946), (Who::Remote, 7946)]),
    (Proto::Udp, 7947, &[(Who::Pod(0), 7946)]),
];

pub(crate) struct Drive<'a> {
    world: &'a mut World,
    family: Family,
    interfaces: [u32; 3],
    model: Model,
    /// Changes of which the programs have not been told.
    untold: Vec<News>,
    next_id: u16,
}

impl<'a> Drive<'a> {
    /// A node on which nothing has happened, with a pod on each of the interfaces.
    pub(crate) fn new(world: &'a mut World, family: Family, interfaces: [u32; 3]) -> Self {
        world.reset();
        let places = world.datapath.config().openings;
        let model = Model::new(family.node, places as usize);
        let mut drive = Self { world, family, interfaces, model, untold: Vec::new(), next_id: 101 };
        drive.forget_latest(places);
        for who in [Who::Pod(0), Who::Pod(1), Who::Pod(2)] {
            drive.remove_peer(who);
        }
        for node in drive.nodes() {
            drive.set_peer(node, Peer { identity: identity::REMOTE_NODE, node: None });
        }
        let [second, third] = drive.nodes();
        for (who, identity, node) in [
            (Who::Remote, crate::world::REMOTE_IDENTITY, Some(second)),
            (Who::Third, 2002, Some(third)),
            (Who::World, identity::WORLD, None),
        ] {
            drive.set_peer(drive.ip(who), Peer { identity, node });
        }
        for slot in 0..3 {
            drive.leave(slot);
        }
        for slot in 0..3 {
            drive.come(slot, slot);
        }
        for service in 0..SERVICES.len() {
            drive.serve(service, u8::MAX);
        }
        drive.tell();
        drive
    }

    fn forget_latest(&self, places: u32) {
        let (rings, next) = (self.world.datapath.map::<Openings>().unwrap(), self.world.datapath.map::<OpeningsNext>());
        let next = next.unwrap();
        for ring in
            self.interfaces.into_iter().flat_map(|ifindex| [rings::of(ifindex, false), rings::of(ifindex, true)])
        {
            next.insert(&ring, &0).unwrap();
            (0..places).for_each(|place| rings.insert(&(ring * places + place), &FlowKey::default()).unwrap());
        }
    }

    /// The nodes that tunnels lead to.
    fn nodes(&self) -> [IpAddr; 2] {
        [families()[0].node2, "192.0.2.30".parse().unwrap()]
    }

    fn ip(&self, who: Who) -> IpAddr {
        let v4 = self.family.a.is_ipv4();
        let ip = |text: &str| text.parse().unwrap();
        match who {
            Who::Pod(0) => self.family.a,
            Who::Pod(1) => self.family.b,
            Who::Pod(_) => ip(if v4 { "10.0.0.13" } else { "fd00::13" }),
            Who::Remote => self.family.remote,
            Who::Third => ip(if v4 { "10.0.2.5" } else { "fd00:2::5" }),
            Who::Node => self.family.node,
            Who::World => self.family.world,
            Who::Service => self.family.service,
        }
    }

    /// Does what the step says. `Err` when the datapath does what it must not.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), String> {
        let before = self.untold.len();
        let told = match step {
            Step::Say { conversation, reply, untranslated, flags, seen } => {
                let talk = self.talk(conversation, reply, untranslated);
                let flags = if talk.proto == Proto::Tcp { flags } else { 0 };
                return match self.place(talk, seen) {
                    Some(place) => self.say(Message { place, talk, flags }, true),
                    None => Ok(()),
                };
            }
            Step::Flood { pod, proto, flows } => {
                self.flood(pod, proto, flows)?;
                false
            }
            Step::Enforce { slot, ingress, egress, told } => {
                self.enforce(slot, Enforced { ingress, egress });
                told
            }
            Step::Rule { slot, side, peer, allow, told } => {
                self.rule(slot, side, peer, allow);
                told
            }
            Step::Move { who, identity, to_third, told } => {
                self.shift(who, identity, to_third);
                told
            }
            Step::Leave { slot, told } => {
                self.leave(slot);
                told
            }
            Step::Come { slot, address_of, told } => {
                self.come(slot, address_of);
                told
            }
            Step::Serve { service, backends, told } => {
                self.serve(service, backends);
                told
            }
            Step::Route => {
                self.untold.push(News::Node);
                true
            }
            Step::Tell => true,
            Step::Lose { nth, record, alias } => {
                self.lose(nth, record, alias);
                false
            }
            Step::Collect { silent } => {
                self.collector().collect(now() + silent).unwrap();
                self.model.collect(silent);
                false
            }
            Step::Sweep => {
                let mut collector = self.collector();
                // Each round looks at a share of them, and removes in the next.
                for _ in 0..17 {
                    collector.collect(now()).unwrap();
                }
                self.model.sweep();
                false
            }
        };
        if told && (self.untold.len() > before || matches!(step, Step::Tell)) {
            self.tell();
        }
        self.compare(&self.dump()).map_err(|difference| format!("{step:?}\n{difference}"))
    }

    fn dump(&self) -> Dump {
        Dump::of(self.world, self.interfaces)
    }

    fn collector(&self) -> Collector {
        Collector::new(self.world.datapath.map::<Flows>().unwrap())
    }

    fn talk(&self, conversation: Conversation, reply: bool, untranslated: bool) -> Talk {
        let Conversation { client, server, proto } = conversation;
        let from = End { ip: self.ip(client.0), port: Some(client.1) };
        let to = End { ip: self.ip(server.0), port: (proto != Proto::Echo).then_some(server.1) };
        let opening = Talk { from, to, proto };
        if !reply {
            return opening;
        }
        let flow = self.model.flows.iter().find(|flow| flow.opening == opening && !untranslated);
        flow.map_or(opening.back(), |flow| flow.answer())
    }

    /// `None` where nothing can come from.
    fn place(&self, talk: Talk, seen: Seen) -> Option<Place> {
        let src = talk.from.ip;
        let into = self.model.slot_of(talk.to.ip);
        let behind = self.model.node_of(src);
        match seen {
            Seen::OnTheWire => Some(Place::Wire),
            Seen::AtPod(slot) => Some(Place::Pod(slot)),
            Seen::Forwarded(by) => {
                let into = into?;
                let by = [By::Wire, By::Tunnel, By::Pod((into + 1) % 3)][usize::from(by)];
                Some(Place::Stack { into, by })
            }
            Seen::Tunnelled { by_its_node, vni } => {
                let [second, third] = self.nodes();
                let other = if behind == Some(second) { third } else { second };
                let node = if by_its_node { behind.unwrap_or(second) } else { other };
                Some(Place::Tunnel { node, vni: vni.unwrap_or(self.model.identity(src)) })
            }
            Seen::Rightly if src == self.family.node => Some(Place::Stack { into: into?, by: By::Itself }),
            Seen::Rightly => Some(match (self.model.slot_of(src), behind) {
                (Some(slot), _) => Place::Pod(slot),
                (None, Some(node)) => Place::Tunnel { node, vni: self.model.identity(src) },
                (None, None) => Place::Wire,
            }),
        }
    }

    fn flood(&mut self, slot: Slot, proto: Proto, flows: u16) -> Result<(), String> {
        let Some(pod) = self.model.pods[slot] else { return Ok(()) };
        for port in 20_000..20_000 + flows {
            let from = End { ip: pod.ip, port: Some(port) };
            let talk = Talk { from, to: End { ip: self.family.world, port: Some(4000) }, proto };
            let flags = if proto == Proto::Tcp { SYN } else { 0 };
            self.say(Message { place: Place::Pod(slot), talk, flags }, false)?;
        }
        Ok(())
    }

    /// A packet, for both. Looks at what is remembered of it, unless the packet shows all there is to know.
    fn say(&mut self, message: Message, looks: bool) -> Result<(), String> {
        let frame = wire::frame(&message, families()[0].node);
        let (program, ifindex, arrived_by) = match message.place {
            Place::Pod(slot) => (Program::PodEgress, self.interfaces[slot], self.interfaces[slot]),
            Place::Stack { into, by } => (Program::PodIngress, self.interfaces[into], self.arrived_by(by)),
            Place::Tunnel { .. } | Place::Wire => (Program::NetdevIngress, self.world.eth0, self.world.eth0),
        };
        let run = self.world.datapath.test_run_at(program, &frame, bpf::Place { ifindex, arrived_by }, 1).unwrap();
        let events = self.world.events();
        let drop = events.iter().find(|event| event.kind == kind::DROP);
        let outcome = match (run.verdict, drop) {
            (SHOT, Some(event)) => Outcome::Dropped(DropReason::from_code(event.reason).unwrap()),
            (SHOT, None) => return Err(format!("{message:?} is dropped and nobody is told")),
            (-1, _) => Outcome::Ignored,
            (0, _) => Outcome::Left(wire::talk(&run.packet)),
            _ => self.sent(&run.packet),
        };
        let dropped = drop.map(|event| {
            let end = |addr: Addr, port: u16| End { ip: addr.into(), port: Some(u16::from_be(port)) };
            Talk { from: end(event.src, event.sport), to: end(event.dst, event.dport), ..message.talk }
        });
        let sent = match outcome {
            Outcome::Sent(_, talk, _) | Outcome::Left(talk) => Some(talk),
            Outcome::Dropped(_) | Outcome::Ignored => None,
        };
        let dump = looks.then(|| self.dump());
        let records = dump.as_ref().map(Dump::records).unwrap_or_default();
        let hint = Hint { dropped, sent, records: &records };
        let seen = Expected { outcome, told: events.len() };
        let expected =
            self.model.see(&message, hint).map_err(|complaint| format!("{message:?}: {complaint}, {seen:?}"))?;
        if seen != expected {
            return Err(format!("{message:?}\n  must be {expected:?}\n  but is {seen:?}"));
        }
        match dump {
            Some(dump) => self.compare(&dump).map_err(|difference| format!("{message:?}\n{difference}")),
            None => Ok(()),
        }
    }

    fn arrived_by(&self, by: By) -> u32 {
        match by {
            By::Itself => 0,
            By::Wire => self.world.eth0,
            By::Tunnel => self.world.overlay,
            By::Pod(slot) => self.interfaces[slot],
        }
    }

    fn sent(&self, frame: &[u8]) -> Outcome {
        if let Some((node, vni, inner)) = wire::tunnelled(frame) {
            return Outcome::Sent(Way::Node(node), wire::talk(inner), Some(vni));
        }
        let pod = (0..3).find(|slot| frame[..12] == [mac(0xa, *slot), mac(0xb, *slot)].concat());
        Outcome::Sent(pod.map_or(Way::Wire, Way::Pod), wire::talk(frame), None)
    }

    /// What is remembered is what the model remembers, and nothing leads astray.
    fn compare(&self, dump: &Dump) -> Result<(), String> {
        let expected: BTreeMap<_, _> =
            self.model.records().into_iter().map(|record| (record.opening.pair(), record)).collect();
        for record in dump.records() {
            let pair = record.opening.pair();
            if expected.get(&pair) != Some(&record) {
                return Err(format!("  remembered {record:?}\n  instead of {:?}", expected.get(&pair)));
            }
        }
        if let Some(lost) = expected.keys().find(|pair| !dump.records.contains_key(pair)) {
            return Err(format!("  forgotten {lost:?}"));
        }
        let aliases: BTreeMap<_, _> =
            self.model.aliases.iter().map(|(answer, pair)| (answer.pair(), (*answer, *pair))).collect();
        let found: BTreeMap<_, _> =
            dump.aliases.iter().map(|(pair, (_, answer, own))| (*pair, (*answer, *own))).collect();
        if aliases != found {
            return Err(format!("  aliases {found:?}\n  instead of {aliases:?}"));
        }
        Ok(())
    }

    fn set_peer(&mut self, ip: IpAddr, peer: Peer) {
        self.model.peers.insert(ip, peer);
        self.world.set_identity((ip, full(ip)), peer.identity, peer.node);
    }

    /// Nothing is known of the address.
    fn remove_peer(&mut self, who: Who) {
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

    fn shift(&mut self, who: Who, identity: u32, to_third: bool) {
        let [second, third] = self.nodes();
        let node = (who != Who::World).then_some(if to_third { third } else { second });
        let ip = self.ip(who);
        self.set_peer(ip, Peer { identity, node });
        self.untold.push(News::Peer(ip));
    }

    fn enforce(&mut self, slot: Slot, enforced: Enforced) {
        if let Some(pod) = &mut self.model.pods[slot] {
            pod.enforced = enforced;
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
                | flag(pod.enforced.egress, flags::EGRESS_ENFORCED),
            mac: mac(0xa, slot),
            host_mac: mac(0xb, slot),
            pad: 0,
            ipv4: if pod.ip.is_ipv4() { addr } else { Addr::NONE },
            ipv6: if pod.ip.is_ipv6() { addr } else { Addr::NONE },
        };
        self.world.put(self.world.datapath.map::<Endpoints>().unwrap(), &endpoint.ifindex, &endpoint);
        self.world.put(self.world.datapath.map::<Locals>().unwrap(), &addr, &endpoint);
    }

    fn leave(&mut self, slot: Slot) {
        self.world.datapath.map::<Endpoints>().unwrap().remove(&self.interfaces[slot]).unwrap();
        if let Some(pod) = self.model.pods[slot].take() {
            self.world.remove_local(pod.ip);
            self.untold.extend([News::Pod(pod.id), News::Peer(pod.ip)]);
        }
    }

    fn come(&mut self, slot: Slot, address_of: Slot) {
        let ip = self.ip(Who::Pod(address_of));
        if self.model.pods[slot].is_some() || self.model.slot_of(ip).is_some() {
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let pod = Pod { id, identity: 900 + u32::from(id), ip, enforced: Enforced::default() };
        self.model.pods[slot] = Some(pod);
        self.install(slot, pod);
        self.untold.extend([News::Pod(id), News::Peer(ip)]);
    }

    fn rule(&mut self, slot: Slot, side: Side, peer: steps::Peer, allow: Option<bool>) {
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

    /// The service has those of its backends whose bits are set.
    fn serve(&mut self, service: usize, chosen: u8) {
        let (proto, port, backends) = SERVICES[service];
        let number = if proto == Proto::Tcp { 6 } else { 17 };
        let id = service as u32 + 1;
        let all = self.world.datapath.map::<Backends>().unwrap();
        let frontend = End { ip: self.family.service, port: Some(port) };
        let mut slots = Vec::new();
        for (nth, (who, port)) in backends.iter().enumerate() {
            let (backend, ip) = (id * 8 + nth as u32, self.ip(*who));
            if chosen & 1 << nth != 0 {
                let value = Backend { addr: ip.into(), port: port.to_be(), proto: number, ..Backend::default() };
                all.insert(&backend, &value).unwrap();
                let slot = SlotKey { service: id, slot: slots.len() as u32 };
                self.world.put(self.world.datapath.map::<Slots>().unwrap(), &slot, &backend);
                slots.push((backend, End { ip, port: Some(*port) }));
            } else if all.remove(&backend).unwrap() {
                self.untold.push(News::Peer(ip));
            }
        }
        let services = self.world.datapath.map::<Services>().unwrap();
        let mark = ServiceKey::mark(frontend.ip.into());
        services.insert(&mark, &Service::MARK).unwrap();
        let key = ServiceKey { port: port.to_be(), proto: number, ..mark };
        services.insert(&key, &Service { id, count: slots.len() as u32, ..Service::default() }).unwrap();
        self.model.services.insert((frontend, proto), slots);
        self.untold.push(News::Peer(frontend.ip));
    }

    fn tell(&mut self) {
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

    fn lose(&mut self, nth: usize, record: bool, alias: bool) {
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

fn mac(side: u8, slot: Slot) -> [u8; 6] {
    [2, 0, 0, 1, side, slot as u8]
}
