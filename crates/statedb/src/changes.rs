// SPDX-License-Identifier: Apache-2.0
//! Subscriptions: what changed in a table since the subscriber looked last.
//!
//! A subscriber holds the map of its last batch and compares it with the present one. Parts that both share are skipped, so
//! a batch costs about what changed, and a subscriber that never looks costs one old map and no more.

use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};
use tokio::sync::watch;

use crate::{Revision, Row, Snapshot};

/// What happened to one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<R> {
    /// The row is new or another than before.
    Upsert(Arc<R>),
    /// The row, as it was, is gone.
    Delete(Arc<R>),
}

/// All that changed between two looks at a table, at most once per key: deletions first, each part in key order.
#[derive(Clone, Debug)]
pub struct Batch<R> {
    /// The changes. Empty when only `initialized` changed.
    pub changes: Vec<Change<R>>,
    /// The commit up to which the changes reach.
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

    /// Waits until something changed and returns all of it. The first batch is all rows that are present.
    ///
    /// Cancelling the wait loses nothing. When the writer is gone and everything was seen, it waits for ever.
    pub async fn next(&mut self) -> Batch<R> {
        loop {
            self.changed().await;
            if let Some(batch) = self.batch() {
                return batch;
            }
        }
    }

    /// The table as of the last batch: empty, and not complete, before the first. Who waits for several tables and resolves
    /// when any of them changes wants [`Reader::snapshot`](crate::Reader::snapshot), or [`derive`](crate::derive).
    pub fn snapshot(&self) -> &Snapshot<R> {
        &self.seen
    }

    /// Waits until [`advance`](Self::advance) may have something to tell.
    pub(crate) async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Moves on to the present table and returns the one before.
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

/// What became of one key between two snapshots.
pub(crate) struct Step<'a, R> {
    pub(crate) old: Option<&'a Arc<R>>,
    pub(crate) new: Option<&'a Arc<R>>,
}

impl<R: Row> Snapshot<R> {
    /// Each key that differs in a later snapshot, in key order.
    pub(crate) fn steps_to<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = Step<'a, R>> {
        self.rows.diff(&later.rows).map(|item| match item {
            DiffItem::Add(_, entry) => Step { old: None, new: Some(&entry.row) },
            DiffItem::Update { old: (_, old), new: (_, new) } => Step { old: Some(&old.row), new: Some(&new.row) },
            DiffItem::Remove(_, entry) => Step { old: Some(&entry.row), new: None },
        })
    }
}
