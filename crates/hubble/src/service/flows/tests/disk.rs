// SPDX-License-Identifier: Apache-2.0
//! Readers whom the ring overtakes while what they want is on its way to the disk, and when what is lost is told.

use super::{DEADLINE, all, counted};
use crate::config::{Capacity, Config};
use crate::filter::Filters;
use crate::fixture;
use crate::history::ByHand;
use crate::service::flows::{Batch, Query, Workers, subscribe};
use crate::store::Store;
use abi::event::Event;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

/// Flows of an [`event`].
const FLOWS: u64 = 3;
/// Shorter than anybody waits for the disk.
const SOON: Duration = Duration::from_secs(1);

/// Seven events in the ring, and a disk that is written to when the test says so.
struct Node {
    store: Arc<Store>,
    disk: ByHand,
    workers: Workers,
    _dir: tempfile::TempDir,
}

fn start() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { capacity: Capacity(7), history_path: Some(dir.path().to_owned()), ..Config::default() };
    let store = Arc::new(Store::new(&config, "n1", fixture::tables().tables));
    Node { disk: ByHand::new(&store), store, workers: Workers::default(), _dir: dir }
}

/// One that is not too old for the disk.
fn event() -> Event {
    Event { time: fixture::monotonic(), ..fixture::allowed_syn() }
}

impl Node {
    /// Events that are taken for the disk as they come.
    fn push(&mut self, count: u64) {
        for _ in 0..count {
            self.store.push(&event());
            self.disk.take();
        }
    }

    /// A reader that gets its turn when so many more events have come.
    async fn overtaken_by(&mut self, count: u64, query: Query) -> Receiver<Batch> {
        let others = Arc::clone(&self.workers.0).acquire_many_owned(2).await.unwrap();
        let reading = subscribe(Arc::clone(&self.store), query, SOON, self.workers.clone());
        // The test has one thread: by then the reader stands where the ring is now.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.push(count);
        drop(others);
        reading
    }
}

fn past() -> Query {
    Query { since: Some(0), ..all() }
}

/// Flows, and events that are said to be lost, until the end.
async fn rest(mut reading: Receiver<Batch>) -> (u64, u64) {
    let (mut flows, mut lost) = (0, 0);
    while let Some(batch) = timeout(DEADLINE, reading.recv()).await.expect("it does not end") {
        counted(&batch, &mut flows, &mut lost);
    }
    (flows, lost)
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_waits_for_the_disk_and_gets_what_there_was_when_it_asked() {
    let mut node = start();
    node.push(5);
    let mut reading = node.overtaken_by(20, past()).await;
    timeout(SOON, reading.recv()).await.expect_err("it did not wait for the disk");
    node.disk.write();
    assert_eq!(rest(reading).await, (5 * FLOWS, 0));
    // The disk has it already.
    let reading = node.overtaken_by(20, past()).await;
    assert_eq!(rest(reading).await, (25 * FLOWS, 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_get_to_the_disk_in_time_is_lost_and_counted_once() {
    let mut node = start();
    node.push(5);
    let mut reading = node.overtaken_by(20, past()).await;
    timeout(SOON, reading.recv()).await.expect_err("it did not wait for the disk");
    assert_eq!(rest(reading).await, (0, 5));
    // One that follows misses what has come since, too.
    let mut node = start();
    node.push(5);
    let mut reading = node.overtaken_by(20, Query { follow: true, ..past() }).await;
    let (mut flows, mut lost) = (0, 0);
    while flows < 7 * FLOWS {
        counted(&timeout(DEADLINE, reading.recv()).await.unwrap().unwrap(), &mut flows, &mut lost);
    }
    assert_eq!((flows, lost), (7 * FLOWS, 18));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_what_the_ring_cannot_keep_meanwhile_and_that_is_counted_once() {
    let mut node = start();
    node.push(5);
    node.disk.write();
    node.push(4);
    node.disk.fail();
    // The ring has them still.
    assert_eq!(rest(subscribe(Arc::clone(&node.store), past(), SOON, node.workers.clone())).await, (9 * FLOWS, 0));
    (0..16).for_each(|_| node.store.push(&event()));
    node.disk.take();
    node.disk.write();
    assert_eq!(rest(subscribe(Arc::clone(&node.store), past(), SOON, node.workers.clone())).await, (12 * FLOWS, 13));
    node.push(20);
    node.disk.write();
    assert_eq!(rest(subscribe(Arc::clone(&node.store), past(), SOON, node.workers.clone())).await, (32 * FLOWS, 13));
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_was_not_told_at_once_is_told_when_it_is_due_though_nothing_else_comes() {
    const INTERVAL: Duration = Duration::from_secs(60);
    let config = Config { capacity: Capacity(7), ..Config::default() };
    let store = Arc::new(Store::new(&config, "n1", fixture::tables().tables));
    store.push(&fixture::allowed_syn());
    let query = Query { first: true, ..Query::live(Filters::default(), None) };
    let mut following = subscribe(Arc::clone(&store), query, INTERVAL, Workers::default());
    let (mut flows, mut lost) = (0, 0);
    let mut told = async |until: u64| {
        while flows < until {
            counted(&timeout(DEADLINE, following.recv()).await.unwrap().unwrap(), &mut flows, &mut lost);
        }
        lost
    };
    assert_eq!(told(FLOWS).await, 0);
    let began = Instant::now();
    // The reader has no turn between these: the test does not wait.
    (0..20).for_each(|_| store.push(&fixture::allowed_syn()));
    assert_eq!(told(8 * FLOWS).await, 13);
    (0..20).for_each(|_| store.push(&fixture::allowed_syn()));
    assert_eq!(told(15 * FLOWS).await, 13, "told too often");
    let report = timeout(2 * INTERVAL, following.recv()).await.expect("nothing was told").unwrap();
    counted(&report, &mut flows, &mut lost);
    assert_eq!((report.len(), flows, lost), (1, 15 * FLOWS, 26));
    assert!(began.elapsed() >= INTERVAL, "told too early");
}

#[tokio::test(start_paused = true)]
async fn what_the_ring_has_lost_before_the_disk_has_anything_is_waited_for() {
    let mut node = start();
    node.push(25);
    let mut reading = subscribe(Arc::clone(&node.store), past(), SOON, node.workers.clone());
    timeout(SOON, reading.recv()).await.expect_err("it did not wait for the disk");
    node.disk.write();
    assert_eq!(rest(reading).await, (25 * FLOWS, 0));
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_the_last_so_many_waits_for_the_disk_and_not_for_ever() {
    let mut node = start();
    node.push(25);
    let query = || Query { number: 20 * FLOWS, ..all() };
    let mut reading = subscribe(Arc::clone(&node.store), query(), SOON, node.workers.clone());
    timeout(SOON, reading.recv()).await.expect_err("it did not wait for the disk");
    // Which has nothing in time.
    assert_eq!(rest(reading).await.0, 7 * FLOWS);
    let reading = subscribe(Arc::clone(&node.store), query(), SOON, node.workers.clone());
    tokio::task::yield_now().await;
    node.disk.write();
    assert_eq!(rest(reading).await, (20 * FLOWS, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_noted_on_disk_as_lost_is_not_counted_again_by_who_is_overtaken() {
    let mut node = start();
    node.push(5);
    node.disk.write();
    node.push(4);
    node.disk.fail();
    let others = Arc::clone(&node.workers.0).acquire_many_owned(2).await.unwrap();
    let reading = subscribe(Arc::clone(&node.store), past(), SOON, node.workers.clone());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    (0..16).for_each(|_| node.store.push(&event()));
    node.disk.take();
    node.disk.write();
    drop(others);
    assert_eq!(rest(reading).await, (5 * FLOWS, 13));
}

#[tokio::test(start_paused = true)]
async fn one_that_follows_is_told_what_it_misses_of_what_came_after_it_asked() {
    let mut node = start();
    node.push(5);
    let mut reading = subscribe(Arc::clone(&node.store), Query { follow: true, ..past() }, SOON, node.workers.clone());
    let (mut flows, mut lost) = (0, 0);
    let mut read = async |until: u64| {
        while flows < until {
            counted(&timeout(DEADLINE, reading.recv()).await.unwrap().unwrap(), &mut flows, &mut lost);
        }
        lost
    };
    assert_eq!(read(5 * FLOWS).await, 0);
    // The reader has no turn between these: the test does not wait.
    node.push(20);
    node.disk.write();
    assert_eq!(read(12 * FLOWS).await, 13);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_after_the_clock_was_set_back_is_found_by_its_time() {
    const HOUR: u64 = 3_600_000_000_000;
    let store = Arc::new(Store::new(&Config::default(), "n1", fixture::tables().tables));
    let now = fixture::monotonic();
    for time in [now, now + HOUR, now] {
        store.push(&Event { time, ..fixture::allowed_syn() });
    }
    let until = Some(crate::store::now() + i64::try_from(HOUR / 2).unwrap());
    let reading = subscribe(store, Query { until, ..all() }, SOON, Workers::default());
    assert_eq!(rest(reading).await, (2 * FLOWS, 0));
}
