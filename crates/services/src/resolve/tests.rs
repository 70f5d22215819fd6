// SPDX-License-Identifier: Apache-2.0
//! Tests of resolution, from source rows to frontends: the rules by example, and that increments add up to the whole.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::type_complexity, reason = "what a test generates is a tuple of plain values")]

use super::*;
use crate::ingest::{EndpointSlice, Port, Redirect, Service, ServicePort, SliceEndpoint, SliceName};
use crate::intercepts::Intercept;
use crate::reconcile::Numbers;
use crate::{Config, Inputs, Rows, rows};
use datapath::{Epochs, Kernel, fake};
use futures::FutureExt;
use k8s::kube::core::Selector;
use model::{
    Backend, BackendId, BackendState, HostPort, L4Addr, NodeName, Pod, PodName, Protocol, ServiceName, TrafficPolicy,
};
use proptest::prelude::*;
use statedb::{Change, Changes, Row, Writer};
use std::collections::{BTreeMap, BTreeSet};

mod claims;
mod kinds;

pub(crate) fn service_row(name: &str, ips: &[&str], ports: &[(&str, Protocol, u16)]) -> Service {
    let port = |(name, protocol, port): &(&str, Protocol, u16)| ServicePort {
        name: (!name.is_empty()).then(|| (*name).into()),
        protocol: *protocol,
        port: *port,
        node_port: None,
    };
    Service {
        name: service_name(name),
        uid: "".into(),
        created: 0,
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_ips: vec![],
        load_balancer_ips: vec![],
        ports: ports.iter().map(port).collect(),
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: None,
        health_check_node_port: None,
        algorithm: None,
        forwarding: None,
        only: None,
        nodes: Selector::default(),
        problems: vec![],
        said: crate::HonouredCondition::default(),
    }
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::new("default", name)
}

fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port { name: (!name.is_empty()).then(|| name.into()), protocol, port }
}

fn slice_row(
    name: &str,
    service: &str,
    ports: &[(&str, Protocol, u16)],
    endpoints: Vec<SliceEndpoint>,
) -> EndpointSlice {
    EndpointSlice {
        name: SliceName { namespace: "default".into(), name: name.into() },
        service: service_name(service),
        ports: ports.iter().map(|p| port(p.0, p.1, p.2)).collect(),
        endpoints,
        problems: vec![],
    }
}

fn endpoint(ip: &str, ready: bool, serving: bool, terminating: bool) -> SliceEndpoint {
    SliceEndpoint {
        ip: ip.parse().unwrap(),
        node: Some("n1".into()),
        zone: None,
        for_zones: vec![],
        for_nodes: vec![],
        ready,
        serving,
        terminating,
    }
}

fn up<R: Row>(row: R) -> Change<R> {
    Change::Upsert(Arc::new(row))
}

/// Source tables, and the frontends that follow from them.
struct Bench {
    runtime: tokio::runtime::Runtime,
    services: Writer<Service>,
    slices: Writer<EndpointSlice>,
    redirects: Writer<Redirect>,
    intercepts: Writer<Intercept>,
    pods: Writer<Pod>,
    nodes: Writer<Node>,
    addresses: Writer<NodeAddress>,
    derived: Rows,
    changes: Changes<Frontend>,
}

/// What has changed since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Delta {
    upserts: Vec<Frontend>,
    deletes: Vec<FrontendKey>,
}

impl Bench {
    /// The agent of node n1.
    fn new(config: &Config, numbers: Numbers) -> Self {
        let (services, service_rows) = statedb::table("services");
        let (slices, slice_rows) = statedb::table("slices");
        let (redirects, redirect_rows) = statedb::table("redirects");
        let (intercepts, intercept_rows) = statedb::table("intercepts");
        let (pods, pod_rows) = statedb::table("pods");
        let (nodes, node_rows) = statedb::table("nodes");
        let (addresses, address_rows) = statedb::table("addresses");
        let kernel: Arc<dyn Kernel> = Arc::new(fake::Kernel::new());
        let inputs = Inputs {
            services: service_rows,
            slices: slice_rows,
            redirects: redirect_rows,
            intercepts: intercept_rows,
            pods: pod_rows,
            node: node_name("n1"),
            nodes: node_rows,
            addresses: address_rows,
            own_node: statedb::table("own-node").1,
            before_stack: tokio::sync::watch::channel(Default::default()).1,
            epochs: Epochs::open(&kernel).unwrap(),
            maps: kernel,
            hooks: Arc::new(fake::Hooks::default()),
            sockets: Arc::new(fake::Sockets::default()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let derived = runtime.block_on(async {
            let tasks = Tasks::new(Default::default());
            rows(config, &inputs, numbers, &tasks)
        });
        let changes = derived.frontends.rows.subscribe();
        Self { runtime, services, slices, redirects, intercepts, pods, nodes, addresses, derived, changes }
    }

    fn service(&mut self, change: &Change<Service>) {
        match change {
            Change::Upsert(row) => self.services.insert(Service::clone(row)),
            Change::Delete(row) => self.services.remove(&row.name),
        }
    }

    fn slice(&mut self, change: &Change<EndpointSlice>) {
        match change {
            Change::Upsert(row) => self.slices.insert(EndpointSlice::clone(row)),
            Change::Delete(row) => self.slices.remove(&row.name),
        }
    }

    fn resolve(&mut self) -> Delta {
        self.services.mark_initialized();
        self.slices.mark_initialized();
        self.redirects.mark_initialized();
        self.intercepts.mark_initialized();
        self.pods.mark_initialized();
        self.nodes.mark_initialized();
        self.addresses.mark_initialized();
        self.runtime.block_on(async {
            self.derived.served.caught_up().await;
            self.derived.host_ports.caught_up().await;
            self.derived.redirects.caught_up().await;
            self.derived.intercepts.caught_up().await;
            self.derived.frontends.caught_up().await;
        });
        let mut delta = Delta::default();
        for change in self.changes.next().now_or_never().into_iter().flat_map(|batch| batch.changes) {
            match change {
                Change::Upsert(row) => delta.upserts.push(Frontend::clone(&row)),
                Change::Delete(row) => delta.deletes.push(row.key),
            }
        }
        delta
    }

    fn rows(&self) -> BTreeMap<FrontendKey, Frontend> {
        self.derived.frontends.rows.snapshot().iter().map(|row| (row.key, Frontend::clone(row))).collect()
    }
}

fn resolver() -> Bench {
    Bench::new(&proxy(), Numbers { services: vec![], backends: vec![] })
}

/// Without kube-proxy.
fn proxy() -> Config {
    Config { kube_proxy_replacement: true, ..Config::default() }
}

fn node_name(name: &str) -> NodeName {
    NodeName { cluster: "default".to_owned(), name: name.to_owned() }
}

/// Each frontend as `address: backends`, one without new connections in parentheses.
fn lines(bench: &Bench) -> Vec<String> {
    let line = |f: &Frontend| {
        let takers: Vec<_> = f.takers().map(|b| b.id).collect();
        let backend = |b: &Backend| if takers.contains(&b.id) { b.addr.to_string() } else { format!("({})", b.addr) };
        let backends: Vec<_> = f.backends.iter().map(backend).collect();
        format!("{}: {}", f.key, backends.join(" "))
    };
    bench.rows().values().map(line).collect()
}

const HTTP: [(&str, Protocol, u16); 1] = [("http", Protocol::Tcp, 80)];
const TARGET: [(&str, Protocol, u16); 1] = [("http", Protocol::Tcp, 8080)];

fn web(endpoints: Vec<SliceEndpoint>) -> Vec<String> {
    let mut r = resolver();
    r.service(&up(service_row("web", &["10.96.0.1"], &HTTP)));
    r.slice(&up(slice_row("web-1", "web", &TARGET, endpoints)));
    r.resolve();
    lines(&r)
}

#[test]
fn each_family_gets_its_own_backends_at_the_port_of_the_slice() {
    let mut r = resolver();
    r.service(&up(service_row(
        "web",
        &["10.96.0.1", "fd00::1"],
        &[("a", Protocol::Tcp, 80), ("b", Protocol::Udp, 80)],
    )));
    let ports = [("a", Protocol::Tcp, 8080), ("b", Protocol::Udp, 5353)];
    r.slice(&up(slice_row("v4", "web", &ports, vec![endpoint("10.0.0.1", true, true, false)])));
    r.slice(&up(slice_row("v6", "web", &ports[..1], vec![endpoint("fd01::1", true, true, false)])));
    r.resolve();
    assert_eq!(
        lines(&r),
        [
            "10.96.0.1:80/TCP: 10.0.0.1:8080/TCP",
            "10.96.0.1:80/UDP: 10.0.0.1:5353/UDP",
            "[fd00::1]:80/TCP: [fd01::1]:8080/TCP",
            "[fd00::1]:80/UDP: ",
        ]
    );
}

#[test]
fn of_a_service_with_many_ports_and_many_endpoints_not_each_is_looked_at_at_each() {
    let slice = |n: u8| {
        let endpoints = (0..=255).map(|m| endpoint(&format!("10.0.{n}.{m}"), true, true, false)).collect();
        Arc::new(slice_row(&format!("web-{n:03}"), "web", &TARGET, endpoints))
    };
    let slices: Vec<_> = (0..20).map(slice).collect();
    let [port] = &*service_row("web", &["10.96.0.1"], &HTTP).ports else { unreachable!() };
    let seen = |backends| crate::endpoints::candidates(port, true, &slices, backends).len();
    assert_eq!([seen(1), seen(32), seen(1280), seen(usize::MAX)], [4, 128, 5120, 5120]);
}

#[test]
fn a_terminating_endpoint_keeps_its_connections_but_gets_no_new_ones_while_another_is_ready() {
    let endpoints = vec![endpoint("10.0.0.1", true, true, false), endpoint("10.0.0.2", false, true, true)];
    assert_eq!(web(endpoints), ["10.96.0.1:80/TCP: 10.0.0.1:8080/TCP (10.0.0.2:8080/TCP)"]);
}

#[test]
fn terminating_endpoints_that_serve_take_over_when_none_is_ready() {
    let endpoints = vec![
        endpoint("10.0.0.1", false, false, false),
        endpoint("10.0.0.2", false, true, true),
        endpoint("10.0.0.3", false, false, true),
    ];
    assert_eq!(web(endpoints), ["10.96.0.1:80/TCP: 10.0.0.2:8080/TCP (10.0.0.3:8080/TCP)"]);
}

#[test]
fn an_endpoint_that_is_not_ready_is_no_backend_even_if_it_serves() {
    assert_eq!(web(vec![endpoint("10.0.0.1", false, true, false)]), ["10.96.0.1:80/TCP: "]);
}

#[test]
fn a_cluster_address_under_a_local_policy_has_the_backends_of_this_node_or_none() {
    let elsewhere = |ip| SliceEndpoint { node: Some("n2".into()), ..endpoint(ip, true, true, false) };
    let nowhere = |ip| SliceEndpoint { node: None, ..endpoint(ip, true, true, false) };
    let mut r = resolver();
    let local = Service { internal_policy: TrafficPolicy::Local, ..service_row("web", &["10.96.0.1"], &HTTP) };
    r.service(&up(local));
    let others = vec![elsewhere("10.0.0.2"), nowhere("10.0.0.3")];
    let all = [vec![endpoint("10.0.0.1", true, true, false)], others.clone()].concat();
    r.slice(&up(slice_row("web-1", "web", &TARGET, all)));
    r.resolve();
    assert_eq!(lines(&r), ["10.96.0.1:80/TCP: 10.0.0.1:8080/TCP"]);
    r.slice(&up(slice_row("web-1", "web", &TARGET, others)));
    r.resolve();
    assert_eq!(lines(&r), ["10.96.0.1:80/TCP: "]);
    assert!(r.rows().values().all(|row| row.local_only), "it is silent, since others have some");
    let ends = SliceEndpoint { node: Some("n2".into()), ..endpoint("10.0.0.2", false, false, true) };
    r.slice(&up(slice_row("web-1", "web", &TARGET, vec![ends])));
    r.resolve();
    assert!(r.rows().values().all(|row| !row.local_only), "it refuses, since nobody takes new connections");
    r.slice(&up(slice_row("web-1", "web", &TARGET, vec![])));
    r.resolve();
    assert!(r.rows().values().all(|row| !row.local_only), "it refuses, since nobody has");
}

#[test]
fn an_endpoint_in_two_slices_is_one_backend_and_ready_if_either_says_so() {
    let mut r = resolver();
    r.service(&up(service_row("web", &["10.96.0.1"], &HTTP)));
    r.slice(&up(slice_row("old", "web", &TARGET, vec![endpoint("10.0.0.1", false, true, true)])));
    r.slice(&up(slice_row("new", "web", &TARGET, vec![endpoint("10.0.0.1", true, true, false)])));
    r.resolve();
    assert_eq!(lines(&r), ["10.96.0.1:80/TCP: 10.0.0.1:8080/TCP"]);
    // It serves if either says so, and ends only if both do.
    let in_two = |first: SliceEndpoint, second: SliceEndpoint| {
        let mut r = resolver();
        r.service(&up(service_row("web", &["10.96.0.1"], &HTTP)));
        r.slice(&up(slice_row("a", "web", &TARGET, vec![first])));
        r.slice(&up(slice_row("b", "web", &TARGET, vec![second])));
        r.resolve();
        lines(&r).remove(0)
    };
    let ends = |serving| endpoint("10.0.0.1", false, serving, true);
    assert_eq!(in_two(ends(true), ends(false)), "10.96.0.1:80/TCP: 10.0.0.1:8080/TCP");
    assert_eq!(in_two(ends(false), ends(true)), "10.96.0.1:80/TCP: 10.0.0.1:8080/TCP");
    assert_eq!(in_two(ends(false), ends(false)), "10.96.0.1:80/TCP: (10.0.0.1:8080/TCP)");
    let stays = || endpoint("10.0.0.1", false, true, false);
    assert_eq!(in_two(ends(true), stays()), "10.96.0.1:80/TCP: ");
    assert_eq!(in_two(stays(), ends(true)), "10.96.0.1:80/TCP: ");
}

#[test]
fn a_port_finds_its_target_by_name_and_protocol() {
    let mut r = resolver();
    r.service(&up(service_row("dns", &["10.96.0.10"], &[("dns", Protocol::Udp, 53), ("dns-tcp", Protocol::Tcp, 53)])));
    let ports = [("dns-tcp", Protocol::Tcp, 1053), ("dns", Protocol::Udp, 1054), ("dns", Protocol::Tcp, 1)];
    r.slice(&up(slice_row("s", "dns", &ports, vec![endpoint("10.0.0.1", true, true, false)])));
    r.resolve();
    assert_eq!(lines(&r), ["10.96.0.10:53/TCP: 10.0.0.1:1053/TCP", "10.96.0.10:53/UDP: 10.0.0.1:1054/UDP"]);
}

#[test]
fn nothing_has_changed_when_a_change_does_not_concern_the_frontend() {
    let mut r = resolver();
    r.service(&up(service_row("web", &["10.96.0.1"], &HTTP)));
    assert_eq!(r.resolve().upserts.len(), 1);
    r.slice(&up(slice_row("x", "web", &[("other", Protocol::Tcp, 1)], vec![endpoint("10.0.0.1", true, true, false)])));
    assert_eq!(r.resolve(), Delta::default());
}

#[test]
fn an_address_that_two_services_claim_goes_to_the_other_when_the_first_leaves() {
    let mut r = resolver();
    let (a, b) = (service_row("a", &["10.96.0.1"], &HTTP), service_row("b", &["10.96.0.1"], &HTTP));
    r.service(&up(b));
    r.resolve();
    r.service(&up(a.clone()));
    let delta = r.resolve();
    assert_eq!((delta.upserts.len(), &delta.upserts[0].service), (1, &service_name("a")));
    r.service(&Change::Delete(Arc::new(a)));
    let delta = r.resolve();
    assert_eq!((delta.upserts[0].service.clone(), delta.deletes.len()), (service_name("b"), 0));
}

#[test]
fn numbers_of_the_last_process_are_used_again_and_backends_of_two_services_have_one() {
    let addr = |text: &str, port| L4Addr { ip: text.parse().unwrap(), port, protocol: Protocol::Tcp };
    let mut r = Bench::new(
        &proxy(),
        Numbers {
            services: vec![(FrontendKey::external(addr("10.96.0.1", 80)), 42)],
            backends: vec![(addr("10.0.0.1", 8080), 77)],
        },
    );
    r.service(&up(service_row("web", &["10.96.0.1"], &HTTP)));
    r.service(&up(service_row("copy", &["10.96.0.2"], &HTTP)));
    for service in ["web", "copy"] {
        let endpoints = vec![endpoint("10.0.0.1", true, true, false), endpoint("10.0.0.2", true, true, false)];
        r.slice(&up(slice_row(service, service, &TARGET, endpoints)));
    }
    r.resolve();
    let numbers: Vec<_> =
        r.rows().values().map(|f| (f.id, f.backends.iter().map(|b| b.id.0).collect::<Vec<_>>())).collect();
    assert_eq!(numbers, [(42, vec![77, 78]), (43, vec![77, 78])]);
}

#[derive(Clone, Debug)]
enum Event {
    Service(u8, Option<(Vec<u8>, Vec<u8>)>),
    Slice(u8, Option<(u8, Vec<u8>, Vec<(u8, bool, bool, bool)>)>),
    Resolve,
}

const PORTS: [(&str, Protocol, u16); 4] =
    [("a", Protocol::Tcp, 80), ("b", Protocol::Udp, 53), ("", Protocol::Tcp, 443), ("a", Protocol::Sctp, 9)];
const IPS: [&str; 4] = ["10.96.0.1", "10.96.0.2", "fd00::1", "fd00::2"];
const BACKENDS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "fd01::1", "fd01::2"];

fn event() -> impl Strategy<Value = Event> {
    let some = || prop::collection::vec(0..4u8, 0..3);
    let endpoints = prop::collection::vec((0..4u8, any::<bool>(), any::<bool>(), any::<bool>()), 0..4);
    prop_oneof![
        3 => (0..3u8, prop::option::weighted(0.8, (some(), some()))).prop_map(|(n, s)| Event::Service(n, s)),
        5 => (0..4u8, prop::option::weighted(0.8, (0..3u8, some(), endpoints))).prop_map(|(n, s)| Event::Slice(n, s)),
        2 => Just(Event::Resolve),
    ]
}

/// Feeds a resolver as the tables would: what is deleted was there.
#[derive(Default)]
struct World {
    services: BTreeMap<u8, Service>,
    slices: BTreeMap<u8, EndpointSlice>,
}

fn pick<T: Copy>(from: &[T], which: &[u8]) -> Vec<T> {
    let which: BTreeSet<_> = which.iter().collect();
    which.into_iter().map(|i| from[usize::from(*i)]).collect()
}

impl World {
    fn apply(&mut self, event: Event, r: &mut Bench) {
        match event {
            Event::Service(n, Some((ips, ports))) => {
                let row = service_row(&format!("s{n}"), &pick(&IPS, &ips), &pick(&PORTS, &ports));
                self.services.insert(n, row.clone());
                r.service(&up(row));
            }
            Event::Service(n, None) => {
                self.services.remove(&n).into_iter().for_each(|row| r.service(&Change::Delete(Arc::new(row))));
            }
            Event::Slice(n, Some((service, ports, endpoints))) => {
                let endpoints =
                    endpoints.into_iter().map(|(i, a, b, c)| endpoint(BACKENDS[usize::from(i)], a, b, c)).collect();
                let row = slice_row(&format!("e{n}"), &format!("s{service}"), &pick(&PORTS, &ports), endpoints);
                self.slices.insert(n, row.clone());
                r.slice(&up(row));
            }
            Event::Slice(n, None) => {
                self.slices.remove(&n).into_iter().for_each(|row| r.slice(&Change::Delete(Arc::new(row))));
            }
            Event::Resolve => drop(r.resolve()),
        }
    }
}

/// Without the numbers, which depend on history.
fn without_numbers(bench: &Bench) -> Vec<Frontend> {
    let mut rows: Vec<_> = bench.rows().into_values().collect();
    for row in &mut rows {
        row.id = 0;
        row.backends = row.backends.iter().map(|b| Backend { id: BackendId(0), ..b.clone() }).collect();
    }
    rows
}

proptest! {
    #[test]
    fn increments_add_up_to_what_resolving_from_scratch_gives(events in prop::collection::vec(event(), 0..40)) {
        let (mut world, mut r) = (World::default(), resolver());
        for event in events {
            world.apply(event, &mut r);
        }
        r.resolve();
        let mut scratch = resolver();
        world.services.values().for_each(|row| scratch.service(&up(row.clone())));
        world.slices.values().for_each(|row| scratch.slice(&up(row.clone())));
        scratch.resolve();
        prop_assert_eq!(without_numbers(&r), without_numbers(&scratch));
    }

    #[test]
    fn deltas_add_up_to_the_frontends_and_numbers_never_clash(events in prop::collection::vec(event(), 0..40)) {
        let (mut world, mut r) = (World::default(), resolver());
        let mut replayed: BTreeMap<FrontendKey, Frontend> = BTreeMap::new();
        for event in events {
            world.apply(event, &mut r);
            // `Event::Resolve` would throw its delta away, so every event is resolved here.
            let delta = r.resolve();
            delta.deletes.iter().for_each(|addr| drop(replayed.remove(addr)));
            for row in delta.upserts {
                if let Some(old) = replayed.insert(row.key, row.clone()) {
                    prop_assert_eq!(old.id, row.id, "a frontend that stays keeps its number");
                }
            }
            prop_assert_eq!(&replayed, &r.rows());
            let services: BTreeSet<_> = replayed.values().map(|f| f.id).collect();
            prop_assert_eq!(services.len(), replayed.len());
            let backends: BTreeSet<_> = replayed.values().flat_map(|f| f.backends.iter()).map(|b| (b.id.0, b.addr)).collect();
            let numbers: BTreeSet<_> = backends.iter().map(|(id, _)| id).collect();
            let addrs: BTreeSet<_> = backends.iter().map(|(_, addr)| addr).collect();
            prop_assert!(numbers.len() == backends.len() && addrs.len() == backends.len());
        }
    }
}
