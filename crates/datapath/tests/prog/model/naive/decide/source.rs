// SPDX-License-Identifier: Apache-2.0
//! Under which source a flow goes on.

use std::ops::RangeInclusive;

use abi::DropReason;

use super::super::super::talk::{Answers, End, Talk, Way};
use super::super::flow::ring;
use super::super::{Hint, Model, is_nodes};
use super::course::Course;
use super::turn::Turn;
use super::{Stop, dropped};

/// Ports that are given out.
const GIVEN_OUT: RangeInclusive<u16> = 32768..=u16::MAX;

impl Model {
    /// Whether pods speak to the target under the node's address.
    fn is_masqueraded(&self, course: &Course) -> bool {
        let plain = self.peers.get(&course.lead.to.ip).is_some_and(|peer| peer.plain);
        !plain && (self.tunnel || !is_nodes(course.target.identity))
    }

    /// Under which source the opener's packets go on, and whether that is the node's.
    pub(super) fn source(&mut self, turn: &Turn, course: &Course, hint: Hint<'_>) -> Result<(End, bool), Stop> {
        let own = turn.opening.from;
        if course.answers != Answers::Asked {
            return self.keep_ends(turn, course).map(|()| (own, false));
        }
        let local = turn.opener.pod.is_some();
        // The peer knows the flow by the source that it has.
        let was = turn.known.as_ref().is_some_and(|known| known.masqueraded);
        let leaves = local && course.ways[0] == Way::Wire && (was || self.is_masqueraded(course));
        // Who is answered by way of this node has to be taken for it.
        let masqueraded = leaves || (!local && course.target.pod.is_none() && course.lead.to.ip != self.node);
        let clash = match &turn.known {
            Some(known) => !known.masqueraded && known.served.is_none() && known.from != known.opening.from,
            None => turn.clash,
        };
        if !masqueraded && course.lead.served.is_none() && !clash {
            return Ok((own, false));
        }
        if turn.reply && turn.known.is_none() {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        let ip = if masqueraded { self.node } else { own.ip };
        let pair = turn.opening.pair();
        let before = turn.known.as_ref().or(turn.replaced.as_ref());
        if let Some(flow) =
            before.filter(|flow| flow.is_translated() && flow.from.ip == ip && flow.to == course.lead.to)
        {
            if turn.remembered && !self.is_full() {
                self.add_alias(flow.answer(), pair);
            }
            return Ok((flow.from, masqueraded));
        }
        if !turn.remembered {
            return dropped(DropReason::NoMappingForNatMasquerade);
        }
        let answer = |port| Talk { from: course.lead.to, to: End { ip, port }, ..turn.opening };
        if !clash && course.lead.served.is_some() {
            self.take_back(answer(own.port), turn);
        }
        let keeps_own = !clash && self.is_free(answer(own.port), pair);
        let has_alias = answer(own.port).pair() == pair || self.aliases.contains(&(answer(own.port), pair));
        let ring = ring(&turn.opener, course.lead.served, &course.target);
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

    /// A flow for whose frontend another node was asked has these ends; it makes way when its client asks here.
    fn take_back(&mut self, answer: Talk, turn: &Turn) {
        let same = self.at(answer.pair()).filter(|at| self.flows[*at].answers == Answers::Here(turn.opening.to));
        if same.is_some() && answer.pair() != turn.opening.pair() {
            self.remove(answer.pair());
        }
    }

    /// A flow that is answered directly has no other source than its client. Where its replies would be taken for those of another flow, that is
    /// the same one, which was asked for here, or this one cannot be.
    fn keep_ends(&mut self, turn: &Turn, course: &Course) -> Result<(), Stop> {
        let Answers::Here(frontend) = course.answers else { return Ok(()) };
        if !turn.clash || turn.known.is_some() {
            return Ok(());
        }
        match self.asked_here(turn.opening) {
            Some(opening) if opening.to == frontend => {
                self.remove(opening.pair());
                Ok(())
            }
            _ => dropped(DropReason::NoMappingForNatMasquerade),
        }
    }

    /// The flow of a frontend of this node whose packets have these ends when they reach their backend here, by who opened it.
    pub(super) fn asked_here(&self, talk: Talk) -> Option<Talk> {
        let (_, pair) = self.aliases.iter().find(|(answer, _)| *answer == talk.back())?;
        let flow = &self.flows[self.at(*pair)?];
        let untouched = flow.served.is_some() && flow.opener.pod.is_none() && flow.from == flow.opening.from;
        (untouched && flow.to == talk.to).then_some(flow.opening)
    }
}
