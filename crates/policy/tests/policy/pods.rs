// SPDX-License-Identifier: Apache-2.0
//! Pods of this node that come, go, change and cannot start, and what is counted of them.

use crate::live::{OPEN, attach, cilium_policy, config, two_pods};
use crate::support::{Agent, Store, Tables, eventually, start};
use datapath::fake;
use ipnet::IpNet;
use model::{EndpointId, Namespace, PodName, reserved};
use prometheus_client::registry::Registry;
use serde_json::json;

async fn waiting(agent: &Agent, wanted: i64) {
    let what = format!("{wanted} pods that wait");
    eventually(&what, || (agent.outputs.metrics.endpoints_waiting() == wanted).then_some(())).await;
}

#[tokio::test]
async fn a_pod_that_is_not_known_yet_waits_and_one_that_is_no_more_keeps_what_it_has() {
    let (mut tables, mut later) = (two_pods(), Tables::default());
    later.add_pod(3, "shop/late", &[("app", "late")], vec![]);
    later.commit();
    let late = PodName::new("shop", "late");
    let (pod, interface) = (later.pods.snapshot().get(&late), later.endpoints.snapshot().get(&EndpointId(3)));
    tables.endpoints.insert(model::Endpoint::clone(&interface.unwrap()));
    tables.commit();
    let agent = start(config(), fake::Kernel::new(), Store::default(), &tables);
    let web = agent.policy_of(1, |_| true).await;
    waiting(&agent, 1).await;
    assert!(agent.outputs.endpoint_policies.snapshot().get(&EndpointId(3)).is_none());
    tables.pods.insert(model::Pod::clone(&pod.unwrap()));
    tables.commit();
    let before = agent.policy_of(3, |_| true).await;
    waiting(&agent, 0).await;

    tables.pods.remove(&late);
    tables.commit();
    tables.namespaces.insert(Namespace { name: "shop".into(), labels: [("team".into(), "a".into())].into() });
    tables.commit();
    agent.policy_of(1, |row| row.identity != web.identity).await;
    agent.policy_of(2, |row| row.identity != web.identity).await;
    waiting(&agent, 0).await;
    assert_eq!(agent.policy_of(3, |_| true).await.identity, before.identity);
}

#[tokio::test]
async fn a_pod_that_is_gone_takes_its_policy_and_its_address_with_it() {
    let mut tables = two_pods();
    let agent = start(config(), fake::Kernel::new(), Store::default(), &tables);
    agent.expect_lines(1, &OPEN).await;
    let policy = agent.policy_of(1, |_| true).await.policy;
    let address: IpNet = "10.0.1.1/32".parse().unwrap();
    eventually("its address", || agent.ipcache.entries.snapshot().get(&address)).await;
    tables.endpoints.remove(&EndpointId(1));
    tables.commit();
    let rows = &agent.outputs.endpoint_policies;
    eventually("its row to go", || rows.snapshot().get(&EndpointId(1)).is_none().then_some(())).await;
    eventually("its address to go", || agent.ipcache.entries.snapshot().get(&address).is_none().then_some(())).await;
    let compiled = &agent.outputs.compiled;
    eventually("its policy to go", || compiled.snapshot().get(&policy).is_none().then_some(())).await;
    assert!(rows.snapshot().get(&EndpointId(2)).is_some());
}

#[tokio::test]
async fn the_author_of_a_pod_that_gets_no_identity_is_told_why() {
    let (store, tables) = (Store::default(), two_pods());
    *store.refuses.lock() = true;
    let mut agent = start(config(), fake::Kernel::new(), store, &tables);
    let mut told = Vec::new();
    while told.len() < 2 {
        let warning = tokio::time::timeout(std::time::Duration::from_secs(20), agent.warnings.next()).await;
        let warning = warning.unwrap().unwrap();
        assert_eq!(warning.reason, "IdentityRefused");
        assert!(warning.note.starts_with("No security identity for this pod: the API server rejects CiliumIdentity"));
        let name = warning.about.name.unwrap();
        if !told.contains(&name) {
            told.push(name);
        }
    }
    told.sort();
    assert_eq!(told, ["client", "web"]);
    assert!(agent.outputs.endpoint_policies.snapshot().is_empty());
}

#[tokio::test]
async fn a_pod_of_the_proxy_keeps_its_policy_over_a_restart() {
    let (kernel, store, mut tables) = (fake::Kernel::new(), Store::default(), two_pods());
    tables.add_pod(8, "kube-system/cilium-envoy-a", &[("k8s-app", "cilium-envoy")], vec![]);
    tables.commit();
    let agent = start(config(), kernel.clone(), store.clone(), &tables);
    for id in [1, 2, 8] {
        agent.policy_of(id, |_| true).await;
    }
    let before = agent.policy_of(8, |_| true).await;
    attach(&kernel, &agent);
    agent.kill().await;
    let agent = start(config(), kernel, store, &tables);
    let after = agent.policy_of(8, |_| true).await;
    assert_eq!((after.identity, after.policy), (reserved::INGRESS, before.policy));
}

#[tokio::test]
async fn what_is_in_force_is_counted() {
    let mut tables = two_pods();
    tables.add_pod(3, "shop/db", &[("app", "db")], vec![]);
    tables.add_pod(4, "shop/open", &[("app", "open")], vec![]);
    tables.add_pod(5, "shop/shut", &[("app", "client")], vec![]);
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let wide = json!([{"toCIDRSet": [{"cidr": "203.0.113.0/24", "except": ["203.0.113.9/32"]}]}]);
    for (name, spec) in [
        ("in", json!({"endpointSelector": selector("web"), "ingress": [{"fromEndpoints": [selector("client")]}]})),
        ("out", json!({"endpointSelector": selector("client"), "egress": wide})),
        ("both", json!({"endpointSelector": selector("db"), "ingress": [{}], "egress": [{"toEntities": ["host"]}]})),
    ] {
        tables.cilium_policies.insert(cilium_policy(name, spec));
    }
    tables.commit();
    let agent = start(config(), fake::Kernel::new(), Store::default(), &tables);
    let mut registry = Registry::default();
    agent.outputs.metrics.register(&mut registry);
    let built_in = reserved::all().len();
    let wanted = [
        "policy 3".to_owned(),
        // Pods 2 and 5 have one identity.
        "identity{type=\"cluster_local\"} 4".to_owned(),
        "identity{type=\"node_local\"} 2".to_owned(),
        format!("identity{{type=\"reserved\"}} {built_in}"),
        "policy_endpoint_enforcement_status{enforcement=\"none\"} 1".to_owned(),
        "policy_endpoint_enforcement_status{enforcement=\"ingress\"} 1".to_owned(),
        "policy_endpoint_enforcement_status{enforcement=\"egress\"} 2".to_owned(),
        "policy_endpoint_enforcement_status{enforcement=\"both\"} 1".to_owned(),
    ];
    let as_wanted = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let revision = text.lines().any(|line| line.starts_with("policy_max_revision ") && !line.ends_with(" 0"));
        revision && wanted.iter().all(|wanted| text.lines().any(|line| line == wanted))
    };
    eventually("the counts", || as_wanted().then_some(())).await;
    assert_eq!(agent.outputs.metrics.policies(), 3);
}
