// SPDX-License-Identifier: Apache-2.0
//! Takes the datapath and the model through the same steps, and compares them after each.

mod change;
mod compare;
mod say;
mod serve;

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::flow::FlowKey;
use abi::fragments::Fragmented;
use abi::maps::{Flows, Fragments, Openings, OpeningsNext};
use abi::{identity, rings};
use datapath::Kernel;
use datapath::flows::{Collector, now};

use super::dump::Dump;
use super::naive::{Enforced, Model, News, Peer, Room};
use super::offers::OFFERS;
use super::steps::{Conversation, Seen, Step, Who};
use super::talk::{By, End, Message, Part, Place, Proto, Slot, Talk};
use crate::devices::NODE_MAC;
use crate::world::{Family, World, families};

pub(crate) struct Drive<'a> {
    world: &'a mut World,
    family: Family,
    interfaces: [u32; 3],
    model: Model,
    /// Changes of which the programs have not been told.
    untold: Vec<News>,
    next_id: u16,
    /// Ids of backends.
    backends: BTreeMap<(End, Proto), u32>,
    /// Packets that were served before the stack.
    pub(super) early: u32,
}

impl<'a> Drive<'a> {
    /// A node on which nothing has happened, with a pod on each of the interfaces.
    pub(crate) fn new(world: &'a mut World, family: Family, interfaces: [u32; 3]) -> Self {
        world.reset();
        world.set_node(|node| node.native_mac = NODE_MAC);
        let config = *world.datapath.config();
        let (places, tunnel) = (config.openings, config.tunnel != 0);
        let table = world.datapath.map::<Flows>().unwrap().capacity() as usize;
        let model = Model::new(family.node, &config, Room { table, ring: places as usize });
        let backends = BTreeMap::new();
        let mut drive = Self { world, family, interfaces, model, untold: Vec::new(), next_id: 101, backends, early: 0 };
        drive.forget_latest(places);
        let fragments = drive.world.datapath.map::<Fragments>().unwrap();
        let used = fragments.entries().unwrap().into_iter().filter(|(_, first)| *first != Fragmented::default());
        used.for_each(|(place, _)| fragments.insert(&place, &Fragmented::default()).unwrap());
        for who in [Who::Pod(0), Who::Pod(1), Who::Pod(2)] {
            drive.remove_peer(who);
        }
        for node in drive.nodes() {
            drive.set_peer(node, Peer { identity: identity::REMOTE_NODE, node: None, plain: false });
        }
        let [second, third] = drive.nodes();
        for (who, identity, node) in [
            (Who::Remote, crate::world::REMOTE_IDENTITY, Some(second)),
            (Who::Third, identity::KUBE_APISERVER, Some(third)),
            (Who::World, identity::WORLD, None),
            (Who::Guest, identity::WORLD, None),
        ] {
            // The network that routes pods' addresses has to see them.
            drive.set_peer(drive.ip(who), Peer { identity, node, plain: node.is_some() && !tunnel });
        }
        for slot in 0..3 {
            drive.leave(slot);
        }
        for slot in 0..3 {
            drive.come(slot, slot);
        }
        drive.forget_services();
        for service in 0..OFFERS.len() {
            drive.serve(service, u8::MAX);
        }
        drive.tell();
        drive
    }

    fn forget_latest(&self, places: u32) {
        let (rings, next) = (self.world.datapath.map::<Openings>().unwrap(), self.world.datapath.map::<OpeningsNext>());
        let next = next.unwrap();
        let services = (1..=OFFERS.len() as u32).map(rings::of_service);
        for ring in self
            .interfaces
            .into_iter()
            .flat_map(|ifindex| [rings::of(ifindex, false), rings::of(ifindex, true)])
            .chain(services)
        {
            next.insert(&ring, &0).unwrap();
            (0..places).for_each(|place| rings.insert(&(ring * places + place), &FlowKey::default()).unwrap());
        }
        let height = next.get(&rings::STACK).unwrap().unwrap();
        for place in (0..height).filter_map(|height| rings::stack_place(height, places)) {
            rings.insert(&place, &FlowKey::default()).unwrap();
        }
        next.insert(&rings::STACK, &0).unwrap();
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
            Who::Guest => ip(if v4 { "198.51.100.8" } else { "2001:db8:ffff::8" }),
            Who::Service => self.family.service,
            Who::Balancer => ip(if v4 { "203.0.113.80" } else { "2001:db8:80::80" }),
        }
    }

    /// Does what the step says. `Err` when the datapath does what it must not.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), String> {
        let before = self.untold.len();
        let told = match step {
            Step::Say { conversation, reply, untranslated, flags, seen, part, tells } => {
                let talk = self.talk(conversation, reply, untranslated);
                let flags = if talk.proto == Proto::Tcp { flags } else { 0 };
                let Some(place) = self.place(talk, seen) else { return Ok(()) };
                let tells = tells.filter(|_| !reply && self.may_tell(place, talk)).map(|nth| self.frontend(nth));
                let plain = Message { place, talk, flags, about: None, part, tells, inside: None };
                return self.say(self.dispatched(plain), true);
            }
            Step::Complain { conversation, reply, untranslated, kind, by, to, seen } => {
                let about = self.talk(conversation, reply, untranslated).back();
                let from = by.map_or(about.to.ip, |who| self.ip(who));
                let talk = Talk::error(from, to.map_or(about.from.ip, |who| self.ip(who)));
                let kinds = if from.is_ipv4() { [3, 11] } else { [2, 1] };
                return match self.place(talk, seen) {
                    Some(place) => {
                        let flags = kinds[usize::from(kind)];
                        let part = Part::Whole;
                        self.say(
                            Message { place, talk, flags, about: Some(about), part, tells: None, inside: None },
                            true,
                        )
                    }
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
            Step::Ready { slot, ready, told } => {
                self.prepare(slot, ready);
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
            Step::Change { service, terms, told } => {
                self.change(service, terms);
                told
            }
            Step::List { service, who, denied, listed, told } => {
                self.list(service, who, denied, listed);
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
                // Each round looks at a share of them, and removes in the next. No time passes.
                for _ in 0..17 {
                    collector.collect(0).unwrap();
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
        flow.map_or(opening.back(), |flow| flow.replies())
    }

    /// The identity that comes with what somebody sends: to itself, an API server's node is a node like others.
    fn vni(&self, src: IpAddr) -> u32 {
        match self.model.identity(src) {
            identity::KUBE_APISERVER => identity::REMOTE_NODE,
            identity => identity,
        }
    }

    /// Whether the packet may come from a node that was asked for a frontend.
    fn may_tell(&self, place: Place, talk: Talk) -> bool {
        let returns = self.world.datapath.config().direct_return != 0;
        returns && place == Place::Wire && matches!(talk.proto, Proto::Tcp | Proto::Udp)
    }

    /// What tells of a frontend, as nodes tell of it here.
    fn dispatched(&self, message: Message) -> Message {
        match message.tells {
            Some(frontend) if self.model.inside => {
                let talk = Talk { to: frontend, ..message.talk };
                Message { talk, tells: None, inside: Some(message.talk.to.ip), ..message }
            }
            _ => message,
        }
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
            Seen::Tunnelled { .. } if !self.model.tunnel => Some(Place::Wire),
            Seen::Tunnelled { by_its_node, vni } => {
                let [second, third] = self.nodes();
                let other = if behind == Some(second) { third } else { second };
                let node = if by_its_node { behind.unwrap_or(second) } else { other };
                Some(Place::Tunnel { node, vni: vni.unwrap_or(self.vni(src)) })
            }
            Seen::Rightly if src == self.family.node => Some(Place::Stack { into: into?, by: By::Itself }),
            Seen::Rightly => Some(match (self.model.slot_of(src), behind) {
                (Some(slot), _) => Place::Pod(slot),
                (None, Some(node)) => Place::Tunnel { node, vni: self.vni(src) },
                (None, None) => Place::Wire,
            }),
        }
    }
}

fn mac(side: u8, slot: Slot) -> [u8; 6] {
    [2, 0, 0, 1, side, slot as u8]
}
