// SPDX-License-Identifier: Apache-2.0
//! What is decided about a packet for which no decision stands.

mod complain;
mod course;
mod serve;
mod source;
mod turn;

use std::net::IpAddr;

use abi::DropReason;

use super::super::talk::{By, Message, Outcome};
use super::flow::{Flow, Party, Said, Source};
use super::table::Found;
use super::{Expected, Hint, Model, Side};
use crate::packet::{FIN, RST};
use course::{Course, sources};
use turn::Turn;

/// Why a packet's way ends here.
enum Stop {
    /// The datapath has to do that with it.
    With(Box<Outcome>),
    /// The datapath has chosen what it must not choose.
    Wrong(String),
}

fn dropped<T>(reason: DropReason) -> Result<T, Stop> {
    Err(Outcome::Dropped(reason).into())
}

impl From<Outcome> for Stop {
    fn from(outcome: Outcome) -> Self {
        Self::With(Box::new(outcome))
    }
}

impl Model {
    pub(crate) fn decide(&mut self, message: &Message, found: Found, hint: Hint<'_>) -> Result<Expected, String> {
        match self.try_decide(message, found, hint) {
            Ok(expected) => Ok(expected),
            Err(Stop::With(outcome)) => {
                let told = usize::from(matches!(*outcome, Outcome::Dropped(_)));
                Ok(Expected { outcome: *outcome, told })
            }
            Err(Stop::Wrong(complaint)) => Err(complaint),
        }
    }

    fn try_decide(&mut self, message: &Message, found: Found, hint: Hint<'_>) -> Result<Expected, Stop> {
        let identity = self.sender(message, found.flow.is_some())?;
        let message = &self.recall(message, found);
        let mut turn = match message.about {
            Some(about) => self.complaint(message, about, identity)?,
            None => self.turn(message, found, identity)?,
        };
        // What a backend that is gone still says comes through, and brings nothing back.
        turn.remembered &= message.about.is_some() || !self.is_left(&turn);
        let aliases = self.aliases.clone();
        let mut flow = self.decision(message, &turn, identity, hint)?;
        let had_alias = aliases.contains(&(flow.answer(), turn.opening.pair()));
        // An error is no packet of its flow.
        let related = message.about.is_some() && turn.known.is_some();
        let news = if related { 0 } else { flow.hear(message, turn.reply) };
        // A flow is told of when it begins, and when it ends.
        let told = usize::from(turn.known.is_none() || news & (FIN | RST) != 0);
        let outcome = flow.carry(message, turn.reply, true);
        if turn.remembered {
            self.remember(&turn, flow, had_alias)?;
        }
        Ok(Expected { outcome, told })
    }

    fn decision(&mut self, message: &Message, turn: &Turn, identity: u32, hint: Hint<'_>) -> Result<Flow, Stop> {
        let lead = self.lead(message, turn, hint)?;
        let target = self.target(message, turn, &lead, identity)?;
        if [&turn.opener, &target].into_iter().any(|party| party.pod.is_some_and(|(_, pod)| !pod.ready)) {
            return dropped(DropReason::DropEpNotReady);
        }
        if let Err(reason) = self.policy(&turn.opener, &target) {
            self.refuse(message, turn);
            return dropped(reason);
        }
        let ways = [self.forth(message, turn, lead.to.ip), self.back(message, turn)];
        let course = Course { lead, answers: self.answers(turn, &lead, &target, ways[0]), target, ways };
        let (from, masqueraded) = self.source(turn, &course, hint)?;
        let before = turn.known.as_ref();
        let sources = sources(message, turn, &course);
        let forwarded = if let Source::Stack(By::Pod(slot)) = sources[0] { self.pods[slot] } else { None };
        Ok(Flow {
            opening: turn.opening,
            from,
            to: lead.to,
            masqueraded,
            served: lead.served,
            answers: course.answers,
            inside: self.inside,
            opener: turn.opener,
            forwarded: forwarded.map(|pod| pod.ip),
            target,
            ways,
            sources,
            refused: false,
            stands: true,
            said: before.map_or([Said::default(); 2], |known| known.said),
            confirmed: before.is_some_and(|known| known.confirmed),
            told: before.map_or(0, |known| known.told),
        })
    }

    fn party(&self, ip: IpAddr) -> Party {
        let pod = self.slot_of(ip).and_then(|slot| Some((slot, self.pods[slot]?)));
        Party { pod, identity: self.identity(ip) }
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
    fn refuse(&mut self, message: &Message, turn: &Turn) {
        let pair = turn.opening.pair();
        if (turn.remembered || message.about.is_some()) && turn.known.is_some() {
            self.flows.iter_mut().filter(|flow| flow.opening.pair() == pair).for_each(|flow| flow.refused = true);
        }
    }

    fn remember(&mut self, turn: &Turn, flow: Flow, had_alias: bool) -> Result<(), Stop> {
        let pair = flow.opening.pair();
        if turn.known.is_none() {
            if let Some(old) = turn.replaced.as_ref().map(|old| old.opening.pair()).filter(|old| *old != pair) {
                self.remove(old);
            }
            self.list(&flow);
            let fits = self.at(pair).is_some() || !self.is_full();
            if !fits && !flow.ring().is_some_and(|ring| self.make_room(ring, pair)) {
                if !had_alias {
                    self.remove_alias(flow.answer(), pair);
                }
                return dropped(DropReason::CtMapInsertionFailed);
            }
        }
        self.replace(flow);
        Ok(())
    }
}
