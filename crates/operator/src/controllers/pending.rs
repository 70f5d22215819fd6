// SPDX-License-Identifier: Apache-2.0
//! The rows of a table that a controller has still to see to: a pass costs what has changed, and not what there is.

use statedb::{Change, Changes, Reader, Row};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows that have changed since they were seen to.
pub(super) struct Pending<R: Row> {
    changes: Changes<R>,
    keys: BTreeSet<R::Key>,
}

impl<R: Row> Pending<R> {
    /// All that there are.
    pub(super) fn new(rows: &Reader<R>) -> Self {
        Self { changes: rows.subscribe(), keys: BTreeSet::new() }
    }

    /// Waits until there are more. Gives the rows that are gone.
    pub(super) async fn more(&mut self) -> Vec<Arc<R>> {
        let mut gone = Vec::new();
        for change in self.changes.next().await.changes {
            match change {
                Change::Upsert(row) => drop(self.keys.insert(row.key())),
                Change::Delete(row) => {
                    self.keys.remove(&row.key());
                    gone.push(row);
                }
            }
        }
        gone
    }

    pub(super) fn rows(&self) -> Vec<Arc<R>> {
        self.keys.iter().filter_map(|key| self.changes.snapshot().get(key)).collect()
    }

    /// The row needs nothing until it changes again.
    pub(super) fn done(&mut self, row: &R) {
        self.keys.remove(&row.key());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Value(u8, &'static str);

    impl Row for Value {
        type Key = u8;
        fn key(&self) -> u8 {
            self.0
        }
    }

    #[tokio::test]
    async fn what_was_seen_to_is_not_pending_until_it_changes_again() {
        let (mut writer, reader) = statedb::table("values");
        let mut pending = Pending::new(&reader);
        writer.insert(Value(1, "a"));
        writer.insert(Value(2, "a"));
        writer.commit();
        assert!(pending.more().await.is_empty());
        let rows = |pending: &Pending<Value>| pending.rows().iter().map(|row| (**row).clone()).collect::<Vec<_>>();
        assert_eq!(rows(&pending), [Value(1, "a"), Value(2, "a")]);
        pending.done(&Value(1, "a"));
        assert_eq!(rows(&pending), [Value(2, "a")], "what failed comes again");
        writer.insert(Value(1, "b"));
        writer.remove(&2);
        writer.commit();
        assert_eq!(*pending.more().await.first().unwrap().as_ref(), Value(2, "a"));
        assert_eq!(rows(&pending), [Value(1, "b")]);
    }
}
