// SPDX-License-Identifier: Apache-2.0
//! What many routes say alike is kept once: where they are found, where they lead, and what they come from.

use l7::{Attachment, Route, RouteAction, Target};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// What routes say.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    attachments: HashSet<Arc<[Attachment]>>,
    texts: HashSet<Arc<str>>,
    /// When those are sought that nobody has any more.
    look_at: usize,
}

impl Sharing {
    /// Has the route share what others have.
    pub(super) fn share(&mut self, route: &mut Arc<Route>) {
        let route = Arc::make_mut(route);
        share(&mut self.attachments, &mut route.attachments);
        for rule_match in Arc::make_mut(&mut route.matches) {
            share(&mut self.texts, &mut rule_match.precedence.source);
        }
        if let RouteAction::Forward(forward) = &mut route.action {
            for backend in &mut forward.backends {
                if let Target::Cluster(name) = &mut backend.target {
                    share(&mut self.texts, name);
                }
            }
        }
    }

    /// Forgets what only this has.
    pub(super) fn forget(&mut self) {
        if self.attachments.len() + self.texts.len() < self.look_at {
            return;
        }
        self.attachments.retain(|one| Arc::strong_count(one) > 1);
        self.texts.retain(|one| Arc::strong_count(one) > 1);
        self.attachments.shrink_to_fit();
        self.texts.shrink_to_fit();
        self.look_at = 2 * (self.attachments.len() + self.texts.len());
    }
}

fn share<T: Eq + Hash + ?Sized>(known: &mut HashSet<Arc<T>>, one: &mut Arc<T>) {
    match known.get(one) {
        Some(same) => *one = Arc::clone(same),
        None => drop(known.insert(Arc::clone(one))),
    }
}
