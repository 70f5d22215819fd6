// SPDX-License-Identifier: Apache-2.0
//! Secondary indexes: finding a table's rows by something other than their key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{Changes, Reader, Row, Snapshot};

#[cfg(test)]
mod tests;

/// Finds rows by a secondary key: a row may have several, and several rows may share one. Created by [`Reader::index`];
/// clones share their work.
///
/// An index follows its table as a subscriber does: a lookup first catches up with what changed since the previous one,
/// at the cost of just that, and commits cost nothing extra.
pub struct Index<R: Row, K> {
    shared: Arc<Mutex<Shared<R, K>>>,
}

impl<R: Row, K> Clone for Index<R, K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Row, K: fmt::Debug> fmt::Debug for Index<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Index").field(&self.shared.lock().rows).finish()
    }
}

impl<R: Row> Reader<R> {
    /// An index of this table by the keys that a function returns for each row. It must depend on nothing but the row.
    pub fn index<K: Ord, I: IntoIterator<Item = K>>(&self, keys: impl Fn(&R) -> I + Send + 'static) -> Index<R, K> {
        let keys = Box::new(move |row: &R| keys(row).into_iter().collect());
        let shared = Shared { changes: self.subscribe(), keys, rows: BTreeMap::new() };
        Index { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl<R: Row, K: Ord> Index<R, K> {
    /// The rows with that key as of the last commit, in primary key order.
    pub fn get(&self, key: &K) -> Vec<Arc<R>> {
        let mut shared = self.shared.lock();
        shared.follow();
        let table = shared.changes.snapshot();
        shared.rows.get(key).into_iter().flatten().filter_map(|row| table.get(row)).collect()
    }

    /// The first of them, without an allocation.
    pub fn first(&self, key: &K) -> Option<Arc<R>> {
        let mut shared = self.shared.lock();
        shared.follow();
        let table = shared.changes.snapshot();
        shared.rows.get(key)?.iter().find_map(|row| table.get(row))
    }
}

type Keys<R, K> = dyn Fn(&R) -> BTreeSet<K> + Send;

struct Shared<R: Row, K> {
    changes: Changes<R>,
    keys: Box<Keys<R, K>>,
    rows: BTreeMap<K, BTreeSet<R::Key>>,
}

impl<R: Row, K: Ord> Shared<R, K> {
    fn follow(&mut self) {
        let before: Snapshot<R> = self.changes.advance();
        for step in before.steps_to(self.changes.snapshot()) {
            for (row, key) in
                step.old.into_iter().flat_map(|row| (self.keys)(row).into_iter().map(|key| (row.key(), key)))
            {
                if let Some(rows) = self.rows.get_mut(&key) {
                    rows.remove(&row);
                    if rows.is_empty() {
                        self.rows.remove(&key);
                    }
                }
            }
            if let Some(row) = step.new {
                for key in (self.keys)(row) {
                    self.rows.entry(key).or_default().insert(row.key());
                }
            }
        }
    }
}
