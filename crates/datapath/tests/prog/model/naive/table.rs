// SPDX-License-Identifier: Apache-2.0
//! Which flows are remembered.

use super::super::talk::{Pair, Proto, Stage, Talk};
use super::{Flow, Model};

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
    fn at(&self, pair: Pair) -> Option<usize> {
        self.flows.iter().position(|flow| flow.opening.pair() == pair)
    }

    pub(crate) fn find(&self, talk: Talk) -> Found {
        let mut found = Found::default();
        if let Some(at) = self.at(talk.pair()) {
            let flow = &self.flows[at];
            if flow.opening == talk || flow.answer() == talk {
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
    fn remove_alias(&mut self, answer: Talk, own: Pair) {
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

    /// Lists a new flow among its pod's latest; one that falls off and that nobody has answered goes.
    pub(crate) fn list(&mut self, flow: &Flow) {
        let opened = flow.opener.pod.map(|(slot, _)| (slot, true));
        let Some(list) = opened.or(flow.target.pod.map(|(slot, _)| (slot, false))) else { return };
        let latest = self.latest.entry(list).or_default();
        latest.push(flow.opening.pair());
        if latest.len() <= self.places {
            return;
        }
        let oldest = latest.remove(0);
        let gives_way = |at: usize| self.flows[at].stage() == Stage::Opening && !self.flows[at].refused;
        if oldest != flow.opening.pair() && self.at(oldest).is_some_and(gives_way) {
            self.remove(oldest);
        }
    }

    /// What has been silent for so many ticks goes.
    pub(crate) fn collect(&mut self, silent: u32) {
        let patience = |flow: &Flow| match (flow.opening.proto, flow.stage()) {
            (Proto::Tcp, Stage::Established) => 8000,
            (Proto::Tcp, Stage::Closed) => 10,
            _ => 60,
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
