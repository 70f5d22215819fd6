// SPDX-License-Identifier: Apache-2.0
//! Which flows are remembered.

use super::super::talk::{Pair, Proto, Stage, Talk};
use super::{Flow, Model, Ring};

/// Flows that are looked at, at most, for one to spare.
const TRIES: usize = 8;

/// Beyond so many sixteenths of the table, silence is divided by that; of established flows too, or not.
const CROWDED: [(usize, u32, bool); 4] = [(12, 4, false), (12, 4, true), (15, 16, false), (15, 16, true)];

/// What is known of a packet's ends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Its flow, by its place in the list, and whether it is of the reply direction.
    pub(crate) flow: Option<(usize, bool)>,
    /// Another flow has these ends, but answers to it have others.
    pub(crate) occupied: bool,
    /// Answers to the packet would be taken for those to another flow.
    pub(crate) clash: bool,
}

impl Model {
    pub(crate) fn at(&self, pair: Pair) -> Option<usize> {
        self.flows.iter().position(|flow| flow.opening.pair() == pair)
    }

    pub(crate) fn find(&self, talk: Talk) -> Found {
        let mut found = Found::default();
        if let Some(at) = self.at(talk.pair()) {
            let flow = &self.flows[at];
            if flow.opening == talk || flow.replies() == talk {
                return Found { flow: Some((at, flow.opening != talk)), ..found };
            }
            found.occupied = true;
        }
        match self.aliases.iter().find(|(answer, _)| answer.pair() == talk.pair()) {
            Some((answer, pair)) if *answer == talk => {
                let at = self.at(*pair).filter(|at| self.flows[*at].answer() == talk);
                found.flow = at.map(|at| (at, true));
            }
            other => found.clash = other.is_some(),
        }
        found
    }

    /// Whether nobody but `own` would take packets with these ends for theirs.
    pub(crate) fn is_free(&self, answer: Talk, own: Pair) -> bool {
        let taken = self.flows.iter().any(|flow| {
            let theirs = if flow.is_translated() { flow.opening } else { answer };
            flow.opening.pair() != own && flow.opening.pair() == answer.pair() && theirs == answer
        });
        let alias = self.aliases.iter().find(|(other, _)| other.pair() == answer.pair());
        !taken && alias.is_none_or(|(_, pair)| *pair == own)
    }

    /// Notes where answers lead, unless somebody has them already.
    pub(crate) fn add_alias(&mut self, answer: Talk, own: Pair) {
        if answer.pair() != own && self.aliases.iter().all(|(other, _)| other.pair() != answer.pair()) {
            self.aliases.push((answer, own));
        }
    }

    /// Forgets where answers lead, if it is to that record.
    pub(crate) fn remove_alias(&mut self, answer: Talk, own: Pair) {
        self.aliases.retain(|(other, pair)| other.pair() != answer.pair() || *pair != own);
    }

    /// A flow goes, with its alias.
    pub(crate) fn remove(&mut self, pair: Pair) {
        if let Some(at) = self.at(pair) {
            let flow = self.flows.remove(at);
            self.remove_alias(flow.answer(), pair);
        }
    }

    /// A flow is lost without its alias, or the alias without it, or both.
    pub(crate) fn lose(&mut self, pair: Pair, record: bool, alias: bool) {
        let Some(at) = self.at(pair) else { return };
        if alias {
            self.remove_alias(self.flows[at].answer(), pair);
        }
        if record {
            self.flows.remove(at);
        }
    }

    /// Puts the flow in the place of the one with the same ends.
    pub(crate) fn replace(&mut self, flow: Flow) {
        let pair = flow.opening.pair();
        let Some(at) = self.at(pair) else { return self.flows.push(flow) };
        let new = flow.answer();
        let old = std::mem::replace(&mut self.flows[at], flow).answer();
        if old.pair() != new.pair() {
            self.remove_alias(old, pair);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.flows.len() + self.aliases.len() >= self.room.table
    }

    /// Lists a new flow among its pod's latest. One that falls off and that nobody has answered goes; one that is answered and is no
    /// connection, or is over, is laid by.
    pub(crate) fn list(&mut self, flow: &Flow) {
        let Some(ring) = flow.ring() else { return };
        let latest = self.latest.entry(ring).or_default();
        latest.push(flow.opening.pair());
        if latest.len() <= self.room.ring {
            return;
        }
        let oldest = latest.remove(0);
        let Some(at) = self.at(oldest).filter(|_| oldest != flow.opening.pair()) else { return };
        match self.flows[at].stage() {
            Stage::Opening if !self.flows[at].refused => self.remove(oldest),
            Stage::Established if self.flows[at].opening.proto != Proto::Tcp => self.laid_by.push(oldest),
            Stage::Closed => self.laid_by.push(oldest),
            _ => {}
        }
    }

    /// Gives up a flow for the one of that ring: one of the ring's latest, or one that was laid by. False when there is none to spare.
    pub(crate) fn make_room(&mut self, ring: Ring, own: Pair) -> bool {
        let latest = self.latest.get(&ring).into_iter().flatten().rev().take(TRIES);
        let spare = latest.copied().find(|pair| *pair != own && self.is_spare(*pair, false));
        let spare = spare.or_else(|| self.take_laid_by(own));
        spare.inspect(|pair| self.remove(*pair)).is_some()
    }

    fn take_laid_by(&mut self, own: Pair) -> Option<Pair> {
        let latest = self.laid_by.len().saturating_sub(TRIES);
        let kept = (latest..self.laid_by.len()).rev().find(|at| {
            let pair = self.laid_by[*at];
            pair != own && self.is_spare(pair, true)
        });
        // What was looked at in vain is looked at no more.
        let pair = kept.map(|at| self.laid_by[at]);
        self.laid_by.truncate(kept.unwrap_or(latest));
        pair
    }

    fn is_spare(&self, pair: Pair, laid_by: bool) -> bool {
        self.at(pair).map(|at| &self.flows[at]).is_some_and(|flow| match flow.stage() {
            Stage::Opening => !flow.refused,
            Stage::Closed => true,
            Stage::Established => laid_by && flow.opening.proto != Proto::Tcp && !flow.refused,
        })
    }

    /// What has been silent for so many ticks goes; the more is remembered, the less silence is allowed.
    pub(crate) fn collect(&mut self, silent: u32) {
        self.end(silent, 1, true);
        for (sixteenths, divisor, also_established) in CROWDED {
            if self.entries() > self.room.table / 16 * sixteenths {
                self.end(silent, divisor, also_established);
            }
        }
    }

    /// Records, and what these have for aliases.
    fn entries(&self) -> usize {
        let has_alias = |flow: &&Flow| flow.answer().pair() != flow.opening.pair();
        self.flows.len() + self.flows.iter().filter(has_alias).count()
    }

    fn end(&mut self, silent: u32, divisor: u32, also_established: bool) {
        let patience = |flow: &Flow| match (flow.opening.proto, flow.stage()) {
            (Proto::Tcp, Stage::Established) if also_established => 8000 / divisor,
            (Proto::Tcp, Stage::Established) => 8000,
            // Who sees one half of a connection lets it stand for as long.
            (Proto::Tcp, Stage::Opening) if flow.goes_on_as_far_as_is_seen() => 8000 / divisor,
            (_, Stage::Established) if !also_established => 60,
            (Proto::Tcp, Stage::Closed) if flow.has_ended() => 10 / divisor,
            (Proto::Tcp, Stage::Closed) => 600 / divisor,
            _ => 60 / divisor,
        };
        let garbage: Vec<Pair> =
            self.flows.iter().filter(|flow| silent > patience(flow)).map(|flow| flow.opening.pair()).collect();
        garbage.into_iter().for_each(|pair| self.remove(pair));
    }

    /// Aliases that lead nowhere go.
    pub(crate) fn sweep(&mut self) {
        let flows = &self.flows;
        self.aliases.retain(|(answer, pair)| {
            flows.iter().any(|flow| flow.opening.pair() == *pair && flow.answer().pair() == answer.pair())
        });
    }
}
