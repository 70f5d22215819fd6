// SPDX-License-Identifier: Apache-2.0
//! Where a flow is led.

use std::net::IpAddr;

use abi::DropReason;

use super::super::super::talk::{End, Message, Outcome, Place, Proto, Stage, Way};
use super::super::flow::{Flow, Party, Source};
use super::super::{Hint, Model, is_first};
use super::turn::Turn;
use super::{Stop, dropped};

/// Where the flow is led.
pub(super) struct Course {
    pub(super) to: End,
    pub(super) backend: Option<u32>,
    pub(super) target: Party,
    pub(super) ways: [Way; 2],
}

impl Model {
    /// Who the opener's words are for: a service's are for one of its backends.
    pub(super) fn backend(&self, message: &Message, turn: &Turn, hint: Hint<'_>) -> Result<(End, Option<u32>), Stop> {
        let asked = turn.opening.to;
        if turn.opener.pod.is_none() {
            return Ok((asked, None));
        }
        if let Some(known) = &turn.known
            && let Some(id) = known.backend
            && (turn.reply || message.about.is_some() || self.stays(message, known, id))
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

    /// Whether who answers served when they were asked, and does so no more.
    pub(super) fn is_left(&self, turn: &Turn) -> bool {
        let known = turn.known.as_ref().filter(|known| turn.reply && known.opening.proto != Proto::Tcp);
        known.is_some_and(|known| known.backend.is_some_and(|id| !self.serves(known, id)))
    }

    /// Whether there still are the service of a flow, and its backend, of whichever service.
    fn serves(&self, flow: &Flow, id: u32) -> bool {
        self.services.contains_key(&(flow.opening.to, flow.opening.proto))
            && self.services.values().flatten().any(|backend| *backend == (id, flow.to))
    }

    /// Whether a flow stays with its backend.
    fn stays(&self, message: &Message, flow: &Flow, id: u32) -> bool {
        let exists = self.serves(flow, id);
        let goes_on = message.talk.proto == Proto::Tcp && !is_first(message.flags);
        exists || (goes_on && flow.stage() == Stage::Established)
    }

    pub(super) fn target(&self, message: &Message, turn: &Turn, to: End, sender: u32) -> Result<Party, Stop> {
        let mut target = self.party(to.ip);
        if turn.reply && message.about.is_none() && matches!(message.place, Place::Tunnel { .. }) {
            target.identity = sender;
        }
        if turn.reply && turn.known.as_ref().is_some_and(|known| known.target.id() != target.id()) {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        if turn.opener.pod.is_none() && target.pod.is_none() {
            let wire = message.place == Place::Wire;
            return Err(if wire { Outcome::Ignored } else { Outcome::Left(message.words()) }.into());
        }
        Ok(target)
    }

    fn way_to(&self, ip: IpAddr) -> Way {
        if ip == self.node {
            return Way::Stack;
        }
        self.slot_of(ip).map(Way::Pod).or(self.node_of(ip).map(Way::Node)).unwrap_or(Way::Wire)
    }

    pub(super) fn forth(&self, message: &Message, turn: &Turn, to: IpAddr) -> Way {
        match (self.way_to(to), message.place) {
            // Of a node's addresses it has chosen this one.
            (Way::Node(_), Place::Tunnel { node, .. }) if turn.reply => Way::Node(node),
            (way, _) => way,
        }
    }

    pub(super) fn back(&self, message: &Message, turn: &Turn) -> Way {
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
}

pub(super) fn sources(message: &Message, turn: &Turn, course: &Course) -> [Source; 2] {
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
