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
            if self.receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(batch) = self.poll_batch() {
                return batch;
            }
        }
    }

    /// The table as of the last batch.
    pub fn snapshot(&self) -> &Snapshot<R> {
        &self.seen
    }

    fn poll_batch(&mut self) -> Option<Batch<R>> {
        let now = self.receiver.borrow_and_update().clone();
        let changes = difference(&self.seen, &now);
        let news = !changes.is_empty() || now.initialized != self.seen.initialized;
        let batch = Batch { changes, revision: now.revision, initialized: now.initialized };
        self.seen = now;
        news.then_some(batch)
    }
}

fn difference<R: Row>(old: &Snapshot<R>, new: &Snapshot<R>) -> Vec<Change<R>> {
    let (mut changes, mut upserts) = (Vec::new(), Vec::new());
    for item in old.rows.diff(&new.rows) {
        match item {
            DiffItem::Add(_, entry) | DiffItem::Update { new: (_, entry), .. } => {
                upserts.push(Change::Upsert(Arc::clone(&entry.row)));
            }
            DiffItem::Remove(_, entry) => changes.push(Change::Delete(Arc::clone(&entry.row))),
        }
    }
    changes.append(&mut upserts);
    changes
}
