// SPDX-License-Identifier: Apache-2.0
//! The loop against a network that exists in these tests only, with a clock that jumps to the next event.

use super::*;
use crate::fixture::{ip, node};
use crate::probe::Answer;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rest::Connectivity;
use statedb::Writer;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::timeout;

/// A network in which some addresses do not answer.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    silent: BTreeSet<IpAddr>,
    /// How long it takes to give up one of those.
    patience: Duration,
    probes: BTreeMap<IpAddr, u32>,
    now: usize,
    most: usize,
}

impl Fake {
    fn silence(&self, address: &str, silent: bool) {
        let mut world = self.0.lock();
        if silent {
            world.silent.insert(ip(address))
        } else {
            world.silent.remove(&ip(address))
        };
    }

    fn probes(&self, address: &str) -> u32 {
        self.0.lock().probes.get(&ip(address)).copied().unwrap_or_default()
    }
}

impl Probe for Fake {
    async fn icmp(&self, address: IpAddr) -> Answer {
        let takes = {
            let mut world = self.0.lock();
            *world.probes.entry(address).or_default() += 1;
            world.now += 1;
            world.most = world.most.max(world.now);
            let gives_up = Some(world.patience).filter(|_| world.silent.contains(&address));
            gives_up.unwrap_or_default().max(Duration::from_millis(10))
        };
        tokio::time::sleep(takes).await;
        let mut world = self.0.lock();
        world.now -= 1;
        if world.silent.contains(&address) { Err("timed out".to_owned()) } else { Ok(Duration::from_micros(300)) }
    }

    async fn http(&self, _: IpAddr) -> Answer {
        Ok(Duration::from_millis(1))
    }
}

struct Bench {
    network: Fake,
    nodes: Writer<Node>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<HealthStatusResponse>>,
    metrics: Metrics,
}

impl Bench {
    fn start() -> Self {
        let (nodes, reader) = statedb::table("nodes");
        let (requests, receiver) = mpsc::channel(1);
        let (sender, status) = watch::channel(Arc::default());
        let (network, metrics) = (Fake::default(), Metrics::default());
        let channels = Channels { nodes: reader, requests: receiver, status: sender, metrics: metrics.clone() };
        tokio::spawn(run(Mesh::new("n1".to_owned(), true), network.clone(), channels));
        Self { network, nodes, requests, status, metrics }
    }

    fn add(&mut self, name: &str, address: &str) {
        self.nodes.insert(node(name, &[address], &[]));
    }

    /// Waits for a report of that kind.
    async fn until(&mut self, wanted: impl Fn(&HealthStatusResponse) -> bool) -> Arc<HealthStatusResponse> {
        let report = timeout(Duration::from_secs(3600), self.status.wait_for(|report| wanted(report))).await;
        Arc::clone(&report.unwrap().unwrap())
    }
}

fn all_are(report: &HealthStatusResponse, wanted: Connectivity) -> bool {
    report.nodes.iter().all(|node| node.host_paths().all(|path| path.connectivity() == wanted))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_probed_before_all_nodes_are_known_and_then_all_are() {
    let mut bench = Bench::start();
    bench.add("n1", "10.0.0.1");
    bench.nodes.commit();
    bench.until(|report| report.nodes.len() == 1).await;
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(bench.network.probes("10.0.0.1"), 0);
    bench.add("n2", "10.0.0.2");
    bench.nodes.mark_initialized();
    let report = bench.until(|report| report.nodes.len() == 2).await;
    assert!(all_are(&report, Connectivity::Unknown), "nodes show before they are probed");
    let report = bench.until(|report| all_are(report, Connectivity::Reachable)).await;
    assert_eq!((report.healthy(), report.local.as_ref().unwrap().name.as_str()), (2, "n1"));
    let icmp = report.nodes[0].host_paths().next().unwrap().icmp.clone().unwrap();
    assert_eq!(icmp.latency, 300_000);
    assert!(!icmp.last_probed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_to_answer_is_found_and_found_again() {
    let mut bench = Bench::start();
    bench.add("n2", "10.0.0.2");
    bench.nodes.mark_initialized();
    bench.until(|report| !report.nodes.is_empty() && all_are(report, Connectivity::Reachable)).await;
    bench.network.silence("10.0.0.2", true);
    let report = bench.until(|report| report.healthy() == 0).await;
    assert_eq!(report.nodes[0].host_paths().next().unwrap().icmp.as_ref().unwrap().status, "timed out");
    bench.network.silence("10.0.0.2", false);
    bench.until(|report| report.healthy() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_come_and_go_without_a_round_for_the_others() {
    let mut bench = Bench::start();
    bench.add("n2", "10.0.0.2");
    bench.nodes.mark_initialized();
    bench.until(|report| !report.nodes.is_empty() && all_are(report, Connectivity::Reachable)).await;
    let before = bench.network.probes("10.0.0.2");
    bench.add("n3", "10.0.0.3");
    bench.nodes.commit();
    bench.until(|report| report.nodes.len() == 2 && all_are(report, Connectivity::Reachable)).await;
    assert_eq!(bench.network.probes("10.0.0.2"), before);
    bench.nodes.remove(&node("n3", &[], &[]).key());
    bench.nodes.commit();
    bench.until(|report| report.nodes.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_probes_gets_results_that_are_newer_than_the_question() {
    let mut bench = Bench::start();
    for i in 1..=40 {
        bench.add(&format!("n{i}"), &format!("10.0.0.{i}"));
    }
    bench.nodes.mark_initialized();
    bench.until(|report| report.nodes.len() == 40 && all_are(report, Connectivity::Reachable)).await;
    bench.network.silence("10.0.0.7", true);
    let (request, answer) = oneshot::channel();
    bench.requests.send(request).await.unwrap();
    let report = timeout(Duration::from_secs(2), answer).await.unwrap().unwrap();
    assert_eq!(report.healthy(), 39);
    // Also in a crowd, only some are probed at the same time.
    assert!(bench.network.0.lock().most <= AT_ONCE);
    let mut registry = Registry::default();
    bench.metrics.register(&mut registry);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    assert!(page.contains("unreachable_nodes 1\n"), "{page}");
    assert!(page.contains("latency_seconds_count{type=\"node\",address_type=\"primary\",protocol=\"http\"}"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_question_in_a_cluster_without_nodes_is_answered() {
    let bench = Bench::start();
    let (request, answer) = oneshot::channel();
    bench.requests.send(request).await.unwrap();
    assert_eq!(answer.await.unwrap().nodes.len(), 0);
}

/// A node of many, and its address and its endpoint's.
fn one_of_many(number: u16) -> (Node, [IpAddr; 2]) {
    let [high, low] = number.to_be_bytes();
    let addresses = ["10.1", "10.2"].map(|net| format!("{net}.{high}.{low}"));
    let node = node(&format!("n{number}"), &[&addresses[0]], &[&addresses[1]]);
    (node, addresses.map(|text| ip(&text)))
}

#[tokio::test(start_paused = true)]
async fn a_round_of_the_largest_cluster_ends_within_the_interval_even_if_nobody_answers() {
    const NODES: u16 = 5_000;
    let mut bench = Bench::start();
    let interval = crate::mesh::interval(2 * usize::from(NODES));
    bench.network.0.lock().patience = Duration::from_secs(5);
    for number in 0..NODES {
        let (node, addresses) = one_of_many(number);
        bench.nodes.insert(node);
        bench.network.0.lock().silent.extend(addresses);
    }
    let begun = Instant::now();
    bench.nodes.mark_initialized();
    let all = usize::from(NODES);
    let known = |report: &HealthStatusResponse, what| report.nodes.len() == all && all_are(report, what);
    bench.until(|report| known(report, Connectivity::Unreachable)).await;
    assert!(begun.elapsed() <= interval, "{:?} of {interval:?}", begun.elapsed());
    // Neither sockets nor probes grow with what does not answer.
    let (most, probes) = {
        let world = bench.network.0.lock();
        (world.most, world.probes.values().sum::<u32>())
    };
    assert!(most <= 2 * AT_ONCE, "{most} at once");
    assert!(probes <= 2 * 8 * u32::from(NODES), "{probes} probes");

    bench.network.0.lock().silent.clear();
    let mended = Instant::now();
    bench.until(|report| known(report, Connectivity::Reachable)).await;
    assert!(mended.elapsed() <= interval + REPORTS, "{:?} of {interval:?}", mended.elapsed());
}
