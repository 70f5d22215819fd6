// SPDX-License-Identifier: Apache-2.0
//! Changes while it runs, and what a restart does.

use crate::support::{Agent, Counting, Store, Tables, eventually, start};
use abi::maps::{Endpoints, Ipcache4, Policies};
use datapath::fake;
use model::{EndpointId, IdentityId, reserved};
use policy::{Config, Policy};
use serde_json::{Value, json};
use statedb::Row as _;

pub fn config() -> Config {
    Config { ipv6: true, ..Config::default() }
}

pub fn cilium_policy(name: &str, spec: Value) -> Policy {
    let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
    policy::ingest_cilium_policy(&config().context(), &serde_json::from_value(object).unwrap()).unwrap()
}

pub fn two_pods() -> Tables {
    let mut tables = Tables::default();
    tables.add_pod(1, "shop/web", &[("app", "web")], vec![]);
    tables.add_pod(2, "shop/client", &[("app", "client")], vec![]);
    tables.commit();
    tables.mark_initialized();
    tables
}

pub fn from_client(port: &str) -> Value {
    json!({"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{
        "fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": [{"ports": [{"port": port, "protocol": "TCP"}]}]}]})
}

pub const OPEN: [&str; 2] = ["allow egress any all", "allow ingress any all"];
const CLIENT_80: [&str; 3] = [
    "allow egress any all",
    "allow ingress app=client,ns=shop TCP/80 by CiliumNetworkPolicy shop/web ingress[0]",
    "allow ingress reserved:host all",
];

/// What the `endpoint` feature does when it sees the rows.
pub fn attach(kernel: &fake::Kernel, agent: &Agent) {
    let map = kernel.map::<Endpoints>().unwrap();
    for row in agent.outputs.endpoint_policies.snapshot().iter() {
        let (identity, policy, id) = (row.identity.0, row.policy.0, row.endpoint.0);
        let entry = abi::endpoint::Endpoint { ifindex: u32::from(id), identity, policy, id, ..Default::default() };
        map.insert(&u32::from(id), &entry).unwrap();
    }
}

#[tokio::test]
async fn a_pod_is_told_of_its_policy_only_when_the_entries_are_in_the_kernel() {
    let kernel = fake::Kernel::new().with_capacity("cilium_policy", 2);
    let tables = two_pods();
    let agent = start(config(), kernel.clone(), Store::default(), &tables);
    // There is room for the two entries of one pod only.
    let one = eventually("one of the pods", || {
        let rows = agent.outputs.endpoint_policies.snapshot();
        assert!(rows.len() < 2);
        rows.iter().next().cloned()
    })
    .await;
    eventually("the failure", || agent.outputs.policy_status.failing().first().cloned()).await;
    let map = kernel.trie::<Policies>().unwrap();
    assert!(map.entries().unwrap().iter().all(|(key, _)| key.data.policy == one.policy.0));
    assert_eq!(agent.outputs.endpoint_policies.snapshot().len(), 1);
}

#[tokio::test]
async fn the_health_endpoint_has_its_reserved_identity_and_policies_select_it_by_that() {
    let mut tables = two_pods();
    tables.add_health_endpoint(9);
    let clusterwide = |name: &str, selector: Value| {
        let spec = json!({"endpointSelector": selector, "ingress": [{"fromEntities": ["remote-node"]}]});
        let object = json!({"metadata": {"name": name}, "spec": spec});
        policy::ingest_clusterwide_policy(&config().context(), &serde_json::from_value(object).unwrap())
    };
    tables.clusterwide_policies.insert(clusterwide("others", json!({"matchLabels": {"app": "web"}})).unwrap());
    tables.commit();
    let kernel = fake::Kernel::new();
    let agent = start(config(), kernel.clone(), Store::default(), &tables);
    agent.expect_lines(9, &OPEN).await;
    let row = agent.outputs.endpoint_policies.snapshot().get(&EndpointId(9)).unwrap();
    assert_eq!(row.identity, reserved::HEALTH);
    let prefix = "10.0.1.9/32".parse().unwrap();
    let entry = eventually("its address", || agent.ipcache.entries.snapshot().get(&prefix)).await;
    assert_eq!((entry.identity, entry.pod.clone()), (reserved::HEALTH, None));

    tables.clusterwide_policies.insert(clusterwide("health", json!({"matchLabels": {"reserved:health": ""}})).unwrap());
    tables.commit();
    agent.expect_lines(9, &[
        OPEN[0],
        "allow ingress reserved:host all",
        "allow ingress reserved:kube-apiserver,reserved:remote-node all by CiliumClusterwideNetworkPolicy health ingress[0]",
        "allow ingress reserved:remote-node all by CiliumClusterwideNetworkPolicy health ingress[0]",
    ]).await;
}

#[tokio::test]
async fn pods_of_the_proxy_are_known_as_ingress_and_those_that_only_look_like_them_are_not() {
    let mut tables = two_pods();
    let labels = [("k8s-app", "cilium-envoy")];
    tables.add_pod(8, "kube-system/cilium-envoy-a", &labels, vec![]);
    tables.add_pod(9, "elsewhere/cilium-envoy-a", &labels, vec![]);
    tables.commit();
    let agent = start(config(), fake::Kernel::new(), Store::default(), &tables);
    assert_eq!(agent.policy_of(8, |_| true).await.identity, reserved::INGRESS);
    assert_ne!(agent.policy_of(9, |_| true).await.identity, reserved::INGRESS);
}

#[tokio::test]
async fn a_policy_that_comes_and_goes_changes_entries_and_cuts_live_connections() {
    let mut tables = two_pods();
    let agent = start(config(), fake::Kernel::new(), Store::default(), &tables);
    agent.expect_lines(1, &OPEN).await;
    assert!(!agent.policy_of(1, |_| true).await.ingress_enforced);
    let epoch = agent.epochs.endpoint(1).unwrap();

    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    tables.commit();
    agent.expect_lines(1, &CLIENT_80).await;
    let row = agent.policy_of(1, |row| row.ingress_enforced).await;
    assert!(!row.egress_enforced && row.revision > 1);
    assert!(agent.epochs.endpoint(1).unwrap() > epoch, "what was allowed may not be any more");
    let (epoch, other) = (agent.epochs.endpoint(1).unwrap(), agent.epochs.endpoint(2).unwrap());

    tables.cilium_policies.remove(&cilium_policy("web", json!({"endpointSelector": {}, "ingress": []})).name);
    tables.commit();
    agent.expect_lines(1, &OPEN).await;
    agent.policy_of(1, |row| !row.ingress_enforced).await;
    assert!(agent.epochs.endpoint(1).unwrap() >= epoch);
    assert_eq!(agent.epochs.endpoint(2).unwrap(), other, "the other pod is not concerned");
}

#[tokio::test]
async fn of_a_policy_that_becomes_invalid_nothing_is_enforced_before_and_after_a_restart() {
    let (kernel, store, mut tables) = (fake::Kernel::new(), Store::default(), two_pods());
    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    tables.commit();
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    agent.expect_lines(1, &CLIENT_80).await;
    let mut spec = from_client("81");
    spec["egress"] = json!([{"toEntities": ["world"], "toCIDR": ["10.0.0.0/8"]}]);
    let invalid = cilium_policy("web", spec);
    let name = invalid.name.clone();
    tables.cilium_policies.insert(invalid);
    tables.commit();
    agent.expect_lines(1, &OPEN).await;
    let said = |agent: &Agent| {
        let row = agent.outputs.problems.snapshot().get(&name).unwrap();
        (row.valid, row.problems.iter().map(|problem| problem.field.clone()).collect::<Vec<_>>())
    };
    assert_eq!(said(&agent), (false, vec!["spec.egress[0]".to_owned()]));
    assert_eq!(agent.outputs.metrics.policies(), 0);
    agent.kill().await;
    let agent = start(config(), kernel, store, &tables);
    agent.expect_lines(1, &OPEN).await;
    assert_eq!(said(&agent), (false, vec!["spec.egress[0]".to_owned()]));
    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    tables.commit();
    agent.expect_lines(1, &CLIENT_80).await;
    assert!(agent.outputs.problems.snapshot().get(&name).is_none());
}

#[tokio::test]
async fn a_restart_makes_no_write_and_keeps_every_number() {
    let (kernel, store) = (Counting::default(), Store::default());
    let mut tables = two_pods();
    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    let cidr = json!({"endpointSelector": {}, "egress": [{"toCIDR": ["203.0.113.0/24", "198.51.100.7/32"]}]});
    tables.cilium_policies.insert(cilium_policy("out", cidr));
    tables.commit();
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    let wanted = agent.policy_of(1, |row| row.ingress_enforced && row.egress_enforced).await;
    agent.policy_of(2, |row| row.egress_enforced).await;
    agent.ipcache.status.pruned().await;
    attach(&kernel.inner, &agent);
    let ipcache =
        |agent: &Agent| agent.ipcache.entries.snapshot().iter().map(|row| format!("{row:?}")).collect::<Vec<_>>();
    let before = ipcache(&agent);
    agent.kill().await;
    tables
        .identities
        .replace(store.made.lock().iter().map(|(id, labels)| model::Identity { id: *id, labels: labels.clone() }));
    // The other policy comes first this time: the order in which things are seen is another one.
    tables.cilium_policies.remove(&cilium_policy("web", json!({"endpointSelector": {}, "ingress": []})).name);
    tables.commit();
    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    tables.commit();

    let writes = kernel.writes();
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    let row = agent.policy_of(1, |row| row.ingress_enforced && row.egress_enforced).await;
    agent.policy_of(2, |row| row.egress_enforced).await;
    agent.ipcache.status.pruned().await;
    agent.outputs.policy_status.pruned().await;
    assert_eq!(ipcache(&agent), before);
    assert_eq!((row.identity, row.policy), (wanted.identity, wanted.policy));
    assert_eq!(kernel.writes(), writes, "not one entry is written that is right");
}

#[tokio::test]
async fn a_pod_that_ended_while_nobody_looked_leaves_no_policy_once_the_programs_let_go_of_it() {
    let (kernel, store, mut tables) = (fake::Kernel::new(), Store::default(), two_pods());
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    let gone = agent.policy_of(2, |_| true).await;
    agent.policy_of(1, |_| true).await;
    attach(&kernel, &agent);
    agent.kill().await;
    tables.endpoints.remove(&EndpointId(2));
    tables.commit();

    let agent = start(config(), kernel.clone(), store, &tables);
    agent.policy_of(1, |_| true).await;
    agent.outputs.policy_status.pruned().await;
    let policies = kernel.trie::<Policies>().unwrap();
    let there = || policies.keys().unwrap().iter().any(|key| key.data.policy == gone.policy.0);
    assert!(there(), "the programs know a pod by it");
    kernel.map::<Endpoints>().unwrap().remove(&2).unwrap();
    eventually("the policy to go", || (!there()).then_some(())).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_known_labels_get_their_identity_and_others_wait() {
    let (store, mut tables) = (Store::default(), two_pods());
    *store.away.lock() = true;
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    eventually("both to wait", || (agent.outputs.metrics.endpoints_waiting() == 2).then_some(())).await;
    assert!(agent.outputs.endpoint_policies.snapshot().is_empty());

    *store.away.lock() = false;
    let first = agent.policy_of(1, |_| true).await;
    *store.away.lock() = true;
    tables.add_pod(3, "shop/web-2", &[("app", "web"), ("pod-template-hash", "x")], vec![]);
    tables.add_pod(4, "shop/new", &[("app", "new")], vec![]);
    tables.commit();
    let second = agent.policy_of(3, |_| true).await;
    assert_eq!((second.identity, second.policy), (first.identity, first.policy), "one identity, one policy");
    assert!(agent.outputs.endpoint_policies.snapshot().get(&EndpointId(4)).is_none());
}

#[tokio::test]
async fn an_identity_that_somebody_removes_is_made_again_with_its_number() {
    let (store, mut tables) = (Store::default(), two_pods());
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    let id = agent.policy_of(1, |_| true).await.identity;
    let labels = store.made.lock()[&id].clone();
    tables.identities.insert(model::Identity { id, labels });
    let marker = model::Identity { id: IdentityId(70_000), labels: model::Labels::default() };
    tables.identities.insert(marker.clone());
    tables.commit();
    eventually("it to be seen", || agent.outputs.identities.snapshot().get(&marker.id)).await;
    store.made.lock().remove(&id);
    tables.identities.remove(&id);
    tables.commit();
    eventually("the identity", || store.made.lock().contains_key(&id).then_some(())).await;
    assert_eq!(agent.policy_of(1, |_| true).await.identity, id);
}

#[tokio::test]
async fn a_pod_leaves_an_identity_whose_number_has_been_given_to_other_labels() {
    let (store, mut tables) = (Store::default(), two_pods());
    let agent = start(config(), fake::Kernel::new(), store.clone(), &tables);
    let id = agent.policy_of(1, |_| true).await.identity;
    // While no watch was open its object was deleted, and an agent elsewhere has drawn the number.
    let labels: model::Labels = [model::Label::k8s("app", "elsewhere")].into_iter().collect();
    store.made.lock().insert(id, labels.clone());
    tables.identities.insert(model::Identity { id, labels });
    tables.commit();
    agent.policy_of(1, |row| row.identity != id).await;
}

#[tokio::test]
async fn an_identity_that_is_removed_is_known_while_pods_elsewhere_have_it() {
    let (kernel, store, mut tables) = (fake::Kernel::new(), Store::default(), two_pods());
    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    tables.commit();
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    let client = agent.policy_of(2, |_| true).await.identity;
    let labels = store.made.lock()[&client].clone();
    let identity = model::Identity { id: IdentityId(if client.0 == 4711 { 4712 } else { 4711 }), labels };
    let pod = model::RemoteEndpoint {
        cluster: "default".into(),
        pod: model::PodName::new("shop", "client-elsewhere"),
        ipv4: Some("10.0.2.7".parse().unwrap()),
        ipv6: None,
        identity: identity.id,
        host: Some("192.168.77.12".parse().unwrap()),
        named_ports: vec![],
    };
    let policies = kernel.trie::<Policies>().unwrap();
    let allowed = || policies.keys().unwrap().iter().any(|key| key.data.identity == identity.id.0);
    let mut marker = 60_000;
    // Two rounds: what the first one saw is in the tables when the second one is seen.
    let mut settle = async |tables: &mut Tables| {
        for _ in 0..2 {
            marker += 1;
            tables.identities.insert(model::Identity { id: IdentityId(marker), labels: model::Labels::default() });
            tables.commit();
            eventually("it to be seen", || agent.outputs.identities.snapshot().get(&IdentityId(marker))).await;
        }
        agent.outputs.policy_status.reached(agent.outputs.compiled.snapshot().revision()).await;
    };
    let address = "10.0.2.7/32".parse().unwrap();
    let located = async |wanted: bool| {
        let is_there = || agent.ipcache.entries.snapshot().get(&address).is_some();
        eventually("its address", || (is_there() == wanted).then_some(())).await;
    };

    tables.identities.insert(identity.clone());
    tables.remote_endpoints.insert(pod.clone());
    tables.commit();
    eventually("its permission", || allowed().then_some(())).await;
    located(true).await;
    tables.identities.remove(&identity.id);
    settle(&mut tables).await;
    assert!(allowed(), "the agent of its pod makes it again");
    tables.identities.insert(identity.clone());
    settle(&mut tables).await;
    tables.remote_endpoints.remove(&pod.key());
    tables.commit();
    located(false).await;
    settle(&mut tables).await;
    assert!(allowed(), "it is there again");

    tables.remote_endpoints.insert(pod.clone());
    tables.commit();
    located(true).await;
    tables.identities.remove(&identity.id);
    settle(&mut tables).await;
    tables.remote_endpoints.remove(&pod.key());
    tables.commit();
    eventually("it to be forgotten", || (!allowed()).then_some(())).await;
}

#[tokio::test]
async fn a_pod_whose_labels_change_gets_another_identity() {
    let mut tables = two_pods();
    tables.cilium_policies.insert(cilium_policy("web", from_client("80")));
    tables.commit();
    let kernel = fake::Kernel::new();
    let agent = start(config(), kernel.clone(), Store::default(), &tables);
    agent.expect_lines(1, &CLIENT_80).await;
    let before = agent.policy_of(2, |_| true).await;
    attach(&kernel, &agent);
    tables.add_pod(2, "shop/client", &[("app", "other")], vec![]);
    tables.commit();
    let after = agent.policy_of(2, |row| row.identity != before.identity).await;
    assert_ne!(after.policy, before.policy);
    let address = |prefix: &str| {
        agent.ipcache.entries.snapshot().get(&prefix.parse::<ipnet::IpNet>().unwrap()).map(|e| e.identity)
    };
    eventually("the ipcache", || (address("10.0.1.2/32") == Some(after.identity)).then_some(())).await;
    // The old compiled policy stays as long as the programs know the pod by it.
    assert!(agent.outputs.compiled.snapshot().get(&before.policy).is_some());
    attach(&kernel, &agent);
    eventually("the old policy to go", || {
        agent.outputs.compiled.snapshot().get(&before.policy).is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn prefixes_get_identities_while_a_policy_names_them() {
    let (kernel, mut tables) = (fake::Kernel::new(), two_pods());
    let agent = start(config(), kernel.clone(), Store::default(), &tables);
    agent.expect_lines(1, &OPEN).await;
    let identity_of =
        |ip: [u8; 4]| kernel.trie::<Ipcache4>().unwrap().lookup(&ip).unwrap().map(|e| IdentityId(e.identity));
    let world = Some(model::reserved::WORLD_IPV4);
    eventually("the world", || (identity_of([203, 0, 113, 9]) == world).then_some(())).await;
    let spec = json!({"endpointSelector": {"matchLabels": {"app": "web"}},
        "egress": [{"toCIDRSet": [{"cidr": "203.0.113.0/24", "except": ["203.0.113.9/32"]}]}]});
    let policy = cilium_policy("out", spec);
    tables.cilium_policies.insert(policy.clone());
    tables.commit();
    let wide = eventually("an identity", || identity_of([203, 0, 113, 8]).filter(|id| id.is_node_local())).await;
    let narrow =
        eventually("another", || identity_of([203, 0, 113, 9]).filter(|id| id.is_node_local() && *id != wide)).await;
    let map = kernel.trie::<Policies>().unwrap();
    let names = |id: IdentityId| map.entries().unwrap().iter().any(|(key, _)| key.data.identity == id.0);
    assert!(names(wide) && !names(narrow), "entries are there before the address has the identity");
    assert_eq!(agent.outputs.metrics.node_identities(), 2);

    tables.cilium_policies.remove(&policy.name);
    tables.commit();
    eventually("the world again", || (identity_of([203, 0, 113, 8]) == world).then_some(())).await;
    eventually("no identity", || (agent.outputs.metrics.node_identities() == 0).then_some(())).await;
    assert!(!names(wide));
}
