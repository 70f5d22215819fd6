// SPDX-License-Identifier: Apache-2.0
//! Policies that are kept compiled, each under a number that stands for a pod of it, and whom a change of one concerns.

use crate::resolve::{ANY, CompiledPolicy, Engine, SubjectKey};
use crate::rules::Direction;
use imbl::ordmap::DiffItem;
use model::{EndpointId, IdentityId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Compiled {
    kept: BTreeMap<SubjectKey, Kept>,
    by_number: BTreeMap<EndpointId, SubjectKey>,
    next: u16,
}

#[derive(Debug)]
struct Kept {
    number: EndpointId,
    users: usize,
    policy: Option<CompiledPolicy>,
}

/// The peers about whom a policy now says something else.
#[derive(Debug, Default)]
pub(super) struct Touched {
    all: bool,
    peers: BTreeSet<IdentityId>,
}

impl Touched {
    /// Those of them that are among the keys.
    pub(super) fn among<'a, V>(&'a self, keys: &'a BTreeMap<IdentityId, V>) -> impl Iterator<Item = IdentityId> {
        let all = keys.keys().filter(|_| self.all);
        all.chain(self.peers.iter().filter(|peer| !self.all && keys.contains_key(peer))).copied()
    }
}

/// What has changed of a policy.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) subject: SubjectKey,
    pub(super) ingress: Touched,
    pub(super) egress: Touched,
}

impl Compiled {
    /// Each call needs a [`release`](Self::release).
    pub(super) fn acquire(&mut self, engine: &mut Engine, key: &SubjectKey) {
        if let Some(kept) = self.kept.get_mut(key) {
            kept.users += 1;
            return;
        }
        let numbers = (0..=u16::MAX).map(|offset| EndpointId(self.next.wrapping_add(offset)));
        let Some(number) = numbers.into_iter().find(|number| !self.by_number.contains_key(number)) else { return };
        self.next = number.0.wrapping_add(1);
        engine.attach(number, key.clone(), None);
        self.by_number.insert(number, key.clone());
        self.kept.insert(key.clone(), Kept { number, users: 1, policy: None });
    }

    pub(super) fn release(&mut self, engine: &mut Engine, key: &SubjectKey) {
        let Some(kept) = self.kept.get_mut(key) else { return };
        kept.users -= 1;
        if kept.users == 0 {
            engine.detach(kept.number);
            self.by_number.remove(&kept.number);
            self.kept.remove(key);
        }
    }

    pub(super) fn policy(&self, key: &SubjectKey) -> Option<&CompiledPolicy> {
        self.kept.get(key)?.policy.as_ref()
    }

    /// Recompiles what needs it.
    pub(super) fn settle(&mut self, engine: &mut Engine) -> Vec<Change> {
        engine.settle().into_iter().filter_map(|policy| self.update(policy)).collect()
    }

    fn update(&mut self, policy: CompiledPolicy) -> Option<Change> {
        let subject = self.by_number.get(policy.endpoints.first()?)?.clone();
        // Whoever is new is judged with everybody anyway.
        let before = self.kept.get_mut(&subject)?.policy.replace(policy.clone())?;
        let (mut ingress, mut egress) = (Touched::default(), Touched::default());
        for item in before.entries.diff(&policy.entries) {
            let (DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. }) = item;
            let touched = if key.direction == Direction::Ingress { &mut ingress } else { &mut egress };
            touched.all |= key.peer == ANY;
            touched.peers.insert(key.peer);
        }
        Some(Change { subject, ingress, egress })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}
