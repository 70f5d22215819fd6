// SPDX-License-Identifier: Apache-2.0
//! What tables and subscribers promise, by example and against a naive model over random histories.

use std::collections::BTreeMap;

use futures::FutureExt;
use proptest::prelude::*;

use super::{Reader, Revision, Row, Snapshot, Writer, table};
use crate::{Batch, Change, Changes};

#[derive(Clone, Debug, PartialEq)]
struct Pair(u8, u8);

impl Row for Pair {
    type Key = u8;
    fn key(&self) -> u8 {
        self.0
    }
}

fn pairs() -> (Writer<Pair>, Reader<Pair>) {
    table("pairs")
}

fn content(snapshot: &Snapshot<Pair>) -> Vec<(u8, u8)> {
    snapshot.iter().map(|row| (row.0, row.1)).collect()
}

fn next_now(changes: &mut Changes<Pair>) -> Option<Batch<Pair>> {
    changes.next().now_or_never()
}

#[test]
fn a_revision_is_written_as_its_number() {
    assert_eq!(Revision(7).next().to_string(), "8");
}

#[test]
fn readers_see_a_commit_as_a_whole_and_snapshots_stay() {
    let (mut writer, reader) = pairs();
    let before = reader.snapshot();
    writer.insert(Pair(1, 10));
    writer.insert(Pair(2, 20));
    assert!(reader.snapshot().is_empty());
    assert_eq!(writer.commit(), Revision(1));
    assert_eq!(content(&reader.snapshot()), [(1, 10), (2, 20)]);
    assert!(before.is_empty());
    assert_eq!(reader.snapshot().get(&2).unwrap().1, 20);
    assert_eq!(reader.snapshot().range(2..).count(), 1);
}

#[test]
fn what_nets_to_nothing_is_no_change() {
    let (mut writer, reader) = pairs();
    writer.insert(Pair(1, 10));
    let first = writer.commit();
    let mut changes = reader.subscribe();
    next_now(&mut changes).unwrap();
    writer.insert(Pair(1, 10));
    writer.insert(Pair(2, 20));
    writer.remove(&2);
    writer.remove(&3);
    assert_eq!(writer.commit(), first);
    assert!(next_now(&mut changes).is_none());
}

#[test]
fn replace_removes_what_is_absent_and_forgets_what_was_staged() {
    let (mut writer, reader) = pairs();
    for n in 1..=3 {
        writer.insert(Pair(n, n));
    }
    writer.commit();
    let kept = reader.snapshot().revision_of(&2);
    writer.insert(Pair(9, 9));
    writer.replace([Pair(2, 2), Pair(4, 4)]);
    writer.commit();
    assert_eq!(content(&reader.snapshot()), [(2, 2), (4, 4)]);
    assert_eq!(reader.snapshot().revision_of(&2), kept);
}

#[tokio::test]
async fn the_mark_comes_together_with_the_rows_staged_before_it() {
    let (mut writer, reader) = pairs();
    let mut changes = reader.subscribe();
    assert!(next_now(&mut changes).is_none());
    assert!(reader.initialized().now_or_never().is_none());
    writer.insert(Pair(1, 1));
    writer.mark_initialized();
    reader.initialized().await;
    let batch = changes.next().await;
    assert!(batch.initialized);
    assert_eq!(batch.changes.len(), 1);
}

#[test]
fn an_empty_table_that_is_complete_is_news_once() {
    let (mut writer, reader) = pairs();
    let mut changes = reader.subscribe();
    writer.mark_initialized();
    let batch = next_now(&mut changes).unwrap();
    assert!(batch.initialized && batch.changes.is_empty());
    writer.mark_initialized();
    assert!(next_now(&mut changes).is_none());
    assert!(next_now(&mut reader.subscribe()).unwrap().initialized);
}

#[test]
fn a_batch_names_each_key_once_deletions_first() {
    let (mut writer, reader) = pairs();
    writer.replace([Pair(1, 1), Pair(5, 5)]);
    writer.commit();
    let mut changes = reader.subscribe();
    next_now(&mut changes).unwrap();
    for n in 2..=4 {
        writer.insert(Pair(1, n));
        writer.commit();
    }
    writer.remove(&5);
    let revision = writer.commit();
    let batch = next_now(&mut changes).unwrap();
    assert_eq!(batch.revision, revision);
    assert_eq!(batch.changes, [Change::Delete(Pair(5, 5).into()), Change::Upsert(Pair(1, 4).into())]);
}

#[test]
fn a_subscriber_sees_the_last_commit_of_a_writer_that_is_gone_and_then_waits() {
    let (mut writer, reader) = pairs();
    let mut changes = reader.subscribe();
    writer.insert(Pair(1, 1));
    writer.commit();
    drop(writer);
    assert_eq!(next_now(&mut changes).unwrap().changes.len(), 1);
    assert!(next_now(&mut changes).is_none());
    assert!(reader.initialized().now_or_never().is_none());
}

#[tokio::test]
async fn a_waiting_subscriber_wakes_at_a_commit() {
    let (mut writer, reader) = pairs();
    let mut changes = reader.subscribe();
    let waiting = tokio::spawn(async move { changes.next().await.changes.len() });
    tokio::task::yield_now().await;
    writer.insert(Pair(1, 1));
    writer.commit();
    assert_eq!(waiting.await.unwrap(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u8),
    Remove(u8),
    Replace(Vec<(u8, u8)>),
    Commit,
    Initialize,
    Subscribe,
    Poll(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, value) = (0..12_u8, 0..3_u8);
    prop_oneof![
        6 => (key.clone(), value.clone()).prop_map(|(k, v)| Step::Insert(k, v)),
        4 => key.clone().prop_map(Step::Remove),
        1 => proptest::collection::vec((key, value), 0..8).prop_map(Step::Replace),
        4 => Just(Step::Commit),
        1 => Just(Step::Initialize),
        1 => Just(Step::Subscribe),
        3 => (0..4_usize).prop_map(Step::Poll),
    ]
}

/// The naive counterpart of a table: two maps.
#[derive(Default)]
struct Model {
    committed: BTreeMap<u8, u8>,
    staged: BTreeMap<u8, u8>,
    initialized: bool,
    revision: u64,
}

impl Model {
    fn commit(&mut self) {
        self.revision += u64::from(self.committed != self.staged);
        self.committed.clone_from(&self.staged);
    }
}

/// A subscriber that keeps its own copy by applying batches.
struct Follower {
    changes: Changes<Pair>,
    copy: BTreeMap<u8, u8>,
    initialized: bool,
}

impl Follower {
    fn poll(&mut self, model: &Model) {
        let stale = self.copy != model.committed || self.initialized != model.initialized;
        let Some(batch) = next_now(&mut self.changes) else {
            assert!(!stale, "a stale subscriber was given nothing");
            return;
        };
        let mut keys = Vec::new();
        for change in batch.changes {
            match change {
                Change::Upsert(row) => {
                    keys.push(row.0);
                    self.copy.insert(row.0, row.1);
                }
                Change::Delete(row) => {
                    keys.push(row.0);
                    assert_eq!(self.copy.remove(&row.0), Some(row.1), "a deletion carries the row that was seen");
                }
            }
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count, "each key once");
        self.initialized = batch.initialized;
        assert_eq!((&self.copy, self.initialized), (&model.committed, model.initialized));
        assert_eq!(batch.revision, Revision(model.revision));
    }
}

fn play(steps: Vec<Step>) {
    let (mut writer, reader) = pairs();
    let (mut model, mut followers) = (Model::default(), Vec::<Follower>::new());
    for step in steps {
        match step {
            Step::Insert(key, value) => {
                writer.insert(Pair(key, value));
                model.staged.insert(key, value);
            }
            Step::Remove(key) => {
                writer.remove(&key);
                model.staged.remove(&key);
            }
            Step::Replace(rows) => {
                writer.replace(rows.iter().map(|(key, value)| Pair(*key, *value)));
                model.staged = rows.into_iter().collect();
            }
            Step::Commit => {
                model.commit();
                assert_eq!(writer.commit(), Revision(model.revision));
            }
            Step::Initialize => {
                model.commit();
                model.initialized = true;
                writer.mark_initialized();
            }
            Step::Subscribe => {
                followers.push(Follower { changes: reader.subscribe(), copy: BTreeMap::new(), initialized: false })
            }
            Step::Poll(n) => {
                if let Some(follower) = followers.get_mut(n) {
                    follower.poll(&model);
                }
            }
        }
        let snapshot = reader.snapshot();
        assert_eq!(content(&snapshot), model.committed.clone().into_iter().collect::<Vec<_>>());
        assert_eq!((snapshot.initialized(), snapshot.len()), (model.initialized, model.committed.len()));
    }
    for follower in &mut followers {
        follower.poll(&model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_subscribers_agree_with_a_naive_model(steps in proptest::collection::vec(step(), 0..120)) {
        play(steps);
    }

    /// More rows than fit into one node of the persistent map, so that skipping what is shared is exercised.
    #[test]
    fn a_subscriber_of_a_large_table_sees_exactly_what_changed(
        start in proptest::collection::btree_map(0..2000_u16, 0..9_u8, 0..1500),
        edits in proptest::collection::vec((0..2000_u16, proptest::option::of(0..9_u8)), 0..40),
    ) {
        let (mut writer, reader) = table::<Wide>("wide");
        writer.replace(start.iter().map(|(key, value)| Wide(*key, *value)));
        writer.commit();
        let mut changes = reader.subscribe();
        let first = changes.next().now_or_never().map_or(0, |batch| batch.changes.len());
        prop_assert_eq!(first, start.len());
        let mut end = start.clone();
        for (key, value) in edits {
            match value {
                Some(value) => {
                    writer.insert(Wide(key, value));
                    end.insert(key, value);
                }
                None => {
                    writer.remove(&key);
                    end.remove(&key);
                }
            }
        }
        writer.commit();
        let deleted = start.iter().filter(|(key, _)| !end.contains_key(key));
        let upserted = end.iter().filter(|(key, value)| start.get(key) != Some(value));
        let expected: Vec<_> = deleted
            .map(|(key, value)| Change::Delete(Wide(*key, *value).into()))
            .chain(upserted.map(|(key, value)| Change::Upsert(Wide(*key, *value).into())))
            .collect();
        let seen = changes.next().now_or_never().map(|batch| batch.changes).unwrap_or_default();
        prop_assert_eq!(seen, expected);
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Wide(u16, u8);

impl Row for Wide {
    type Key = u16;
    fn key(&self) -> u16 {
        self.0
    }
}
