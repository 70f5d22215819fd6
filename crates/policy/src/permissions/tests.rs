// SPDX-License-Identifier: Apache-2.0

use super::judge::Judge;
use super::*;
use crate::resolve::{Enforcement, Families};
use crate::rules::Context;
use model::{EndpointId, IdentityId, Label, NamedPort, PodName, Protocol, Server, reserved};
use proptest::prelude::*;
use serde_json::json;
use statedb::{Change, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const WEB: IdentityId = IdentityId(300);
const DESK: IdentityId = IdentityId(301);
const CART: IdentityId = IdentityId(302);

/// A server and whether it may be reached.
type Judged = (IdentityId, u16, bool);

struct Bench {
    judge: Judge,
    pods: Writer<RemoteEndpoint>,
    rows: BTreeMap<IdentityId, Permission>,
    /// As the table of routes has them.
    routes: BTreeMap<&'static str, BTreeSet<Server>>,
    clients: BTreeMap<u16, IdentityId>,
}

impl Bench {
    /// Without anything.
    fn empty() -> Self {
        let (pods, rows) = statedb::table("pods");
        let engine = Engine::new(Enforcement::Default, Families { ipv4: true, ipv6: true }, [], PolicyId(0));
        let judge = Judge::new(engine, rows.index(|pod: &RemoteEndpoint| [pod.identity]));
        Self { judge, pods, rows: BTreeMap::new(), routes: BTreeMap::new(), clients: BTreeMap::new() }
    }

    /// With three identities, of which two have pods here, as have one that nobody knows and the proxy.
    fn new() -> Self {
        let mut bench = Self::empty();
        for (id, app) in [(WEB, "web"), (DESK, "desk"), (CART, "cart")] {
            bench.identity(id, app);
        }
        for (number, id) in [WEB, DESK, reserved::INGRESS, IdentityId(999)].into_iter().enumerate() {
            bench.client(u16::try_from(number).unwrap(), Some(id));
        }
        bench
    }

    fn identity(&mut self, id: IdentityId, app: &str) {
        let labels = [Label::k8s("app", app), Label::k8s(crate::labels::NAMESPACE, "shop")];
        let row = Identity { id, labels: labels.into_iter().collect() };
        self.judge.identity(Change::Upsert(Arc::new(row)));
    }

    fn no_identity(&mut self, id: IdentityId) {
        self.judge.identity(Change::Delete(Arc::new(Identity { id, labels: model::Labels::default() })));
    }

    fn pod(&mut self, name: &str, identity: IdentityId, http: u16) {
        let named_ports = vec![NamedPort { name: "http".to_owned(), port: http, protocol: Protocol::Tcp }];
        let pod = RemoteEndpoint {
            cluster: "default".into(),
            pod: PodName::new("shop", name),
            ipv4: None,
            ipv6: None,
            identity,
            host: None,
            named_ports,
        };
        self.pods.insert(pod.clone());
        self.pods.commit();
        self.judge.pod(Change::Upsert(Arc::new(pod)));
    }

    fn no_pod(&mut self, name: &str) {
        let pods = self.pods.snapshot();
        let Some(pod) = pods.iter().find(|pod| &*pod.pod.name == name).cloned() else { return };
        self.pods.remove(&pod.key());
        self.pods.commit();
        self.judge.pod(Change::Delete(pod));
    }

    fn policy(&mut self, name: &str, spec: serde_json::Value) {
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        let policy = crate::ingest_network_policy(&Context::default(), &serde_json::from_value(object).unwrap());
        self.judge.policy(Change::Upsert(Arc::new(policy.unwrap())));
    }

    fn no_policy(&mut self, name: &str) {
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"podSelector": {}}});
        let policy = crate::ingest_network_policy(&Context::default(), &serde_json::from_value(object).unwrap());
        self.judge.policy(Change::Delete(Arc::new(policy.unwrap())));
    }

    /// A pod of this node has an identity, or there is none under that number.
    fn client(&mut self, number: u16, identity: Option<IdentityId>) {
        let row = |identity| EndpointPolicy {
            endpoint: EndpointId(number),
            identity,
            policy: PolicyId(1),
            ingress_enforced: false,
            egress_enforced: false,
            revision: 1,
        };
        match identity {
            Some(identity) => {
                self.clients.insert(number, identity);
                self.judge.client(&Change::Upsert(Arc::new(row(identity))));
            }
            None => {
                if let Some(before) = self.clients.remove(&number) {
                    self.judge.client(&Change::Delete(Arc::new(row(before))));
                }
            }
        }
    }

    fn route(&mut self, route: &'static str, servers: &[Server]) {
        let servers: BTreeSet<_> = servers.iter().copied().collect();
        self.routes.insert(route, servers.clone());
        self.judge.route(&Change::Upsert(Arc::new(Proxied { route: route.into(), servers })));
    }

    fn no_route(&mut self, route: &'static str) {
        if let Some(servers) = self.routes.remove(route) {
            self.judge.route(&Change::Delete(Arc::new(Proxied { route: route.into(), servers })));
        }
    }

    fn settle(&mut self) {
        for (client, row) in self.judge.settle() {
            match row {
                Some(row) => self.rows.insert(client, row),
                None => self.rows.remove(&client),
            };
        }
    }

    /// What each client may reach of the servers that policy can judge.
    fn judged(&mut self, servers: &[Server]) -> Vec<(IdentityId, Vec<Judged>)> {
        self.route("r", servers);
        self.settle();
        let rows = self.rows.values().map(|row| {
            let servers = row.servers.iter().map(|((identity, port), allowed)| (*identity, *port, *allowed));
            (row.client, servers.collect())
        });
        rows.collect()
    }

    /// How many pairs are judged after a change.
    fn cost(&mut self, change: impl FnOnce(&mut Self)) -> usize {
        self.settle();
        self.judge.judged = 0;
        change(self);
        self.settle();
        self.judge.judged
    }
}

fn ingress_from(app: &str, port: serde_json::Value) -> serde_json::Value {
    policy_of("cart", app, port)
}

/// A policy by which one app lets in another.
fn policy_of(app: &str, from: &str, port: serde_json::Value) -> serde_json::Value {
    json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}], "ports": [{"port": port}]}]})
}

fn no_egress(app: &str) -> serde_json::Value {
    json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Egress"], "egress": []})
}

#[test]
fn a_server_is_reached_if_both_ends_would_let_a_connection_through() {
    let mut bench = Bench::new();
    bench.pod("cart-1", CART, 8080);
    let asked = [(CART, 8080), (CART, 9090)];
    let all = |allowed: [bool; 2]| vec![(CART, 8080, allowed[0]), (CART, 9090, allowed[1])];
    assert_eq!(bench.judged(&asked), [(WEB, all([true; 2])), (DESK, all([true; 2]))]);
    bench.policy("cart", ingress_from("web", json!(8080)));
    assert_eq!(bench.judged(&asked), [(WEB, all([true, false])), (DESK, all([false; 2]))]);
    bench.policy("web", no_egress("web"));
    assert_eq!(bench.judged(&asked), [(WEB, all([false; 2])), (DESK, all([false; 2]))]);
}

#[test]
fn of_pods_that_share_an_identity_all_have_to_let_a_client_in() {
    let mut bench = Bench::new();
    bench.policy("cart", ingress_from("web", json!("http")));
    bench.pod("cart-1", CART, 8080);
    assert_eq!(bench.judged(&[(CART, 8080)])[0].1, [(CART, 8080, true)]);
    bench.pod("cart-2", CART, 9090);
    assert_eq!(bench.judged(&[(CART, 8080)])[0].1, [(CART, 8080, false)]);
    // What is compiled is what is asked for: a client each, and two kinds of servers.
    assert_eq!(bench.judge.compiled.len(), 4);
    bench.judged(&[]);
    assert_eq!(bench.judge.compiled.len(), 2);
}

#[test]
fn nothing_is_said_of_who_is_not_known_and_nodes_let_everybody_in() {
    let mut bench = Bench::new();
    bench.policy("cart", ingress_from("desk", json!(8080)));
    // An identity without pods, one without labels, and nodes.
    let asked = [(CART, 8080), (IdentityId(400), 8080), (reserved::REMOTE_NODE, 8080)];
    assert_eq!(bench.judged(&asked)[0], (WEB, vec![(reserved::REMOTE_NODE, 8080, true)]));
    bench.pod("cart-1", CART, 8080);
    bench.pod("who", IdentityId(400), 8080);
    assert_eq!(bench.judged(&asked)[0].1, [(reserved::REMOTE_NODE, 8080, true), (CART, 8080, false)]);
}

#[test]
fn nobody_is_judged_without_a_route() {
    let mut bench = Bench::new();
    bench.settle();
    assert!(bench.rows.is_empty() && bench.judge.compiled.len() == 0);
    bench.route("r", &[]);
    bench.settle();
    assert_eq!(bench.rows.keys().copied().collect::<Vec<_>>(), [WEB, DESK]);
    bench.no_route("r");
    bench.settle();
    assert!(bench.rows.is_empty() && bench.judge.compiled.len() == 0);
}

#[test]
fn an_identity_that_is_removed_while_it_is_used_is_known_until_it_is_not() {
    let mut bench = Bench::new();
    bench.pod("cart-1", CART, 8080);
    bench.route("r", &[(CART, 8080)]);
    bench.settle();
    bench.no_identity(WEB);
    bench.settle();
    assert!(bench.rows.contains_key(&WEB), "it is made again, with its pods in between");
    bench.client(0, None);
    bench.settle();
    bench.client(0, Some(WEB));
    bench.settle();
    assert!(!bench.rows.contains_key(&WEB), "nobody knows its labels");
    bench.identity(WEB, "web");
    bench.settle();
    assert_eq!(bench.rows[&WEB].servers, [((CART, 8080), true)].into());
}

/// A hundred clients and a hundred servers, each with a policy of its own that lets one client in.
fn large() -> Bench {
    let mut bench = Bench::empty();
    let servers: Vec<_> = (0..100).map(|n| (IdentityId(1000 + n), 80)).collect();
    for n in 0..100_u16 {
        let (client, server) = (IdentityId(300 + u32::from(n)), IdentityId(1000 + u32::from(n)));
        bench.identity(client, &format!("client-{n}"));
        bench.client(n, Some(client));
        bench.identity(server, &format!("server-{n}"));
        bench.pod(&format!("server-{n}"), server, 80);
        bench.policy(&format!("p-{n}"), policy_of(&format!("server-{n}"), &format!("client-{n}"), json!(80)));
    }
    bench.route("r", &servers);
    bench
}

#[test]
fn a_change_costs_the_pairs_on_which_it_bears() {
    let mut bench = large();
    bench.settle();
    assert_eq!(bench.judge.judged, 10_000, "all of them once");
    assert_eq!(bench.rows[&IdentityId(307)].servers.iter().filter(|(_, allowed)| **allowed).count(), 1);
    // What nobody asks for, and what changes nothing.
    assert_eq!(bench.cost(|bench| bench.identity(IdentityId(5000), "other")), 0);
    assert_eq!(bench.cost(|bench| bench.pod("other", IdentityId(5000), 80)), 0);
    assert_eq!(bench.cost(|bench| bench.pod("server-7-again", IdentityId(1007), 80)), 0);
    assert_eq!(bench.cost(|bench| bench.client(900, Some(IdentityId(307)))), 0);
    let same = policy_of("server-7", "client-7", json!(80));
    assert_eq!(bench.cost(|bench| bench.policy("p-7", same)), 0);
    assert_eq!(bench.cost(|bench| bench.policy("other", policy_of("other", "client-7", json!(80)))), 0);
    // One client more that one server lets in.
    assert_eq!(bench.cost(|bench| bench.policy("q", policy_of("server-7", "client-8", json!(80)))), 1);
    assert!(bench.rows[&IdentityId(308)].servers[&(IdentityId(1007), 80)]);
    // A client that becomes another one, for the servers that let in either.
    assert_eq!(bench.cost(|bench| bench.identity(IdentityId(309), "client-10")), 2);
    // A new client, a new server, another port: a row, a column, a column.
    bench.identity(IdentityId(500), "client-500");
    assert_eq!(bench.cost(|bench| bench.client(901, Some(IdentityId(500)))), 100);
    bench.identity(IdentityId(2000), "server-2000");
    bench.pod("server-2000", IdentityId(2000), 80);
    assert_eq!(bench.cost(|bench| bench.route("s", &[(IdentityId(2000), 80)])), 101);
    assert_eq!(bench.cost(|bench| bench.route("t", &[(IdentityId(2000), 81)])), 202);
    // What only ends costs no verdict.
    assert_eq!(bench.cost(|bench| bench.client(901, None)), 0);
    assert!(!bench.rows.contains_key(&IdentityId(500)));
}

#[derive(Clone, Debug)]
enum Step {
    Identity(u32, usize),
    Pod(usize, u32, u16),
    NoPod(usize),
    Policy(usize, usize, usize, bool),
    NoPolicy(usize),
    Client(u16, Option<u32>),
    Route(usize, Vec<(u32, u16)>),
    NoRoute(usize),
    Settle,
}

const APPS: [&str; 3] = ["web", "desk", "cart"];
const PODS: [&str; 3] = ["a", "b", "c"];
const ROUTES: [&str; 2] = ["r", "s"];

fn step() -> impl Strategy<Value = Step> {
    let id = || 300..304_u32;
    let port = || prop::sample::select(vec![80, 81_u16]);
    prop_oneof![
        (id(), 0..3_usize).prop_map(|(id, app)| Step::Identity(id, app)),
        (0..3_usize, id(), port()).prop_map(|(pod, id, port)| Step::Pod(pod, id, port)),
        (0..3_usize).prop_map(Step::NoPod),
        (0..3_usize, 0..3_usize, 0..3_usize, any::<bool>())
            .prop_map(|(name, of, from, egress)| Step::Policy(name, of, from, egress)),
        (0..3_usize).prop_map(Step::NoPolicy),
        (0..3_u16, prop::option::of(id())).prop_map(|(number, id)| Step::Client(number, id)),
        (0..2_usize, prop::collection::vec((prop_oneof![id(), Just(reserved::REMOTE_NODE.0)], port()), 0..4))
            .prop_map(|(route, servers)| Step::Route(route, servers)),
        (0..2_usize).prop_map(Step::NoRoute),
        Just(Step::Settle),
    ]
}

impl Bench {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Identity(id, app) => self.identity(IdentityId(*id), APPS[*app]),
            Step::Pod(pod, id, port) => self.pod(PODS[*pod], IdentityId(*id), *port),
            Step::NoPod(pod) => self.no_pod(PODS[*pod]),
            Step::Policy(name, of, _, true) => self.policy(PODS[*name], no_egress(APPS[*of])),
            Step::Policy(name, of, from, false) => {
                self.policy(PODS[*name], policy_of(APPS[*of], APPS[*from], json!("http")))
            }
            Step::NoPolicy(name) => self.no_policy(PODS[*name]),
            Step::Client(number, id) => self.client(*number, id.map(IdentityId)),
            Step::Route(route, servers) => {
                let servers: Vec<_> = servers.iter().map(|(id, port)| (IdentityId(*id), *port)).collect();
                self.route(ROUTES[*route], &servers);
            }
            Step::NoRoute(route) => self.no_route(ROUTES[*route]),
            Step::Settle => self.settle(),
        }
    }
}

proptest! {
    /// Whatever is heard in whichever portions, the rows are those of a judge that hears all of it at once.
    #[test]
    fn the_rows_do_not_depend_on_what_was_settled_in_between(steps in prop::collection::vec(step(), 1..60)) {
        let (mut often, mut once) = (Bench::empty(), Bench::empty());
        for step in &steps {
            often.apply(step);
            if !matches!(step, Step::Settle) {
                once.apply(step);
            }
        }
        often.settle();
        once.settle();
        prop_assert_eq!(&often.rows, &once.rows);
        prop_assert_eq!(often.judge.compiled.len(), once.judge.compiled.len());
    }
}
