// SPDX-License-Identifier: Apache-2.0
//! What may happen, by chance. A step says what happens in words that hold whatever has happened before, so that a sequence without
//! some of its steps is one too.

use abi::identity;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::naive::Side;
use super::offers::{EXPOSED_FROM, OFFERS};
use super::talk::{Part, Proto, Slot};
use crate::packet::{ACK, FIN, RST, SYN};

/// Who may be at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever has the address that this pod had at first.
    Pod(Slot),
    /// A pod of another node.
    Remote,
    /// A pod of a third one.
    Third,
    Node,
    World,
    /// Another client outside.
    Guest,
    /// The address of the services.
    Service,
    /// The address of a load balancer.
    Balancer,
}

/// A conversation that somebody may open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversation {
    pub(crate) client: (Who, u16),
    pub(crate) server: (Who, u16),
    pub(crate) proto: Proto,
}

const fn talk(proto: Proto, client: (Who, u16), server: (Who, u16)) -> Conversation {
    Conversation { client, server, proto }
}

use Proto::{Echo, Tcp, Udp};
use Who::{Balancer, Guest, Node, Pod, Remote, Service, Third, World};

/// Few ends in many pairs, so that they get into each other's way.
const CONVERSATIONS: [Conversation; 31] = [
    talk(Tcp, (Pod(0), 1000), (Pod(1), 80)),
    talk(Tcp, (Pod(1), 80), (Pod(0), 1000)),
    talk(Tcp, (Pod(0), 1000), (Pod(1), 8080)),
    talk(Tcp, (Pod(1), 8080), (Pod(0), 1000)),
    talk(Tcp, (Pod(0), 1000), (Service, 80)),
    talk(Tcp, (Pod(0), 1000), (Service, 81)),
    talk(Tcp, (Pod(2), 1000), (Service, 80)),
    talk(Tcp, (Pod(0), 1000), (Remote, 8080)),
    talk(Tcp, (Remote, 8080), (Pod(0), 1000)),
    talk(Tcp, (Remote, 1000), (Pod(0), 80)),
    talk(Tcp, (Third, 1000), (Pod(1), 80)),
    talk(Tcp, (Pod(1), 1000), (Third, 80)),
    talk(Tcp, (World, 1000), (Pod(1), 80)),
    talk(Tcp, (Pod(0), 40001), (World, 80)),
    talk(Tcp, (Pod(1), 40001), (World, 80)),
    talk(Tcp, (World, 80), (Pod(0), 40001)),
    talk(Tcp, (Node, 1000), (Pod(1), 80)),
    talk(Tcp, (Pod(0), 1000), (Node, 80)),
    talk(Tcp, (Pod(0), 1000), (Service, 99)),
    talk(Udp, (Pod(0), 7946), (Pod(1), 7946)),
    talk(Udp, (Pod(1), 7946), (Pod(0), 7946)),
    talk(Udp, (Pod(0), 7946), (Service, 7946)),
    talk(Udp, (Pod(1), 7946), (Service, 7947)),
    talk(Udp, (Pod(0), 40001), (World, 53)),
    talk(Udp, (Pod(1), 40001), (World, 53)),
    talk(Udp, (Pod(2), 40001), (World, 53)),
    talk(Udp, (Remote, 7946), (Pod(0), 7946)),
    talk(Echo, (Pod(0), 7), (Pod(1), 0)),
    talk(Echo, (Pod(1), 7), (Pod(0), 0)),
    talk(Echo, (Pod(0), 40001), (World, 0)),
    talk(Echo, (Pod(1), 40001), (World, 0)),
];

/// The same of clients outside, and of what gets in their way.
const OUTSIDE: [Conversation; 27] = [
    talk(Tcp, (World, 40001), (Node, 30080)),
    talk(Tcp, (Guest, 40001), (Node, 30080)),
    talk(Tcp, (World, 40001), (Balancer, 80)),
    talk(Tcp, (Guest, 40001), (Balancer, 80)),
    talk(Tcp, (World, 40001), (Pod(1), 8080)),
    talk(Tcp, (World, 40001), (Balancer, 81)),
    talk(Tcp, (Pod(0), 1000), (Balancer, 80)),
    talk(Tcp, (Pod(1), 8080), (World, 40001)),
    talk(Tcp, (World, 40001), (Pod(2), 8080)),
    talk(Tcp, (World, 40001), (Balancer, 81)),
    talk(Tcp, (World, 40001), (Balancer, 99)),
    talk(Tcp, (Pod(0), 1000), (Node, 30080)),
    talk(Tcp, (World, 40001), (Service, 80)),
    talk(Tcp, (Remote, 8080), (Node, 40001)),
    talk(Tcp, (World, 40001), (Remote, 8080)),
    talk(Tcp, (World, 40001), (Node, 30080)),
    talk(Udp, (World, 40001), (Balancer, 53)),
    talk(Udp, (Guest, 40001), (Balancer, 53)),
    talk(Udp, (World, 40001), (Node, 30053)),
    talk(Udp, (World, 40001), (Pod(1), 7946)),
    talk(Udp, (World, 40001), (Balancer, 54)),
    talk(Udp, (Guest, 40001), (Node, 30053)),
    talk(Udp, (Pod(0), 40001), (Balancer, 53)),
    talk(Udp, (Guest, 40001), (Pod(1), 7946)),
    talk(Udp, (Remote, 7946), (Node, 40001)),
    talk(Udp, (Pod(1), 7946), (World, 40001)),
    talk(Echo, (World, 7), (Balancer, 0)),
];

/// Where a packet is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// Where packets of its sender come from.
    Rightly,
    OnTheWire,
    AtPod(Slot),
    /// Through the tunnel: from the node that the sender is behind, or the other one, under that identity.
    Tunnelled {
        by_its_node: bool,
        vni: Option<u32>,
    },
    /// Forwarded by the stack, from the wire, the tunnel or a pod.
    Forwarded(u8),
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// An end speaks.
    Say {
        conversation: Conversation,
        reply: bool,
        /// A reply names the ends that the client has named, whatever has become of these.
        untranslated: bool,
        flags: u8,
        seen: Seen,
        part: Part,
        /// Which frontend was asked, as another node tells, if it comes from the wire.
        tells: Option<usize>,
    },
    /// Somebody tells of an error about what an end has said: its other end or somebody on the way, to whoever said it or to another.
    Complain {
        conversation: Conversation,
        reply: bool,
        untranslated: bool,
        kind: bool,
        by: Option<Who>,
        to: Option<Who>,
        seen: Seen,
    },
    /// A pod opens many flows.
    Flood { pod: Slot, proto: Proto, flows: u16 },
    /// Policy of a pod is enforced or not.
    Enforce { slot: Slot, ingress: bool, egress: bool, told: bool },
    /// A pod gets its policy, or has it no more.
    Ready { slot: Slot, ready: bool, told: bool },
    /// A rule comes, changes or goes.
    Rule { slot: Slot, side: Side, peer: Peer, allow: Option<bool>, told: bool },
    /// An address gets another identity, or moves to the other node.
    Move { who: Who, identity: u32, to_third: bool, told: bool },
    /// A pod goes.
    Leave { slot: Slot, told: bool },
    /// A new pod comes, with the address that a pod had at first.
    Come { slot: Slot, address_of: Slot, told: bool },
    /// Which of its backends a service has.
    Serve { service: usize, backends: u8, told: bool },
    /// On which terms one serves clients outside.
    Change { service: usize, terms: Terms, told: bool },
    /// A client is listed among those that a service lets in, or that it refuses, or is so no more.
    List { service: usize, who: Who, denied: bool, listed: bool, told: bool },
    /// Routes have moved.
    Route,
    /// What has been changed before is told of now.
    Tell,
    /// A flow is lost, by its place in the table; with its alias or without, or the alias alone.
    Lose { nth: usize, record: bool, alias: bool },
    /// Time passes, and garbage is collected.
    Collect { silent: u32 },
    /// Aliases that lead nowhere are collected.
    Sweep,
}

/// How a service serves clients outside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) local_only: bool,
    /// Backends answer their clients themselves.
    pub(crate) direct: bool,
    pub(crate) affinity: bool,
    /// Whether clients are looked up in a list, and whether that refuses them.
    pub(crate) ranges: Option<bool>,
}

/// Whom a rule names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    Anybody,
    Is(Who),
    Identity(u32),
}

pub(crate) const IDENTITIES: [u32; 4] = [5001, 5002, crate::world::REMOTE_IDENTITY, identity::KUBE_APISERVER];

/// What a sequence is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// The table is small: crowds come early and often.
    pub(crate) crowded: bool,
    /// Clients outside speak to services.
    pub(crate) outside: bool,
}

/// The sequence of a seed.
pub(crate) fn sequence(seed: u64, kind: Kind) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let all: &[Conversation] = if kind.outside { &OUTSIDE } else { &CONVERSATIONS };
    // Neighbours in the list have ends in common.
    let some = rng.random_range(0..=all.len() - 8);
    let topics: Vec<Conversation> = all[some..some + 8].choose_multiple(&mut rng, 5).copied().collect();
    let len = rng.random_range(40..80);
    let mut steps = policies(&mut rng, if kind.outside { 0.2 } else { 0.4 });
    for service in (EXPOSED_FROM..OFFERS.len()).filter(|_| kind.outside) {
        steps.push(Step::Change { service, terms: terms(&mut rng), told: true });
    }
    for _ in 0..len {
        if kind.crowded && rng.random_bool(0.05) {
            let pod = rng.random_range(0..3);
            steps.push(flood(&mut rng, pod));
        }
        if kind.outside && rng.random_bool(0.15) {
            steps.push(service(&mut rng));
        }
        steps.push(step(&mut rng, &topics));
    }
    steps
}

/// What happens to services that clients outside use.
fn service(rng: &mut StdRng) -> Step {
    let (service, told) = (rng.random_range(EXPOSED_FROM..OFFERS.len()), rng.random_bool(0.7));
    match rng.random_range(0..6) {
        0..3 => Step::Serve { service, backends: rng.random_range(0..8), told },
        3 => Step::Change { service, terms: terms(rng), told },
        _ => {
            let who = *[World, World, Guest].choose(rng).unwrap();
            Step::List { service, who, denied: rng.random_bool(0.5), listed: rng.random_bool(0.5), told }
        }
    }
}

fn terms(rng: &mut StdRng) -> Terms {
    Terms {
        local_only: rng.random_bool(0.15),
        direct: rng.random_bool(0.5),
        affinity: rng.random_bool(0.2),
        ranges: *[None, None, None, Some(false), Some(true), Some(true)].choose(rng).unwrap(),
    }
}

/// Some pods let in, or may speak to, some peers alone from the beginning.
fn policies(rng: &mut StdRng, share: f64) -> Vec<Step> {
    let mut steps = Vec::new();
    for slot in (0..3).filter(|_| rng.random_bool(share)).collect::<Vec<_>>() {
        let (ingress, egress) = *[(true, false), (true, false), (true, true), (false, true)].choose(rng).unwrap();
        steps.push(Step::Enforce { slot, ingress, egress, told: true });
        for side in [Side::Ingress, Side::Egress] {
            for who in [Pod(0), Pod(1), Pod(2), Remote, Third, World, Node] {
                if rng.random_bool(0.7) {
                    steps.push(Step::Rule { slot, side, peer: Peer::Is(who), allow: Some(true), told: true });
                }
            }
        }
    }
    steps
}

fn step(rng: &mut StdRng, topics: &[Conversation]) -> Step {
    let slot = rng.random_range(0..3);
    let told = rng.random_bool(0.7);
    match rng.random_range(0..100) {
        0..64 => {
            let topic = *topics.choose(rng).unwrap();
            say(rng, topic)
        }
        64..72 => {
            let topic = *topics.choose(rng).unwrap();
            complain(rng, topic)
        }
        72 => flood(rng, slot),
        73 => Step::Ready { slot, ready: rng.random_bool(0.7), told },
        74..77 => Step::Enforce { slot, ingress: rng.random_bool(0.5), egress: rng.random_bool(0.3), told },
        77..83 => {
            let side = *[Side::Ingress, Side::Egress].choose(rng).unwrap();
            Step::Rule {
                slot,
                side,
                peer: peer(rng),
                allow: *[None, Some(true), Some(true), Some(false), Some(false)].choose(rng).unwrap(),
                told,
            }
        }
        83..86 => {
            let who = *[Remote, Third, World].choose(rng).unwrap();
            Step::Move { who, identity: *IDENTITIES.choose(rng).unwrap(), to_third: rng.random_bool(0.3), told }
        }
        86 => Step::Leave { slot, told },
        87 | 88 => Step::Come { slot, address_of: rng.random_range(0..3), told },
        89..92 => Step::Serve { service: rng.random_range(0..4), backends: rng.random_range(0..4), told },
        92 => Step::Route,
        93..95 => Step::Tell,
        95..98 => {
            let (record, alias) = *[(true, true), (true, true), (true, false), (false, true)].choose(rng).unwrap();
            Step::Lose { nth: rng.random_range(0..8), record, alias }
        }
        98 => Step::Collect { silent: *[30, 100, 9000].choose(rng).unwrap() },
        _ => Step::Sweep,
    }
}

fn flood(rng: &mut StdRng, pod: Slot) -> Step {
    Step::Flood { pod, proto: *[Tcp, Udp].choose(rng).unwrap(), flows: rng.random_range(20..70) }
}

fn peer(rng: &mut StdRng) -> Peer {
    match rng.random_range(0..4) {
        0 => Peer::Anybody,
        1 => Peer::Identity(*IDENTITIES.choose(rng).unwrap()),
        _ => Peer::Is(*[Pod(0), Pod(1), Pod(2), Remote, Third, World, Node].choose(rng).unwrap()),
    }
}

fn say(rng: &mut StdRng, conversation: Conversation) -> Step {
    let reply = rng.random_bool(0.45);
    let likely: &[u8] = if reply { &[SYN | ACK, ACK] } else { &[SYN, ACK] };
    let flags = if rng.random_bool(0.7) {
        *likely.choose(rng).unwrap()
    } else {
        *[SYN, SYN | ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK].choose(rng).unwrap()
    };
    let part = match (conversation.proto, rng.random_range(0..6)) {
        // The numbers of datagrams clash.
        (Udp | Echo, 0) => Part::First(rng.random_range(1..3)),
        (Udp | Echo, 1) => Part::Later(rng.random_range(1..3)),
        _ => Part::Whole,
    };
    let tells = rng.random_bool(0.5).then(|| rng.random_range(EXPOSED_FROM..OFFERS.len()));
    Step::Say { conversation, reply, untranslated: rng.random_bool(0.1), flags, seen: seen(rng), part, tells }
}

fn complain(rng: &mut StdRng, conversation: Conversation) -> Step {
    let somebody = |rng: &mut StdRng| *[Pod(0), Pod(1), Pod(2), Remote, Third, World, Node].choose(rng).unwrap();
    Step::Complain {
        conversation,
        reply: rng.random_bool(0.6),
        untranslated: rng.random_bool(0.1),
        kind: rng.random_bool(0.5),
        by: rng.random_bool(0.4).then(|| somebody(rng)),
        to: rng.random_bool(0.1).then(|| somebody(rng)),
        seen: seen(rng),
    }
}

fn seen(rng: &mut StdRng) -> Seen {
    match rng.random_range(0..20) {
        0 => Seen::OnTheWire,
        1 => Seen::AtPod(rng.random_range(0..3)),
        2 => Seen::Forwarded(rng.random_range(0..3)),
        3 | 4 => {
            let vni =
                *[None, Some(identity::HOST), Some(IDENTITIES[0]), Some(identity::REMOTE_NODE)].choose(rng).unwrap();
            Seen::Tunnelled { by_its_node: rng.random_bool(0.5), vni }
        }
        _ => Seen::Rightly,
    }
}
