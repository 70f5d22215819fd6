// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::resolve::{Enforcement, Families};
use crate::rules::Context;
use model::{Label, NamedPort, PodName, Protocol, reserved};
use serde_json::json;
use std::sync::Arc;

const WEB: IdentityId = IdentityId(300);
const DESK: IdentityId = IdentityId(301);
const CART: IdentityId = IdentityId(302);

/// A server and whether it may be reached.
type Judged = (IdentityId, u16, bool);

struct Bench {
    judge: Judge,
    pods: Writer<RemoteEndpoint>,
}

impl Bench {
    fn new() -> Self {
        let (pods, rows) = statedb::table("pods");
        let engine = Engine::new(Enforcement::Default, Families { ipv4: true, ipv6: true }, [], PolicyId(0));
        let by_identity = rows.index(|pod: &RemoteEndpoint| [pod.identity]);
        let mut bench = Self { judge: Judge { engine, compiled: BTreeMap::new(), by_identity }, pods };
        for (id, app) in [(WEB, "web"), (DESK, "desk"), (CART, "cart")] {
            bench.identity(id, app);
        }
        bench
    }

    fn identity(&mut self, id: IdentityId, app: &str) {
        let labels = [Label::k8s("app", app), Label::k8s(crate::labels::NAMESPACE, "shop")];
        let row = Identity { id, labels: labels.into_iter().collect() };
        self.judge.identity(Change::Upsert(Arc::new(row)));
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

    fn policy(&mut self, name: &str, spec: serde_json::Value) {
        let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
        let policy = crate::ingest_network_policy(&Context::default(), &serde_json::from_value(object).unwrap());
        self.judge.policy(Change::Upsert(Arc::new(policy.unwrap())));
    }

    /// What each client may reach of the servers that policy can judge.
    fn judged(&mut self, servers: &[Server]) -> Vec<(IdentityId, Vec<Judged>)> {
        let clients = [WEB, DESK, reserved::INGRESS, IdentityId(999)].into();
        let permissions = self.judge.permissions(&clients, &servers.iter().copied().collect());
        let rows = permissions.into_iter().map(|row| {
            let servers = row.servers.into_iter().map(|((identity, port), allowed)| (identity, port, allowed));
            (row.client, servers.collect())
        });
        rows.collect()
    }
}

fn ingress_from(app: &str, port: serde_json::Value) -> serde_json::Value {
    json!({"podSelector": {"matchLabels": {"app": "cart"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": port}]}]})
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
    bench.policy(
        "web",
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": []}),
    );
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
