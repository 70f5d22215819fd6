// SPDX-License-Identifier: Apache-2.0
//! Under which source a flow goes on.

use std::ops::RangeInclusive;

use abi::DropReason;

use super::super::super::talk::{End, Talk, Way};
use super::super::{Hint, Model, is_nodes};
use super::course::Course;
use super::turn::Turn;
use super::{Stop, dropped};

/// Ports that are given out.
const GIVEN_OUT: RangeInclusive<u16> = 32768..=u16::MAX;

impl Model {
    /// Whether pods speak to the target under the node's address.
    fn is_masqueraded(&self, course: &Course) -> bool {
        let plain = self.peers.get(&course.to.ip).is_some_and(|peer| peer.plain);
        !plain && (self.tunnel || !is_nodes(course.target.identity))
    }

    /// Under which source the opener's packets go on, and whether that is the node's.
    pub(super) fn source(&mut self, turn: &Turn, course: &Course, hint: Hint<'_>) -> Result<(End, bool), Stop> {
        let own = turn.opening.from;
        let local = turn.opener.pod.is_some();
        // The peer knows the flow by the source that it has.
        let was = turn.known.as_ref().is_some_and(|known| known.masqueraded);
        let masqueraded = local && course.ways[0] == Way::Wire && (was || self.is_masqueraded(course));
        let clash = match &turn.known {
            Some(known) => !known.masqueraded && known.backend.is_none() && known.from != known.opening.from,
            None => turn.clash,
        };
        if !masqueraded && course.backend.is_none() && !clash {
            return Ok((own, false));
        }
        if turn.reply && turn.known.is_none() {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        let ip = if masqueraded { self.node } else { own.ip };
        let pair = turn.opening.pair();
        let before = turn.known.as_ref().or(turn.replaced.as_ref());
        if let Some(flow) = before.filter(|flow| flow.is_translated() && flow.from.ip == ip && flow.to == course.to) {
            if turn.remembered && !self.is_full() {
                self.add_alias(flow.answer(), pair);
            }
            return Ok((flow.from, masqueraded));
        }
        if !turn.remembered {
            return dropped(DropReason::NoMappingForNatMasquerade);
        }
        let answer = |port| Talk { from: course.to, to: End { ip, port }, ..turn.opening };
        let keeps_own = !clash && self.is_free(answer(own.port), pair);
        let has_alias = answer(own.port).pair() == pair || self.aliases.contains(&(answer(own.port), pair));
        let opened = turn.opener.pod.map(|(slot, _)| (slot, true));
        let ring = opened.or(course.target.pod.map(|(slot, _)| (slot, false)));
        if !(keeps_own && has_alias) && self.is_full() && !ring.is_some_and(|ring| self.make_room(ring, pair)) {
            return dropped(DropReason::NoMappingForNatMasquerade);
        }
        let port = if keeps_own {
            own.port
        } else if hint.dropped.is_some() {
            // Nobody is told which port it would have had.
            GIVEN_OUT.map(Some).find(|port| self.is_free(answer(*port), pair)).flatten()
        } else {
            let given = hint.forward(turn.opening).and_then(|talk| talk.from.port);
            let right = given.filter(|port| GIVEN_OUT.contains(port) && self.is_free(answer(given), pair));
            Some(right.ok_or_else(|| Stop::Wrong(format!("its own port is taken, and {given:?} is none for it")))?)
        };
        self.add_alias(answer(port), pair);
        Ok((End { ip, port }, masqueraded))
    }
}
