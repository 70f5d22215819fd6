// SPDX-License-Identifier: Apache-2.0
//! The rows of a table that a controller has still to see to: a pass costs what has changed, and not what there is.

use super::refusals::Refusals;
use k8s::kube::Error;
use statedb::{Change, Changes, Reader, Row};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows that have changed since they were seen to.
pub(super) struct Pending<R: Row> {
    changes: Changes<R>,
    keys: BTreeSet<R::Key>,
    refusals: Refusals<R::Key, Arc<R>>,
}

impl<R: Row> Pending<R> {
    /// All that there are, for that controller.
    pub(super) fn new(controller: &'static str, rows: &Reader<R>) -> Self {
        Self { changes: rows.subscribe(), keys: BTreeSet::new(), refusals: Refusals::new(controller) }
    }

    /// Waits until there are more.
    pub(super) async fn more(&mut self) {
        let batch = tokio::select! {
            batch = self.changes.next() => batch,
            _ = self.refusals.due() => return,
        };
        for change in batch.changes {
            match change {
                Change::Upsert(row) => drop(self.keys.insert(row.key())),
                Change::Delete(row) => {
                    self.keys.remove(&row.key());
                    self.refusals.forget(&row.key());
                }
            }
        }
    }

    pub(super) fn rows(&self) -> Vec<Arc<R>> {
        let rows = self.keys.iter().filter_map(|key| self.changes.snapshot().get(key));
        rows.filter(|row| !self.refusals.cover(&row.key(), row)).collect()
    }

    /// Takes the outcome of seeing to a row, which needs nothing until it changes again, unless that failed. One that is refused for what it
    /// says waits.
    pub(super) fn settle(&mut self, row: &Arc<R>, result: Result<(), Error>) -> Result<(), Error> {
        let key = row.key();
        self.refusals.absorb(key.clone(), Arc::clone(row), result)?;
        if !self.refusals.cover(&key, row) {
            self.keys.remove(&key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        let mut pending = Pending::new("values", &reader);
        writer.insert(Value(1, "a"));
        writer.insert(Value(2, "a"));
        writer.commit();
        pending.more().await;
        let rows = |pending: &Pending<Value>| pending.rows().iter().map(|row| (**row).clone()).collect::<Vec<_>>();
        assert_eq!(rows(&pending), [Value(1, "a"), Value(2, "a")]);
        pending.settle(&Arc::new(Value(1, "a")), Ok(())).unwrap();
        pending.settle(&Arc::new(Value(2, "a")), Err(refusal(403))).unwrap_err();
        assert_eq!(rows(&pending), [Value(2, "a")], "what failed comes again");
        writer.insert(Value(1, "b"));
        writer.remove(&2);
        writer.commit();
        pending.more().await;
        assert_eq!(rows(&pending), [Value(1, "b")]);
    }

    fn refusal(code: u16) -> Error {
        Error::Api(Box::new(k8s::kube::core::Status { code, ..Default::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_what_it_says_waits_for_a_change_or_a_long_time() {
        let (mut writer, reader) = statedb::table("values");
        let mut pending = Pending::new("values", &reader);
        writer.insert(Value(1, "a"));
        writer.commit();
        pending.more().await;
        for code in [400, 413, 422] {
            let row = pending.rows().pop().unwrap();
            pending.settle(&row, Err(refusal(code))).unwrap();
            assert!(pending.rows().is_empty(), "{code}");
            pending.more().await;
            assert_eq!(pending.rows().len(), 1, "after a long time it is tried again");
        }
        let row = pending.rows().pop().unwrap();
        pending.settle(&row, Err(refusal(422))).unwrap();
        writer.insert(Value(1, "b"));
        writer.commit();
        pending.more().await;
        assert_eq!(pending.rows().len(), 1, "another version may be accepted");
        writer.remove(&1);
        writer.commit();
        pending.more().await;
        assert!(tokio::time::timeout(std::time::Duration::from_secs(86_400), pending.more()).await.is_err());
    }
}
