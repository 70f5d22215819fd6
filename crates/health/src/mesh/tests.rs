// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::fixture::{ip, node};
use rest::ConnectivityStatus;
use std::sync::Arc;

fn mesh() -> Mesh {
    Mesh::new("n1".to_owned(), true)
}

fn upsert(node: Node) -> Change<Node> {
    Change::Upsert(Arc::new(node))
}

fn delete(node: Node) -> Change<Node> {
    Change::Delete(Arc::new(node))
}

/// What a probe of these addresses finds: nothing wrong, or this.
fn results(job: &Job, why: &str) -> Vec<(IpAddr, PathStatus)> {
    let probe = Some(ConnectivityStatus { status: why.to_owned(), ..ConnectivityStatus::default() });
    let path = |ip: &IpAddr| PathStatus { ip: ip.to_string(), icmp: probe.clone(), http: probe.clone() };
    job.addresses.iter().map(|ip| (*ip, path(ip))).collect()
}

/// Probes all whose time has come, with this result, and returns their names.
fn round(mesh: &mut Mesh, now: Instant, why: &str) -> Vec<String> {
    let jobs: Vec<Job> = std::iter::from_fn(|| mesh.start(now)).collect();
    jobs.iter().for_each(|job| mesh.finish(job, results(job, why), now));
    jobs.into_iter().map(|job| job.node.name).collect()
}

#[test]
fn the_interval_grows_with_the_logarithm_of_the_number_of_addresses() {
    assert_eq!(duration_text(interval(0)), "0s");
    // Two and three nodes with a health endpoint each, as known from clusters in use.
    assert_eq!(duration_text(interval(4)), "1m36.566274746s");
    assert_eq!(duration_text(interval(6)), "1m56.754608943s");
    assert!(interval(10_000) < Duration::from_secs(600));
}

#[test]
fn the_first_round_is_at_once_and_the_next_ones_are_spread_over_the_interval() {
    let (mut mesh, start) = (mesh(), Instant::now());
    let names: Vec<String> = (0..200).map(|i| format!("node-{i:03}")).collect();
    for (i, name) in names.iter().enumerate() {
        let address = format!("10.0.0.{i}");
        assert!(mesh.apply(&upsert(node(name, &[&address], &[])), true, start));
    }
    assert_eq!(round(&mut mesh, start, ""), names);
    let interval = mesh.interval();
    // In each quarter of an interval about a quarter of the nodes, in each interval all.
    for period in 0..3 {
        let mut all = BTreeSet::new();
        for quarter in 1..=4 {
            let now = start + interval * period + interval * quarter / 4;
            let mut probed = Vec::new();
            while mesh.next().is_some_and(|when| when <= now) {
                let when = mesh.next().unwrap();
                probed.extend(round(&mut mesh, when, ""));
            }
            assert!((25..=75).contains(&probed.len()), "{} in quarter {quarter} of interval {period}", probed.len());
            all.extend(probed);
        }
        assert_eq!(all.len(), names.len());
    }
}

#[test]
fn a_new_node_and_one_with_other_addresses_are_probed_within_a_second() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let soon = now + NEWS;
    assert!(mesh.apply(&upsert(node("n2", &["10.0.0.2"], &[])), false, now));
    assert_eq!(round(&mut mesh, soon, ""), ["n2"]);
    assert!(mesh.next().unwrap() > soon);
    let with_endpoint = node("n2", &["10.0.0.2"], &["10.1.0.2"]);
    assert!(mesh.apply(&upsert(with_endpoint.clone()), false, soon));
    let report = mesh.report(String::new());
    assert_eq!(report.nodes[0].host_paths().next().unwrap().connectivity(), Connectivity::Reachable);
    assert_eq!(report.nodes[0].endpoint_paths().next().unwrap().connectivity(), Connectivity::Unknown);
    let job = mesh.start(soon + NEWS).unwrap();
    assert_eq!(job.addresses, [ip("10.0.0.2"), ip("10.1.0.2")]);
    // What is not probed does not matter.
    let labelled = Node { labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]), ..with_endpoint };
    assert!(!mesh.apply(&upsert(labelled), false, soon));
}

#[test]
fn a_node_without_answer_is_asked_again_at_growing_distances() {
    let (mut mesh, mut now) = (mesh(), Instant::now());
    mesh.apply(&upsert(node("n2", &["10.0.0.2"], &[])), true, now);
    let interval = mesh.interval();
    for pause in [5, 10, 20, 40].map(Duration::from_secs).into_iter().chain([interval; 2]) {
        assert_eq!(round(&mut mesh, now, "timed out"), ["n2"]);
        assert_eq!(mesh.next(), Some(now + pause));
        now += pause;
    }
    assert!(!mesh.report(String::new()).nodes[0].is_healthy());
    round(&mut mesh, now, "");
    assert!(mesh.report(String::new()).nodes[0].is_healthy());
}

#[test]
fn a_node_that_goes_takes_its_results_and_those_still_to_come_with_it() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let row = node("n2", &["10.0.0.2"], &["10.1.0.2"]);
    mesh.apply(&upsert(row.clone()), true, now);
    let job = mesh.start(now).unwrap();
    assert!(mesh.apply(&delete(row.clone()), false, now));
    mesh.finish(&job, results(&job, ""), now);
    assert_eq!((mesh.report(String::new()).nodes.len(), mesh.next(), mesh.interval()), (0, None, Duration::ZERO));
    // It comes again while the old probe runs: that one says nothing of it.
    mesh.apply(&upsert(row), true, now);
    let fresh = mesh.start(now).unwrap();
    mesh.finish(&job, results(&job, "timed out"), now);
    assert_eq!(mesh.report(String::new()).nodes[0].host_paths().next().unwrap().icmp, None);
    mesh.finish(&fresh, results(&fresh, ""), now);
    assert!(mesh.report(String::new()).nodes[0].is_healthy());
}

#[test]
fn a_result_for_an_address_that_the_node_has_no_more_is_dropped() {
    let (mut mesh, now) = (mesh(), Instant::now());
    mesh.apply(&upsert(node("n2", &["10.0.0.2"], &[])), true, now);
    let job = mesh.start(now).unwrap();
    mesh.apply(&upsert(node("n2", &["10.0.0.3"], &[])), false, now);
    mesh.finish(&job, results(&job, ""), now);
    let report = mesh.report(String::new());
    let path = report.nodes[0].host_paths().next().unwrap();
    assert_eq!((path.ip.as_str(), path.connectivity()), ("10.0.0.3", Connectivity::Unknown));
    // And the new one is probed without delay.
    assert_eq!(mesh.start(now).unwrap().addresses, [ip("10.0.0.3")]);
}

#[test]
fn a_demand_is_met_when_every_node_was_probed_after_it_or_is_gone() {
    let (mut mesh, now) = (mesh(), Instant::now());
    for name in ["n1", "n2", "n3"] {
        mesh.apply(&upsert(node(name, &["10.0.0.1"], &[])), true, now);
    }
    let early = mesh.start(now).unwrap();
    let mut demand = mesh.demand(now);
    mesh.finish(&early, results(&early, ""), now);
    demand.ended(&early);
    demand.gone(&node("n3", &[], &[]).key());
    let jobs: Vec<Job> = std::iter::from_fn(|| mesh.start(now)).collect();
    assert_eq!(jobs.iter().map(|job| job.node.name.as_str()).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    for job in &jobs {
        assert!(!demand.is_met());
        demand.ended(job);
        if job.node.name == "n2" {
            break;
        }
    }
    assert!(demand.is_met());
}

#[test]
fn the_report_names_this_node_and_each_address_in_its_place() {
    let (mut mesh, now) = (mesh(), Instant::now());
    let mut local = node("n1", &["fd00::1", "10.0.0.1"], &["10.1.0.1", "fd01::1"]);
    local.cluster = "blue".to_owned();
    mesh.apply(&upsert(local), true, now);
    mesh.apply(&upsert(node("n2", &[], &[])), true, now);
    let report = mesh.report("now".to_owned());
    assert_eq!((report.timestamp.as_str(), report.local.unwrap().name.as_str()), ("now", "blue/n1"));
    let [first, second] = report.nodes.as_slice() else { panic!("two nodes") };
    let ips = |paths: Vec<&PathStatus>| paths.into_iter().map(|path| path.ip.clone()).collect::<Vec<_>>();
    assert_eq!(ips(first.host_paths().collect()), ["10.0.0.1", "fd00::1"]);
    assert_eq!(ips(first.endpoint_paths().collect()), ["10.1.0.1", "fd01::1"]);
    assert_eq!(first.endpoint.as_ref().unwrap().ip, "10.1.0.1");
    assert_eq!((second.host.as_ref(), second.health_endpoint.as_ref()), (None, None));
}
