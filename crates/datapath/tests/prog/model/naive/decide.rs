// SPDX-License-Identifier: Apache-2.0
//! What is decided about a packet for which no decision stands.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use abi::{DropReason, identity};

use super::super::talk::{End, Message, Outcome, Place, Proto, Stage, Talk, Way};
use super::flow::{Flow, Party, Said, Source};
use super::table::Found;
use super::{Expected, Hint, Model, Side, is_first};
use crate::packet::{FIN, RST, SYN};

/// Ports that are given out.
const GIVEN_OUT: RangeInclusive<u16> = 32768..=u16::MAX;

/// Which way round the flow is, and what is remembered of it.
#[derive(Clone)]
struct Turn {
    opening: Talk,
    reply: bool,
    opener: Party,
    /// The flow that goes on.
    known: Option<Flow>,
    /// The flow that this one takes the place of.
    replaced: Option<Flow>,
    remembered: bool,
    clash: bool,
}

/// Where the flow is led.
struct Course {
    to: End,
    backend: Option<u32>,
    target: Party,
    ways: [Way; 2],
}

/// Why a packet's way ends here.
enum Stop {
    /// The datapath has to do that with it.
    With(Outcome),
    /// The datapath has chosen what it must not choose.
    Wrong(String),
}

fn dropped<T>(reason: DropReason) -> Result<T, Stop> {
    Err(Stop::With(Outcome::Dropped(reason)))
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Self {
        Self::With(outcome)
    }
}

impl Model {
    pub(crate) fn decide(&mut self, message: &Message, found: Found, hint: Hint<'_>) -> Result<Expected, String> {
        match self.try_decide(message, found, hint) {
            Ok(expected) => Ok(expected),
            Err(Stop::With(outcome)) => {
                Ok(Expected { outcome, told: usize::from(matches!(outcome, Outcome::Dropped(_))) })
            }
            Err(Stop::Wrong(complaint)) => Err(complaint),
        }
    }

    fn try_decide(&mut self, message: &Message, found: Found, hint: Hint<'_>) -> Result<Expected, Stop> {
        let identity = self.sender(message, found.flow.is_some())?;
        let turn = self.turn(message, found, identity)?;
        let (to, backend) = self.backend(message, &turn, hint)?;
        let target = self.target(message, &turn, to, identity)?;
        if let Err(reason) = self.policy(&turn.opener, &target) {
            self.refuse(&turn);
            return dropped(reason);
        }
        let ways = [self.forth(message, &turn, to.ip), self.back(message, &turn)];
        let course = Course { to, backend, target, ways };
        let (from, masqueraded) = self.source(&turn, &course, hint)?;
        let before = turn.known.as_ref();
        let mut flow = Flow {
            opening: turn.opening,
            from,
            to,
            masqueraded,
            backend,
            opener: turn.opener,
            target,
            ways,
            sources: sources(message, &turn, &course),
            refused: false,
            stands: true,
            said: before.map_or([Said::default(); 2], |known| known.said),
            confirmed: before.is_some_and(|known| known.confirmed),
            told: before.map_or(0, |known| known.told),
        };
        let news = flow.hear(message, turn.reply);
        // A flow is told of when it begins, and when it ends.
        let told = usize::from(turn.known.is_none() || news & (FIN | RST) != 0);
        let outcome = flow.carry(message, turn.reply);
        if turn.remembered {
            self.remember(&turn, flow);
        }
        Ok(Expected { outcome, told })
    }

    fn party(&self, ip: IpAddr) -> Party {
        let pod = self.slot_of(ip).and_then(|slot| Some((slot, self.pods[slot]?)));
        Party { pod, identity: self.identity(ip) }
    }

    fn turn(&self, message: &Message, found: Found, identity: u32) -> Result<Turn, Stop> {
        let pod = match message.place {
            Place::Pod(slot) => self.pods[slot].map(|pod| (slot, pod)),
            _ => None,
        };
        let first = Turn {
            opening: message.talk,
            reply: false,
            opener: Party { pod, identity },
            known: None,
            replaced: None,
            // An answer to nothing opens nothing.
            remembered: message.talk.proto != Proto::Echo || message.talk.asks(),
            clash: found.clash,
        };
        let Some((at, reply)) = found.flow else {
            if found.occupied {
                return Ok(Turn { remembered: false, ..first });
            }
            return Ok(self.midway(message, &first).unwrap_or(first));
        };
        let flow = self.flows[at].clone();
        // Where another flow has its ends, nothing can begin: it is for the flow that it seems to answer.
        if flow.is_over_by(message, reply) && !found.occupied {
            return Ok(Turn { replaced: Some(flow), ..first });
        }
        // What the stack forwards in a roundabout way does not draw the flow onto that way.
        let strays = matches!(message.place, Place::Stack { .. })
            && !matches!(flow.sources[usize::from(reply)], Source::Stack(_));
        let opener = if reply { self.opener(&flow)? } else { first.opener };
        Ok(Turn { opening: flow.opening, reply, opener, known: Some(flow), remembered: !strays, ..first })
    }

    /// Who opened a flow of which a reply has come.
    fn opener(&self, flow: &Flow) -> Result<Party, Stop> {
        let src = flow.opening.from.ip;
        if let Some((slot, then)) = flow.opener.pod {
            return match self.pods[slot] {
                Some(pod) if pod.id == then.id && pod.ip == src => {
                    Ok(Party { pod: Some((slot, pod)), identity: pod.identity })
                }
                _ => dropped(DropReason::StaleOrUnroutableIp),
            };
        }
        let identity = match flow.sources[0] {
            Source::Stack(_) if self.is_local(src) => flow.opener.identity,
            Source::Tunnel if self.identity(src) == identity::WORLD => flow.opener.identity,
            _ => self.identity(src),
        };
        Ok(Party { pod: None, identity })
    }

    /// A segment from the middle of a connection that is not known, when it looks like a reply and may be taken for one.
    fn midway(&self, message: &Message, first: &Turn) -> Option<Turn> {
        let talk = message.talk;
        let is_reply = message.flags & SYN != 0 || talk.from.port < talk.to.port;
        if talk.proto != Proto::Tcp || is_first(message.flags) || !is_reply {
            return None;
        }
        let opener = self.party(talk.to.ip);
        let trusted = first.opener.pod.is_none_or(|(_, pod)| !pod.enforced.egress)
            && opener.pod.is_none_or(|(_, pod)| !pod.enforced.ingress);
        trusted.then(|| Turn { opening: talk.back(), reply: true, opener, ..first.clone() })
    }

    /// Who the opener's words are for: a service's are for one of its backends.
    fn backend(&self, message: &Message, turn: &Turn, hint: Hint<'_>) -> Result<(End, Option<u32>), Stop> {
        let asked = turn.opening.to;
        if turn.opener.pod.is_none() {
            return Ok((asked, None));
        }
        if let Some(known) = &turn.known
            && let Some(id) = known.backend
            && (turn.reply || self.stays(message, known, id))
        {
            return Ok((known.to, Some(id)));
        }
        let Some(backends) = self.services.get(&(asked, turn.opening.proto)) else {
            let is_service = self.services.keys().any(|(end, _)| end.ip == asked.ip);
            return if is_service { dropped(DropReason::ServiceBackendNotFound) } else { Ok((asked, None)) };
        };
        if backends.is_empty() {
            return dropped(DropReason::ServiceBackendNotFound);
        }
        if turn.reply && turn.known.is_none() {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        let seen = hint.forward(turn.opening).map(|talk| talk.to);
        let chosen = backends.iter().find(|(_, end)| Some(*end) == seen);
        let (id, end) = chosen.ok_or_else(|| Stop::Wrong(format!("{seen:?} is none of {backends:?}")))?;
        Ok((*end, Some(*id)))
    }

    /// Whether a flow stays with its backend.
    fn stays(&self, message: &Message, flow: &Flow, id: u32) -> bool {
        let exists = self.services.values().flatten().any(|backend| *backend == (id, flow.to));
        let goes_on = message.talk.proto == Proto::Tcp && !is_first(message.flags);
        exists || (goes_on && flow.stage() == Stage::Established)
    }

    fn target(&self, message: &Message, turn: &Turn, to: End, sender: u32) -> Result<Party, Stop> {
        let mut target = self.party(to.ip);
        if turn.reply && matches!(message.place, Place::Tunnel { .. }) {
            target.identity = sender;
        }
        if turn.reply && turn.known.as_ref().is_some_and(|known| known.target.id() != target.id()) {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        if turn.opener.pod.is_none() && target.pod.is_none() {
            let wire = message.place == Place::Wire;
            return Err(Stop::With(if wire { Outcome::Ignored } else { Outcome::Left(message.talk) }));
        }
        Ok(target)
    }

    fn policy(&self, opener: &Party, target: &Party) -> Result<(), DropReason> {
        if let Some((_, pod)) = &opener.pod {
            self.ask(pod, Side::Egress, target.identity)?;
        }
        match &target.pod {
            Some((_, pod)) => self.ask(pod, Side::Ingress, opener.identity),
            None => Ok(()),
        }
    }

    /// An open flow that is refused stays so.
    fn refuse(&mut self, turn: &Turn) {
        let pair = turn.opening.pair();
        if turn.remembered && turn.known.is_some() {
            self.flows.iter_mut().filter(|flow| flow.opening.pair() == pair).for_each(|flow| flow.refused = true);
        }
    }

    fn way_to(&self, ip: IpAddr) -> Way {
        if ip == self.node {
            return Way::Stack;
        }
        self.slot_of(ip).map(Way::Pod).or(self.node_of(ip).map(Way::Node)).unwrap_or(Way::Wire)
    }

    fn forth(&self, message: &Message, turn: &Turn, to: IpAddr) -> Way {
        match (self.way_to(to), message.place) {
            // Of a node's addresses it has chosen this one.
            (Way::Node(_), Place::Tunnel { node, .. }) if turn.reply => Way::Node(node),
            (way, _) => way,
        }
    }

    fn back(&self, message: &Message, turn: &Turn) -> Way {
        if let Some((slot, _)) = turn.opener.pod {
            return Way::Pod(slot);
        }
        match (turn.reply, &turn.known) {
            (true, Some(known)) => known.ways[1],
            (true, None) => self.way_to(turn.opening.from.ip),
            (false, _) => match message.place {
                Place::Tunnel { node, .. } => Way::Node(node),
                Place::Wire => Way::Wire,
                Place::Pod(_) | Place::Stack { .. } => Way::Stack,
            },
        }
    }

    /// Under which source the opener's packets go on, and whether that is the node's.
    fn source(&mut self, turn: &Turn, course: &Course, hint: Hint<'_>) -> Result<(End, bool), Stop> {
        let own = turn.opening.from;
        let local = turn.opener.pod.is_some();
        let masqueraded = local && course.ways[0] == Way::Wire;
        let clash = match &turn.known {
            Some(known) => !known.masqueraded && known.backend.is_none() && known.from != known.opening.from,
            None => turn.clash,
        };
        if !masqueraded && course.backend.is_none() && !(local && clash) {
            return Ok((own, false));
        }
        if turn.reply && turn.known.is_none() {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        let ip = if masqueraded { self.node } else { own.ip };
        let pair = turn.opening.pair();
        let before = turn.known.as_ref().or(turn.replaced.as_ref());
        if let Some(flow) = before.filter(|flow| flow.is_translated() && flow.from.ip == ip && flow.to == course.to) {
            if turn.remembered {
                self.add_alias(flow.answer(), pair);
            }
            return Ok((flow.from, masqueraded));
        }
        if !turn.remembered {
            return dropped(DropReason::NoMappingForNatMasquerade);
        }
        let answer = |port| Talk { from: course.to, to: End { ip, port }, ..turn.opening };
        let port = if !clash && self.is_free(answer(own.port), pair) {
            own.port
        } else {
            let given = hint.forward(turn.opening).and_then(|talk| talk.from.port);
            let right = given.filter(|port| GIVEN_OUT.contains(port) && self.is_free(answer(given), pair));
            Some(right.ok_or_else(|| Stop::Wrong(format!("its own port is taken, and {given:?} is none for it")))?)
        };
        self.add_alias(answer(port), pair);
        Ok((End { ip, port }, masqueraded))
    }

    fn remember(&mut self, turn: &Turn, flow: Flow) {
        let pair = flow.opening.pair();
        if turn.known.is_none() {
            if let Some(old) = turn.replaced.as_ref().map(|old| old.opening.pair()).filter(|old| *old != pair) {
                self.remove(old);
            }
            self.list(&flow);
        }
        self.replace(flow);
    }
}

fn sources(message: &Message, turn: &Turn, course: &Course) -> [Source; 2] {
    let here = Source::of(message.place);
    let forth = match (&turn.opener.pod, &turn.known) {
        (Some((slot, _)), _) => Source::Pod(*slot),
        _ if !turn.reply => here,
        (None, Some(known)) => known.sources[0],
        (None, None) => Source::answering(course.ways[1]),
    };
    let back = match course.target.pod {
        Some((slot, _)) => Source::Pod(slot),
        None if turn.reply => here,
        None => Source::answering(course.ways[0]),
    };
    [forth, back]
}
