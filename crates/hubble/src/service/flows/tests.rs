// SPDX-License-Identifier: Apache-2.0
//! What clients that go, or do not read, cost.

use super::{Query, Workers, subscribe};
use crate::Config;
use crate::filter::Filters;
use crate::fixture;
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
