// SPDX-License-Identifier: Apache-2.0
//! The datapath as one would describe it: lists that are searched from end to end, no epochs, keys or halves.

mod decide;
mod flow;
mod service;
mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;

use abi::config::ProgramConfig;
use abi::fragments::{OTHERS, PLACES};
use abi::lb::spread;
use abi::{DropReason, identity};

use crate::packet::{ACK, SYN};
use flow::{Flow, Source};
pub(crate) use service::Service;

use super::talk::{By, End, Message, Outcome, Pair, Part, Place, Proto, Record, Slot, Talk, Words};
use table::Found;

const FOREIGN: Outcome = Outcome::Dropped(DropReason::EncapsulationTrafficIsProhibited);
const NO_FIRST: Outcome = Outcome::Dropped(DropReason::FirstLogicalDatagramFragmentNotFound);

/// What a pod is to policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) id: u16,
    pub(crate) identity: u32,
    pub(crate) ip: IpAddr,
    pub(crate) enforced: Enforced,
    /// Its policy is there.
    pub(crate) ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Ingress,
    Egress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enforced {
    pub(crate) ingress: bool,
    pub(crate) egress: bool,
}

/// What is known of an address that is not local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) identity: u32,
    pub(crate) node: Option<IpAddr>,
    /// Pods speak to it under their own addresses.
    pub(crate) plain: bool,
}

/// A change that user space has made, and of which it tells the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Node,
    Peer(IpAddr),
    Pod(u16),
}

/// What a run of the programs shows of what they may choose: backends, and ports where a flow cannot keep its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint<'a> {
    /// The ends that a dropped packet had in the end.
    pub(crate) dropped: Option<Talk>,
    /// The ends that one had which was sent.
    pub(crate) sent: Option<Talk>,
    /// What is remembered now.
    pub(crate) records: &'a [Record],
}

impl Hint<'_> {
    /// The ends of the forward direction of a flow, after translation.
    fn forward(&self, opening: Talk) -> Option<Talk> {
        let record = self.records.iter().find(|record| record.opening == opening);
        self.dropped.or(record.map(|record| record.answer.back())).or(self.sent)
    }
}

/// What must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) outcome: Outcome,
    /// How many events have told of it.
    pub(crate) told: usize,
}

/// The node.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) node: IpAddr,
    /// Pods of other nodes are reached through tunnels; otherwise the network knows them.
    pub(crate) tunnel: bool,
    pub(crate) pods: [Option<Pod>; 3],
    pub(crate) peers: BTreeMap<IpAddr, Peer>,
    /// By pod id, side and peer (0 is anybody): whether it is let through.
    pub(crate) rules: BTreeMap<(u16, Side, u32), bool>,
    pub(crate) services: BTreeMap<(End, Proto), Service>,
    /// Services are for clients outside, too.
    exposes: bool,
    /// Backends may answer these themselves.
    returns: bool,
    /// Their nodes get what clients have sent, in packets to them.
    pub(crate) inside: bool,
    /// Where each client of a service went last.
    affinities: BTreeMap<(u32, IpAddr), u32>,
    /// What was chosen for a connection to a service among these backends.
    choices: BTreeMap<(Talk, u32, Vec<u32>), u32>,
    pub(crate) flows: Vec<Flow>,
    /// (What replies have for ends, the ends of the record).
    pub(crate) aliases: Vec<(Talk, Pair)>,
    /// The latest flows of each pod's interface, those that it opened (true) and those that were opened to it.
    latest: BTreeMap<Ring, Vec<Pair>>,
    /// Answered flows that have fallen off these, and are no connections.
    laid_by: Vec<Pair>,
    /// What the first fragments of datagrams have said, at the places of those who sent them.
    firsts: BTreeMap<(Sender, u32), (Datagram, Talk)>,
    room: Room,
}

/// Sender, receiver, number, protocol, and where its fragments come from.
type Datagram = (IpAddr, IpAddr, u32, Proto, Source);

/// Who has places for datagrams of their own: a pod, or those by one way whose addresses have that number.
type Sender = (Source, u32);

/// Whose flows count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ring {
    OpenedBy(Slot),
    OpenedTo(Slot),
    Service(u32),
}

/// How much can be remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Records and aliases.
    pub(crate) table: usize,
    /// Latest flows of each ring.
    pub(crate) ring: usize,
}

impl Model {
    pub(crate) fn new(node: IpAddr, config: &ProgramConfig, room: Room) -> Self {
        Self {
            node,
            tunnel: config.tunnel != 0,
            exposes: config.expose_services != 0,
            returns: config.direct_return != 0,
            inside: config.direct_ipip != 0,
            affinities: BTreeMap::new(),
            choices: BTreeMap::new(),
            pods: [None; 3],
            peers: BTreeMap::new(),
            rules: BTreeMap::new(),
            services: BTreeMap::new(),
            flows: Vec::new(),
            aliases: Vec::new(),
            latest: BTreeMap::new(),
            laid_by: Vec::new(),
            firsts: BTreeMap::new(),
            room,
        }
    }

    pub(crate) fn slot_of(&self, ip: IpAddr) -> Option<Slot> {
        self.pods.iter().position(|pod| pod.is_some_and(|pod| pod.ip == ip))
    }

    fn is_local(&self, ip: IpAddr) -> bool {
        ip == self.node || self.slot_of(ip).is_some()
    }

    /// The identity that an address has.
    pub(crate) fn identity(&self, ip: IpAddr) -> u32 {
        if ip == self.node {
            return identity::HOST;
        }
        let pod = self.slot_of(ip).and_then(|slot| self.pods[slot]);
        pod.map(|pod| pod.identity).or(self.peers.get(&ip).map(|peer| peer.identity)).unwrap_or(identity::WORLD)
    }

    /// The node that an address is behind.
    pub(crate) fn node_of(&self, ip: IpAddr) -> Option<IpAddr> {
        self.peers.get(&ip)?.node.filter(|_| self.tunnel)
    }

    /// Whether the address is nobody's but services'.
    fn is_unserved(&self, ip: IpAddr) -> bool {
        ip != self.node && self.services.keys().any(|(frontend, _)| frontend.ip == ip)
    }

    /// Whether somebody outside speaks to a service, or to a port of a service's address that is none's.
    fn is_exposed(&self, talk: Talk) -> bool {
        self.exposes && (self.services.contains_key(&(talk.to, talk.proto)) || self.is_unserved(talk.to.ip))
    }

    /// What becomes of a packet inside of another that is for nobody here, or is no service's and of no flow. Pods have no other use for such.
    fn refuses_inside(&self, message: &Message, backend: IpAddr, found: Found) -> Option<Expected> {
        const STALE: Outcome = Outcome::Dropped(DropReason::StaleOrUnroutableIp);
        let is_served = self.services.contains_key(&(message.talk.to, message.talk.proto));
        if !self.is_local(backend) || (backend == self.node && !is_served && found.flow.is_none()) {
            return Some(Expected { outcome: Outcome::Ignored, told: 0 });
        }
        (!is_served && found.flow.is_none()).then_some(Expected { outcome: STALE, told: 1 })
    }

    /// The ends of what goes on, to the backend that it is meant for.
    pub(crate) fn meant_for(&self, Words { talk, inside, .. }: Words) -> Talk {
        let backends = self.services.get(&(talk.to, talk.proto)).map(|service| &service.backends);
        let found = backends.into_iter().flatten().find(|(_, end)| Some(end.ip) == inside);
        Talk { to: found.map_or(talk.to, |(_, end)| *end), ..talk }
    }

    fn is_node(&self, ip: IpAddr) -> bool {
        self.peers.get(&ip).is_some_and(|peer| peer.node.is_none() && is_nodes(peer.identity))
    }

    /// Whether policy lets it through on one side; `Err` with the reason if not.
    fn ask(&self, pod: &Pod, side: Side, peer: u32) -> Result<(), DropReason> {
        let enforced = if side == Side::Ingress { pod.enforced.ingress } else { pod.enforced.egress };
        let said = [peer, 0].map(|peer| self.rules.get(&(pod.id, side, peer)).copied());
        match said {
            _ if !enforced => Ok(()),
            [Some(false), _] | [_, Some(false)] => Err(DropReason::PolicyDeny),
            [None, None] => Err(DropReason::PolicyDenied),
            _ => Ok(()),
        }
    }

    /// Who sends, if they may send that from there.
    #[expect(clippy::result_large_err, reason = "a model is to be read, not to be fast")]
    fn sender(&self, message: &Message, known: bool) -> Result<u32, Outcome> {
        const FORGED: Outcome = Outcome::Dropped(DropReason::InvalidSourceIp);
        let src = message.talk.from.ip;
        let to_pod = known || self.slot_of(message.talk.to.ip).is_some();
        let is_error = message.about.is_some();
        let comes_by_node = message.tells.is_some() || message.inside.is_some();
        let concerns_us = to_pod || is_error || comes_by_node || self.is_exposed(message.talk);
        match message.place {
            Place::Pod(slot) => match self.pods[slot] {
                None => Err(Outcome::Dropped(DropReason::DropEpNotReady)),
                Some(pod) if !pod.ready => Err(Outcome::Dropped(DropReason::DropEpNotReady)),
                Some(pod) if pod.ip != src => Err(FORGED),
                Some(pod) => Ok(pod.identity),
            },
            Place::Wire if self.is_local(src) => Err(FORGED),
            Place::Wire if !concerns_us => {
                // To the node itself, pods of other nodes speak under their nodes' addresses.
                let opens = message.talk.proto != Proto::Tcp || is_first(message.flags);
                let forged = message.talk.to.ip == self.node && opens && self.node_of(src).is_some();
                Err(if forged { FORGED } else { Outcome::Ignored })
            }
            Place::Wire if (to_pod || !is_error) && self.node_of(src).is_some() => Err(FORGED),
            Place::Wire => Ok(self.identity(src)),
            Place::Tunnel { vni: identity::HOST | 0, .. } => Err(Outcome::Dropped(DropReason::InvalidIdentity)),
            Place::Tunnel { .. } if self.is_local(src) => Err(FORGED),
            Place::Tunnel { node, .. } if !self.is_node(node) => Err(Outcome::Dropped(DropReason::UnknownSender)),
            Place::Tunnel { node, vni } => {
                let behind = self.node_of(src) == Some(node) || (src == node && self.is_node(src));
                let known = self.identity(src);
                if !behind {
                    return Err(FORGED);
                }
                if vni == identity::REMOTE_NODE && !matches!(known, identity::REMOTE_NODE | identity::KUBE_APISERVER) {
                    return Err(Outcome::Dropped(DropReason::InvalidIdentity));
                }
                Ok(if is_told_as(known, vni) { known } else { vni })
            }
            Place::Stack { by, .. } => Ok(self.forwarded(src, by)),
        }
    }

    /// Only what is made on this node is the host's: what the stack forwards is of where it came in.
    fn forwarded(&self, src: IpAddr, by: By) -> u32 {
        match by {
            By::Itself => self.identity(src),
            By::Pod(slot) if let Some(pod) = self.pods[slot] => pod.identity,
            _ if self.is_local(src) => identity::WORLD,
            By::Wire | By::Pod(_) if self.node_of(src).is_some() => identity::WORLD,
            _ => self.identity(src),
        }
    }

    /// User space tells of a change: what stands on it is decided anew.
    pub(crate) fn hear(&mut self, news: News) {
        for flow in &mut self.flows {
            flow.stands &= match news {
                News::Node => false,
                News::Peer(ip) => !flow.is_about(ip),
                News::Pod(id) => flow.opener.id() != id && flow.target.id() != id,
            };
        }
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.flows.iter().map(Flow::record).collect()
    }

    /// What the datapath must do with a packet, and does in this model.
    pub(crate) fn see(&mut self, message: &Message, hint: Hint<'_>) -> Result<Expected, String> {
        let Talk { from, to, proto } = message.talk;
        let source = Source::of(message.place);
        let datagram = |id| (from.ip, to.ip, id, proto, source);
        let sender = match source {
            Source::Pod(_) => (source, 0),
            Source::Stack(_) => (Source::Stack(By::Itself), spread(from.ip.into()) % OTHERS),
            Source::Tunnel | Source::Wire => (source, spread(from.ip.into()) % OTHERS),
        };
        let place = |id: u32| (sender, id.wrapping_add(spread(to.ip.into())) % PLACES);
        match message.part {
            Part::Whole => self.see_whole(message, hint),
            Part::First(id) => {
                let expected = self.see_whole(message, hint)?;
                if matches!(expected.outcome, Outcome::Sent(..) | Outcome::Left(_)) {
                    self.firsts.insert(place(id), (datagram(id), message.talk));
                }
                Ok(expected)
            }
            Part::Later(id) => {
                let first = self.firsts.get(&place(id)).filter(|(first, _)| *first == datagram(id));
                let Some(&(_, talk)) = first else {
                    return Ok(match message.place {
                        Place::Wire if message.inside.is_some_and(|backend| self.slot_of(backend).is_some()) => {
                            Expected { outcome: NO_FIRST, told: 1 }
                        }
                        Place::Wire | Place::Tunnel { .. } => Expected { outcome: Outcome::Ignored, told: 0 },
                        Place::Pod(_) | Place::Stack { .. } => Expected { outcome: NO_FIRST, told: 1 },
                    });
                };
                let expected = self.see_whole(&Message { talk, ..*message }, hint)?;
                Ok(Expected { outcome: expected.outcome.without_ports(), ..expected })
            }
        }
    }

    /// The same for one that names its ports.
    fn see_whole(&mut self, message: &Message, hint: Hint<'_>) -> Result<Expected, String> {
        if message.tells.is_some() && !self.is_local(message.talk.to.ip) {
            // To another node it would be this one that says so. What is for nobody here is none of its business.
            if self.is_exposed(message.talk) {
                return Ok(Expected { outcome: FOREIGN, told: 1 });
            }
            let expected = self.see_whole(&Message { tells: None, ..*message }, hint)?;
            return Ok(Expected { outcome: expected.outcome.still_telling(message.tells), ..expected });
        }
        let found = if message.about.is_some() { Found::default() } else { self.find(message.talk) };
        if let Some(backend) = message.inside
            && let Some(expected) = self.refuses_inside(message, backend, found)
        {
            return Ok(expected);
        }
        let for_us = self.slot_of(message.talk.to.ip).is_some() || (self.exposes && found.flow.is_some());
        if matches!(message.place, Place::Tunnel { .. }) && !for_us {
            // It goes through the tunnel device.
            return Ok(Expected { outcome: Outcome::Ignored, told: 0 });
        }
        if let Found { flow: Some((at, reply)), .. } = found
            && self.flows[at].is_replayed(message, reply)
        {
            let told = usize::from(self.flows[at].hear(message, reply) != 0);
            return Ok(Expected { outcome: self.flows[at].carry(message, reply, false), told });
        }
        self.decide(message, found, hint)
    }
}

/// Whether these are the flags of a connection's first segment, at first sight.
fn is_first(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// Whether it is the identity of a node.
pub(crate) fn is_nodes(identity: u32) -> bool {
    matches!(identity, identity::REMOTE_NODE | identity::KUBE_APISERVER)
}

/// Whether an identity travels under that number: a node does not know that to others it is the API server's.
fn is_told_as(identity: u32, vni: u32) -> bool {
    identity == vni || (identity == identity::KUBE_APISERVER && vni == identity::REMOTE_NODE)
}
