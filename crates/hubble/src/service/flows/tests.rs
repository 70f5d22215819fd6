// SPDX-License-Identifier: Apache-2.0
//! What clients that go, or do not read, cost.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod disk;

use super::{Batch, Query, Workers, subscribe};
use crate::Config;
use crate::filter::Filters;
use crate::fixture;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

fn all() -> Query {
    Query { follow: false, ..Query::live(Filters::default(), None) }
}

#[tokio::test]
async fn who_goes_before_its_turn_is_not_worked_for() {
    let store = Arc::new(Store::new(&Config::default(), "n1", fixture::tables().tables));
    store.push(&fixture::allowed_syn());
    let workers = Workers::default();
    // Others are being served.
    let _others = workers.0.acquire_many(2).await.unwrap();
    let waiting = subscribe(Arc::clone(&store), all(), Duration::from_secs(1), workers.clone());
    drop(waiting);
    let gone = timeout(DEADLINE, async {
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("it still waits for its turn");
}

#[tokio::test]
async fn nobody_keeps_a_turn_by_not_reading() {
    let config = Config { capacity: crate::Capacity(1023), capacity_size: 32, ..Config::default() };
    let store = Arc::new(Store::new(&config, "n1", fixture::tables().tables));
    (0..500).for_each(|_| store.push(&fixture::allowed_syn()));
    let workers = Workers::default();
    let silent: Vec<_> =
        (0..20).map(|_| subscribe(Arc::clone(&store), all(), Duration::from_secs(1), workers.clone())).collect();
    let mut reading = subscribe(Arc::clone(&store), all(), Duration::from_secs(1), workers);
    let mut flows = 0;
    while let Some(batch) = timeout(DEADLINE, reading.recv()).await.expect("nobody has a turn for it") {
        assert!(batch.len() <= 66, "{} responses at once", batch.len());
        flows += batch.len();
    }
    assert_eq!(flows, 1500);
    drop(silent);
}

/// What responses are: flows, and events that were lost.
fn counted(batch: &Batch, flows: &mut u64, lost: &mut u64) {
    for response in batch {
        match &response.response_types {
            Some(ResponseTypes::Flow(_)) => *flows += 1,
            Some(ResponseTypes::LostEvents(events)) => *lost += events.num_events_lost,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_hundred_followers_of_whom_half_do_not_read_are_each_told_of_every_event_or_of_its_loss() {
    const EVENTS: u64 = 4000;
    /// Flows of [`fixture::allowed_syn`].
    const FLOWS: u64 = 3;
    let config = Config { capacity: crate::Capacity(255), capacity_size: 32, ..Config::default() };
    let store = Arc::new(Store::new(&config, "n1", fixture::tables().tables));
    let workers = Workers::default();
    let follow = || Query::live(Filters::default(), None);
    let mut followers: Vec<_> =
        (0..100).map(|_| subscribe(Arc::clone(&store), follow(), Duration::from_millis(1), workers.clone())).collect();
    // The test has one thread: by then all stand where the ring is now.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let mut counts = vec![(0, 0); followers.len()];
    for _ in 0..EVENTS {
        store.push(&fixture::allowed_syn());
        for (follower, (flows, lost)) in followers.iter_mut().zip(&mut counts).skip(50) {
            while let Ok(batch) = follower.try_recv() {
                counted(&batch, flows, lost);
            }
        }
        tokio::task::yield_now().await;
    }
    for (number, (follower, (flows, lost))) in followers.iter_mut().zip(&mut counts).enumerate() {
        while *flows + *lost * FLOWS < EVENTS * FLOWS {
            let batch = timeout(DEADLINE, follower.recv()).await;
            counted(
                &batch.unwrap_or_else(|_| panic!("follower {number} is left with {flows} and {lost}")).unwrap(),
                flows,
                lost,
            );
        }
        assert_eq!(*flows + *lost * FLOWS, EVENTS * FLOWS, "follower {number}");
        assert!(number >= 50 || *lost > EVENTS / 2, "one that did not read held the ring: {lost}");
    }
}

#[tokio::test]
async fn a_batch_of_large_flows_is_short() {
    let mut writers = fixture::tables();
    let labels = BTreeMap::from([("zone".to_owned(), "a".repeat(200_000))]);
    writers.nodes.insert(model::Node { labels, ..fixture::node("n1", "192.168.0.1", true) });
    writers.nodes.commit();
    let store = Arc::new(Store::new(
        &Config { capacity: crate::Capacity(63), capacity_size: 32, cluster: "blue".to_owned(), ..Config::default() },
        "n1",
        writers.tables.clone(),
    ));
    (0..20).for_each(|_| store.push(&fixture::denied_syn()));
    let mut reading = subscribe(store, all(), Duration::from_secs(1), Workers::default());
    let mut flows = 0;
    while let Some(batch) = timeout(DEADLINE, reading.recv()).await.unwrap() {
        assert!(batch.len() <= 4, "{} large responses at once", batch.len());
        flows += batch.len();
    }
    assert_eq!(flows, 40);
}
