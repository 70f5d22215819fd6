// SPDX-License-Identifier: Apache-2.0
//! Tables: one [`Writer`], any number of [`Reader`]s, and the [`Snapshot`]s that readers take.
//!
//! A table is one persistent map behind a watch channel. A commit publishes a new map that shares all unchanged parts
//! with the old one, so a snapshot is one reference count and never blocks the writer.

use std::{borrow::Borrow, collections::BTreeMap, fmt, ops::RangeBounds, sync::Arc};

use imbl::OrdMap;
use tokio::sync::watch;

use crate::Changes;

#[cfg(test)]
mod tests;

/// What a table holds: an immutable, complete value that knows its key.
pub trait Row: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// What identifies a row in its table.
    type Key: Ord + Clone + fmt::Debug + Send + Sync + 'static;
    /// The key of this row.
    fn key(&self) -> Self::Key;
}

/// The number of a commit in the life of one table; the empty table is at revision zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The next commit.
    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Creates a table. The writer goes to its one owner, the reader to anyone interested.
pub fn table<R: Row>(name: &'static str) -> (Writer<R>, Reader<R>) {
    let empty = Snapshot { rows: OrdMap::new(), revision: Revision(0), initialized: false };
    let (sender, receiver) = watch::channel(empty);
    (Writer { name, sender, staged: BTreeMap::new() }, Reader { name, receiver })
}

/// A row and the commit that wrote it. Two are equal if the same write made them, which is how subscribers compare.
#[derive(Clone, Debug)]
pub(crate) struct Entry<R> {
    pub(crate) row: Arc<R>,
    pub(crate) revision: Revision,
}

impl<R> PartialEq for Entry<R> {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && Arc::ptr_eq(&self.row, &other.row)
    }
}

/// The only way to change a table.
///
/// Changes are staged until [`commit`](Self::commit). Dropping the writer freezes the table: readers keep what they have.
#[derive(Debug)]
pub struct Writer<R: Row> {
    name: &'static str,
    sender: watch::Sender<Snapshot<R>>,
    /// The last change of each key; `None` removes.
    staged: BTreeMap<R::Key, Option<Arc<R>>>,
}

impl<R: Row> Writer<R> {
    /// Stages a row in place of the one with its key, if any. An equal row is no change.
    pub fn insert(&mut self, row: R) {
        self.staged.insert(row.key(), Some(Arc::new(row)));
    }

    /// Stages a removal. Removing something absent is no change.
    pub fn remove(&mut self, key: &R::Key) {
        self.staged.insert(key.clone(), None);
    }

    /// Stages exactly these rows: all others are removed, including those staged before.
    pub fn replace(&mut self, rows: impl IntoIterator<Item = R>) {
        self.staged = self.sender.borrow().rows.keys().map(|key| (key.clone(), None)).collect();
        self.staged.extend(rows.into_iter().map(|row| (row.key(), Some(Arc::new(row)))));
    }

    /// Publishes what is staged atomically, and returns the revision at which all of it is visible.
    pub fn commit(&mut self) -> Revision {
        self.publish(false)
    }

    /// Publishes what is staged and marks the table as complete: from now on, what is not in it may be pruned.
    pub fn mark_initialized(&mut self) {
        self.publish(true);
    }

    /// Another reader of this table. It does not see staged changes.
    pub fn reader(&self) -> Reader<R> {
        Reader { name: self.name, receiver: self.sender.subscribe() }
    }

    /// What readers see now.
    pub fn snapshot(&self) -> Snapshot<R> {
        self.sender.borrow().clone()
    }

    fn publish(&mut self, initialize: bool) -> Revision {
        let mut next = self.snapshot();
        let changed = next.apply(std::mem::take(&mut self.staged));
        let mark = initialize && !next.initialized;
        next.initialized |= initialize;
        let revision = next.revision;
        if changed || mark {
            self.sender.send_replace(next);
        }
        revision
    }
}

/// Reads a table and follows its changes.
#[derive(Debug)]
pub struct Reader<R: Row> {
    name: &'static str,
    receiver: watch::Receiver<Snapshot<R>>,
}

impl<R: Row> Clone for Reader<R> {
    fn clone(&self) -> Self {
        Self { name: self.name, receiver: self.receiver.clone() }
    }
}

impl<R: Row> Reader<R> {
    /// The table's name in dumps and logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The table as of the last commit.
    pub fn snapshot(&self) -> Snapshot<R> {
        self.receiver.borrow().clone()
    }

    /// Changes from now on; the first batch holds the rows already present.
    pub fn subscribe(&self) -> Changes<R> {
        Changes::new(self.receiver.clone())
    }

    /// Returns once the writer has marked the table as complete. Never returns if the writer goes away first.
    pub async fn initialized(&self) {
        let mut receiver = self.receiver.clone();
        let gone = receiver.wait_for(Snapshot::initialized).await.is_err();
        if gone {
            std::future::pending::<()>().await;
        }
    }
}

/// A table as of one commit; never changes.
pub struct Snapshot<R: Row> {
    pub(crate) rows: OrdMap<R::Key, Entry<R>>,
    pub(crate) revision: Revision,
    pub(crate) initialized: bool,
}

impl<R: Row> Clone for Snapshot<R> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), revision: self.revision, initialized: self.initialized }
    }
}

impl<R: Row> fmt::Debug for Snapshot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision.0)
            .field("initialized", &self.initialized)
            .field("rows", &self.iter().collect::<Vec<_>>())
            .finish()
    }
}

impl<R: Row> Snapshot<R> {
    /// The row with this key.
    pub fn get<Q>(&self, key: &Q) -> Option<Arc<R>>
    where
        Q: Ord + ?Sized,
        R::Key: Borrow<Q>,
    {
        self.rows.get(key).map(|entry| Arc::clone(&entry.row))
    }

    /// The commit that wrote the row with this key.
    pub fn revision_of(&self, key: &R::Key) -> Option<Revision> {
        self.rows.get(key).map(|entry| entry.revision)
    }

    /// All rows in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        self.rows.values().map(|entry| &entry.row)
    }

    /// The rows whose keys lie in a range, in key order.
    pub fn range(&self, keys: impl RangeBounds<R::Key>) -> impl Iterator<Item = &Arc<R>> {
        self.rows.range(keys).map(|(_, entry)| &entry.row)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The last commit in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the writer had marked the table as complete.
    pub fn initialized(&self) -> bool {
        self.initialized
    }

    /// Applies staged changes under the next revision; returns whether anything changed.
    fn apply(&mut self, staged: BTreeMap<R::Key, Option<Arc<R>>>) -> bool {
        let revision = self.revision.next();
        let mut changed = false;
        for (key, row) in staged {
            if self.rows.get(&key).map(|entry| &entry.row) == row.as_ref() {
                continue;
            }
            changed = true;
            match row {
                Some(row) => self.rows.insert(key, Entry { row, revision }),
                None => self.rows.remove(&key),
            };
        }
        if changed {
            self.revision = revision;
        }
        changed
    }
}
