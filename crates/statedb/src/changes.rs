// SPDX-License-Identifier: Apache-2.0
//! Subscriptions: what changed in a table since the subscriber last looked.
//!
//! A subscriber holds the map of its last batch and compares it with the current one. Shared parts are skipped, so a
//! batch costs about as much as what changed, and a subscriber that never looks pins one old map and no more.

use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};
use tokio::sync::watch;

use crate::{Revision, Row, Snapshot};

/// What happened to one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<R> {
    /// The row is new or has changed.
    Upsert(Arc<R>),
    /// The row is gone; this is its last value.
    Delete(Arc<R>),
}

/// Everything that changed between two looks at a table, at most once per key: deletions first, then the rest, each in
/// key order.
#[derive(Clone, Debug)]
pub struct Batch<R> {
    /// The changes. Empty when only `initialized` changed.
    pub changes: Vec<Change<R>>,
    /// The latest commit that the changes include.
    pub revision: Revision,
    /// Whether the table is complete.
    pub initialized: bool,
}

/// One subscription.
#[derive(Debug)]
pub struct Changes<R: Row> {
    receiver: watch::Receiver<Snapshot<R>>,
    seen: Snapshot<R>,
}

impl<R: Row> Changes<R> {
    pub(crate) fn new(mut receiver: watch::Receiver<Snapshot<R>>) -> Self {
        receiver.mark_changed();
        Self { receiver, seen: Snapshot { rows: OrdMap::new(), revision: Revision(0), initialized: false } }
    }

    /// Waits until something has changed and returns all of it. The first batch is every row present.
    ///
    /// Cancel safe. Once the writer is gone and everything has been seen, this never returns.
    pub async fn next(&mut self) -> Batch<R> {
        loop {
            self.changed().await;
            if let Some(batch) = self.batch() {
                return batch;
            }
        }
    }

    /// The table as of the last batch: empty, and not complete, before the first. To wait for several tables and
    /// resolve when any of them changes, use [`Reader::snapshot`](crate::Reader::snapshot), or
    /// [`derive`](crate::derive).
    pub fn snapshot(&self) -> &Snapshot<R> {
        &self.seen
    }

    /// Waits until [`advance`](Self::advance) may have something new.
    pub(crate) async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Moves on to the current table and returns the previous one.
    pub(crate) fn advance(&mut self) -> Snapshot<R> {
        let now = self.receiver.borrow_and_update().clone();
        std::mem::replace(&mut self.seen, now)
    }

    fn batch(&mut self) -> Option<Batch<R>> {
        let before = self.advance();
        let (mut changes, mut upserts) = (Vec::new(), Vec::new());
        for step in before.steps_to(&self.seen) {
            match step {
                Step { new: Some(row), .. } => upserts.push(Change::Upsert(Arc::clone(row))),
                Step { old: Some(row), .. } => changes.push(Change::Delete(Arc::clone(row))),
                Step { old: None, new: None } => {}
            }
        }
        changes.append(&mut upserts);
        let news = !changes.is_empty() || self.seen.initialized != before.initialized;
        let batch = Batch { changes, revision: self.seen.revision, initialized: self.seen.initialized };
        news.then_some(batch)
    }
}

/// What happened to one key between two snapshots.
pub(crate) struct Step<'a, R> {
    pub(crate) old: Option<&'a Arc<R>>,
    pub(crate) new: Option<&'a Arc<R>>,
}

impl<R: Row> Snapshot<R> {
    /// The keys that differ in a later snapshot, in key order.
    pub(crate) fn steps_to<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = Step<'a, R>> {
        self.rows.diff(&later.rows).map(|item| match item {
            DiffItem::Add(_, entry) => Step { old: None, new: Some(&entry.row) },
            DiffItem::Update { old: (_, old), new: (_, new) } => Step { old: Some(&old.row), new: Some(&new.row) },
            DiffItem::Remove(_, entry) => Step { old: Some(&entry.row), new: None },
        })
    }
}
