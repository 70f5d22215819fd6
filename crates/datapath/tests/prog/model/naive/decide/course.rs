// SPDX-License-Identifier: Apache-2.0
//! Where a flow is led.

use std::net::IpAddr;

use abi::lb::flags;
use abi::{DropReason, identity};

use super::super::super::talk::{Answers, Message, Place, Proto, Way};
use super::super::Model;
use super::super::flow::{Party, Source};
use super::serve::Lead;
use super::turn::Turn;
use super::{Stop, dropped};

/// Where the flow is led.
pub(super) struct Course {
    pub(super) lead: Lead,
    pub(super) answers: Answers,
    pub(super) target: Party,
    pub(super) ways: [Way; 2],
}

impl Model {
    pub(super) fn target(&self, message: &Message, turn: &Turn, lead: &Lead, sender: u32) -> Result<Party, Stop> {
        let mut target = self.party(lead.to.ip);
        if turn.reply && message.about.is_none() && matches!(message.place, Place::Tunnel { .. }) {
            target.identity = sender;
        }
        if turn.reply && turn.known.as_ref().is_some_and(|known| known.target.id() != target.id()) {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        if turn.opener.pod.is_none() && target.pod.is_none() {
            self.pass_through(message, turn, lead)?;
        }
        Ok(target)
    }

    /// Who answers: a flow that goes on is answered as it was, and who understands nothing of ours is told nothing.
    pub(super) fn answers(&self, turn: &Turn, lead: &Lead, target: &Party, forth: Way) -> Answers {
        if let Some(frontend) = lead.asked_there {
            return Answers::Here(frontend);
        }
        let passes = turn.opener.pod.is_none() && target.pod.is_none() && lead.served.is_some();
        let known = turn.known.as_ref().filter(|known| known.served.is_some() && known.to == lead.to);
        let wanted = match known {
            Some(known) => known.answers == Answers::There,
            None => self.returns && lead.flags & flags::DSR != 0,
        };
        let understands = forth == Way::Wire && target.identity != identity::WORLD && turn.opening.proto != Proto::Echo;
        if passes && wanted && understands { Answers::There } else { Answers::Asked }
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
