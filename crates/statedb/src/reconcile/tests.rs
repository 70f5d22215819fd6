// SPDX-License-Identifier: Apache-2.0
//! The reconciler against a target that fails on demand, on a paused clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Operation, ReconcileConfig, Target, reconcile};
use crate::{Counters, Revision, Row, Snapshot, State, StatusReader, Summary, Tasks, Writer, table};

#[derive(Clone, Debug, PartialEq)]
struct Pair(u8, u8);

impl Row for Pair {
    type Key = u8;
    fn key(&self) -> u8 {
        self.0
    }
}

#[derive(Debug, thiserror::Error)]
#[error("refused {0}")]
struct Refused(&'static str);

const FOR_GOOD: &str = "for good";

/// What the target holds and what it was told.
#[derive(Default)]
struct Outside {
    held: BTreeMap<u8, u8>,
    refuse: BTreeSet<u8>,
    refuse_for_good: bool,
    refuse_prune: bool,
    updates: Vec<(Instant, u8, u8)>,
    deletes: Vec<u8>,
    prunes: Vec<Instant>,
    has_made_room: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Outside>>);

impl Target<Pair> for Fake {
    type Error = Refused;

    async fn update(&mut self, row: &Pair) -> Result<(), Refused> {
        let mut outside = self.0.lock();
        outside.updates.push((Instant::now(), row.0, row.1));
        if outside.refuse.contains(&row.0) {
            return Err(Refused(if outside.refuse_for_good { FOR_GOOD } else { "update" }));
        }
        outside.held.insert(row.0, row.1);
        Ok(())
    }

    fn is_permanent(error: &Refused) -> bool {
        error.0 == FOR_GOOD
    }

    fn has_made_room(&mut self) -> bool {
        std::mem::take(&mut self.0.lock().has_made_room)
    }

    async fn delete(&mut self, key: &u8) -> Result<(), Refused> {
        let mut outside = self.0.lock();
        outside.deletes.push(*key);
        if outside.refuse.contains(key) {
            return Err(Refused("delete"));
        }
        outside.held.remove(key);
        Ok(())
    }

    async fn prune(&mut self, desired: &Snapshot<Pair>) -> Result<(), Refused> {
        let mut outside = self.0.lock();
        outside.prunes.push(Instant::now());
        if outside.refuse_prune {
            return Err(Refused("prune"));
        }
        outside.held.retain(|key, _| desired.get(key).is_some());
        Ok(())
    }
}

struct Bench {
    writer: Writer<Pair>,
    fake: Fake,
    status: StatusReader<Pair>,
    _tasks: Tasks,
}

fn bench(fake: Fake) -> Bench {
    let (writer, reader) = table("pairs");
    let tasks = Tasks::new(CancellationToken::new());
    let status = reconcile(&tasks, "pairs", reader, fake.clone());
    Bench { writer, fake, status, _tasks: tasks }
}

impl Bench {
    fn outside(&self) -> parking_lot::MutexGuard<'_, Outside> {
        self.fake.0.lock()
    }

    async fn commit(&mut self, rows: impl IntoIterator<Item = Pair>) -> Revision {
        for row in rows {
            self.writer.insert(row);
        }
        let revision = self.writer.commit();
        self.settle().await;
        revision
    }

    /// Lets the reconciler run until it waits for the clock.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_at_once_when_there_is_room() {
    let mut bench = bench(Fake::default());
    bench.outside().refuse = [1, 2].into();
    bench.commit([Pair(1, 1), Pair(2, 1)]).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    bench.outside().refuse.clear();
    bench.outside().has_made_room = true;
    bench.commit([Pair(3, 1)]).await;
    assert_eq!(bench.outside().held, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_applied_with_the_last_change_of_each_key_only() {
    let mut bench = bench(Fake::default());
    for n in 0..5 {
        bench.writer.insert(Pair(1, n));
        bench.writer.commit();
    }
    let revision = bench.writer.commit();
    bench.status.reached(revision).await;
    assert_eq!(bench.outside().updates.len(), 1);
    assert_eq!(bench.outside().held, BTreeMap::from([(1, 4)]));
    bench.writer.remove(&1);
    let revision = bench.writer.commit();
    bench.status.reached(revision).await;
    assert!(bench.outside().held.is_empty());
    assert_eq!(bench.status.summary().counters.deletes, 1);
    assert_eq!(bench.status.get(&1), None);
}

#[tokio::test(start_paused = true)]
async fn a_failing_row_is_retried_with_growing_waits_while_others_go_on() {
    let mut bench = bench(Fake::default());
    bench.outside().refuse.insert(1);
    let revision = bench.commit([Pair(1, 1), Pair(2, 2)]).await;
    assert_eq!(bench.outside().held, BTreeMap::from([(2, 2)]));
    assert!(bench.status.reached(revision).now_or_never().is_none());
    assert!(bench.status.applied(&1, revision).now_or_never().is_none());
    bench.status.applied(&2, revision).await;

    tokio::time::sleep(Duration::from_secs(10)).await;
    let attempts: Vec<Instant> = bench.outside().updates.iter().filter(|u| u.1 == 1).map(|u| u.0).collect();
    let waits: Vec<u128> = attempts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(waits.len() > 3, "{waits:?}");
    for (wait, expected) in waits.iter().zip([100, 200, 400]) {
        assert!((expected / 2..=expected + 2).contains(wait), "{waits:?}");
    }
    let (failed, retried) = (attempts.len() as u64, waits.len() as u64);
    let status = bench.status.get(&1).unwrap();
    let attempts = u32::try_from(failed).unwrap();
    assert_eq!(status.state, State::Error { message: "refused update".into(), attempts });
    assert_eq!((status.revision, bench.status.failing().len()), (revision, 1));

    bench.outside().refuse.clear();
    bench.status.reached(revision).await;
    assert_eq!(bench.outside().held, BTreeMap::from([(1, 1), (2, 2)]));
    assert_eq!(bench.status.get(&1).unwrap().state, State::Done);
    let Summary { failing, counters, .. } = bench.status.summary();
    let expected = Counters { batches: 1, updates: 2, errors: failed, retries: retried + 1, ..Counters::default() };
    assert_eq!((failing, counters), (0, expected));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_when_it_begins_and_when_it_ends() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut bench = bench(Fake::default());
    bench.outside().refuse.insert(1);
    bench.commit([Pair(1, 1)]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.outside().refuse.clear();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!((log.matches("failing").count(), log.matches("recovered").count()), (1, 1), "{log}");
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_a_reconciler_learns_what_was_tried_and_that_something_changed() {
    let mut bench = bench(Fake::default());
    assert_eq!((bench.status.name(), bench.status.summary().pruned), ("pairs", false));
    let mut watcher = bench.status.clone();
    bench.settle().await;
    watcher.changed().now_or_never();
    assert!(watcher.changed().now_or_never().is_none());
    bench.outside().refuse.insert(1);
    let next = Revision(bench.writer.snapshot().revision().0 + 1);
    assert!(bench.status.attempted(next).now_or_never().is_none());
    let revision = bench.commit([Pair(1, 1)]).await;
    assert_eq!(revision, next);
    watcher.changed().now_or_never().expect("a batch was applied");
    bench.status.attempted(revision).now_or_never().expect("failing is tried, too");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_for_good_waits_for_a_change_and_is_told_of() {
    let mut bench = bench(Fake::default());
    bench.outside().refuse.insert(1);
    bench.outside().refuse_for_good = true;
    bench.commit([Pair(1, 1)]).await;
    tokio::time::sleep(ReconcileConfig::default().full_sync / 2).await;
    assert_eq!(bench.outside().updates.len(), 1);
    assert_eq!(bench.status.failing().len(), 1);
    bench.outside().refuse.clear();
    let revision = bench.commit([Pair(1, 2)]).await;
    bench.status.reached(revision).now_or_never().expect("a change is tried at once");
}

#[tokio::test(start_paused = true)]
async fn the_wait_between_attempts_has_a_limit() {
    let config = ReconcileConfig::default();
    let within = |attempts: u32, whole: Duration| (whole / 2..=whole).contains(&config.backoff(attempts));
    assert!(within(1, Duration::from_millis(100)) && within(4, Duration::from_millis(800)));
    assert!(within(u32::MAX, config.retry_max));
    assert!(ReconcileConfig::remote().backoff(u32::MAX) >= Duration::from_secs(150));
}

#[tokio::test(start_paused = true)]
async fn reconcilers_that_failed_together_do_not_retry_together() {
    let benches: Vec<Bench> = (0..20).map(|_| bench(Fake::default())).collect();
    let mut waits = BTreeSet::new();
    for mut bench in benches {
        bench.outside().refuse.insert(1);
        let begun = Instant::now();
        bench.commit([Pair(1, 1)]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        waits.insert(bench.outside().updates[1].0 - begun);
    }
    assert!(waits.len() > 1, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_failing_row_is_tried_at_once_and_replaces_it() {
    let mut bench = bench(Fake::default());
    bench.outside().refuse.insert(1);
    bench.commit([Pair(1, 1)]).await;
    bench.outside().refuse.clear();
    let revision = bench.commit([Pair(1, 7)]).await;
    bench.status.reached(revision).now_or_never().expect("applied without waiting for the retry");
    assert_eq!(bench.outside().held, BTreeMap::from([(1, 7)]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.outside().updates.len(), 2, "the old attempt is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_failing_deletion_is_retried_until_it_succeeds_or_the_row_returns() {
    let mut bench = bench(Fake::default());
    bench.commit([Pair(1, 1), Pair(2, 2)]).await;
    bench.outside().refuse.extend([1, 2]);
    bench.writer.remove(&1);
    bench.writer.remove(&2);
    let revision = bench.commit([]).await;
    assert!(matches!(bench.status.get(&1).unwrap().state, State::Error { attempts: 1, .. }));
    bench.outside().refuse.remove(&1);
    bench.status.applied(&1, revision).await;
    assert_eq!(bench.outside().held, BTreeMap::from([(2, 2)]));
    bench.outside().refuse.clear();
    let revision = bench.commit([Pair(2, 3)]).await;
    bench.status.reached(revision).await;
    assert_eq!(bench.outside().held, BTreeMap::from([(2, 3)]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pruned_before_the_table_is_complete() {
    let fake = Fake::default();
    fake.0.lock().held.extend([(1, 1), (9, 9)]);
    let mut bench = bench(fake);
    bench.commit([Pair(1, 1)]).await;
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    assert!(bench.outside().prunes.is_empty());
    assert!(bench.outside().held.contains_key(&9));
    bench.writer.mark_initialized();
    bench.status.pruned().await;
    assert_eq!(bench.outside().held, BTreeMap::from([(1, 1)]));
    assert!(bench.status.summary().pruned && bench.status.summary().initialized);
}

#[tokio::test(start_paused = true)]
async fn each_full_sync_repairs_what_was_changed_from_outside() {
    let mut bench = bench(Fake::default());
    bench.writer.mark_initialized();
    bench.commit([Pair(1, 1), Pair(2, 2)]).await;
    bench.outside().held = BTreeMap::from([(1, 66), (7, 7)]);
    tokio::time::sleep(ReconcileConfig::default().full_sync).await;
    bench.settle().await;
    assert_eq!(bench.outside().held, BTreeMap::from([(1, 1), (2, 2)]));
    assert_eq!(bench.outside().prunes.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_prune_is_reported_and_retried() {
    let fake = Fake::default();
    fake.0.lock().refuse_prune = true;
    let mut bench = bench(fake);
    bench.writer.mark_initialized();
    let revision = bench.commit([Pair(1, 1)]).await;
    bench.status.reached(revision).await;
    let Summary { prune_error, pruned, counters, .. } = bench.status.summary();
    assert_eq!((prune_error.as_deref(), pruned, counters.errors), (Some("refused prune"), false, 1));
    bench.outside().refuse_prune = false;
    bench.status.pruned().await;
    assert_eq!(bench.status.summary().prune_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_chaotic_target_ends_equal_to_the_table() {
    let mut bench = bench(Fake::default());
    bench.writer.mark_initialized();
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(seed >> 60).unwrap()
    };
    for _ in 0..300 {
        let (key, value) = (random(), random());
        match value % 3 {
            0 => bench.writer.remove(&key),
            _ => bench.writer.insert(Pair(key, value)),
        }
        let refuse = (0..4).map(|_| random()).collect();
        bench.outside().refuse = refuse;
        bench.outside().refuse_prune = random() % 4 == 0;
        bench.commit([]).await;
    }
    bench.outside().refuse.clear();
    bench.outside().refuse_prune = false;
    let revision = bench.writer.commit();
    bench.status.reached(revision).await;
    bench.status.pruned().await;
    let desired: BTreeMap<u8, u8> = bench.writer.snapshot().iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(bench.outside().held, desired);
}

/// A target that takes everything at once, and refuses some keys.
#[derive(Clone, Default)]
struct Bulk(Arc<Mutex<(Outside, Vec<usize>)>>);

impl Target<Pair> for Bulk {
    type Error = Refused;

    async fn update(&mut self, row: &Pair) -> Result<(), Refused> {
        unreachable!("{row:?} comes with the others");
    }

    async fn delete(&mut self, key: &u8) -> Result<(), Refused> {
        unreachable!("{key} comes with the others");
    }

    async fn apply(&mut self, operations: &[Operation<Pair>]) -> Vec<(u8, Refused)> {
        let (outside, sizes) = &mut *self.0.lock();
        sizes.push(operations.len());
        let mut failures = Vec::new();
        for operation in operations {
            match operation {
                _ if outside.refuse.contains(&operation.key()) => failures.push((operation.key(), Refused("bulk"))),
                Operation::Update(row) => drop(outside.held.insert(row.0, row.1)),
                Operation::Delete(key) => drop(outside.held.remove(key)),
            }
        }
        failures
    }

    async fn prune(&mut self, desired: &Snapshot<Pair>) -> Result<(), Refused> {
        self.0.lock().0.held.retain(|key, _| desired.get(key).is_some());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_may_take_many_changes_in_one_call_and_fail_for_some_of_them() {
    let (mut writer, reader) = table("pairs");
    let (tasks, bulk) = (Tasks::new(CancellationToken::new()), Bulk::default());
    bulk.0.lock().0.refuse = [3, 4].into();
    let status = reconcile(&tasks, "pairs", reader, bulk.clone());
    writer.replace((0..10).map(|n| Pair(n, n)));
    let revision = writer.commit();
    status.applied(&9, revision).await;
    assert_eq!(bulk.0.lock().1, [10]);
    let failing: Vec<_> = status.failing().into_iter().map(|(key, status)| (key, status.state)).collect();
    let refused = State::Error { message: "refused bulk".into(), attempts: 1 };
    assert_eq!(failing, [(3, refused.clone()), (4, refused)]);
    assert_eq!(status.summary().counters.updates, 8);

    bulk.0.lock().0.refuse = [4].into();
    let failed_at = Instant::now();
    status.applied(&3, revision).await;
    assert!(
        failed_at.elapsed() < ReconcileConfig::default().retry_max,
        "errors are temporary unless the target knows better"
    );
    assert_eq!(bulk.0.lock().1, [10, 2]);
    writer.remove(&4);
    writer.insert(Pair(5, 0));
    bulk.0.lock().0.refuse.clear();
    let revision = writer.commit();
    status.reached(revision).await;
    assert_eq!(bulk.0.lock().1, [10, 2, 2]);
    assert_eq!(bulk.0.lock().0.held, writer.snapshot().iter().map(|row| (row.0, row.1)).collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn targets_of_single_rows_and_of_batches_end_equal_to_the_table(
        commits in proptest::collection::vec(proptest::collection::vec((0..8_u8, proptest::option::of(0..4_u8), any::<bool>()), 0..6), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (one_by_one, bulk, naive) = runtime.block_on(async {
            let (mut writer, reader) = table("pairs");
            let (tasks, single, bulk) = (Tasks::new(CancellationToken::new()), Fake::default(), Bulk::default());
            let statuses = [
                reconcile(&tasks, "single", reader.clone(), single.clone()),
                reconcile(&tasks, "bulk", reader, bulk.clone()),
            ];
            let mut naive = BTreeMap::new();
            for changes in commits {
                for (key, value, refused) in changes {
                    match value {
                        Some(value) => {
                            writer.insert(Pair(key, value));
                            naive.insert(key, value);
                        }
                        None => {
                            writer.remove(&key);
                            naive.remove(&key);
                        }
                    }
                    for refuse in [&mut single.0.lock().refuse, &mut bulk.0.lock().0.refuse] {
                        if refused { refuse.insert(key) } else { refuse.remove(&key) };
                    }
                }
                writer.commit();
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            single.0.lock().refuse.clear();
            bulk.0.lock().0.refuse.clear();
            let revision = writer.commit();
            for status in &statuses {
                status.reached(revision).await;
            }
            let held = (single.0.lock().held.clone(), bulk.0.lock().0.held.clone());
            (held.0, held.1, naive)
        });
        prop_assert_eq!(one_by_one, naive.clone());
        prop_assert_eq!(bulk, naive);
    }
}
