// SPDX-License-Identifier: Apache-2.0
//! Golden tests: objects as a user applies them, and what comes of them.

#[path = "../../../datapath/tests/kit/golden.rs"]
mod kit;

use crate::support::{Agent, Store, Tables, compact, start};
use datapath::fake;
use k8s::k8s_openapi::api::core::v1 as core;
use model::{IdentityId, Label, NamedPort, PodName, Protocol, RemoteEndpoint};
use policy::{Config, Families};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// Puts an object into the table where it belongs.
fn apply(tables: &mut Tables, config: &Config, object: Value, number: u16) {
    let context = config.context();
    let kind = object["kind"].as_str().expect("kind").to_owned();
    macro_rules! policy {
        ($table:ident, $ingest:path) => {
            tables.$table.insert($ingest(&context, &serde_json::from_value(object).unwrap()).unwrap())
        };
    }
    match kind.as_str() {
        "Namespace" => {
            tables.namespaces.insert(policy::ingest_namespace(&serde_json::from_value(object).unwrap()).unwrap())
        }
        "Pod" => pod(tables, config, &serde_json::from_value(object).unwrap(), number),
        "NetworkPolicy" => policy!(network_policies, policy::ingest_network_policy),
        "CiliumNetworkPolicy" => policy!(cilium_policies, policy::ingest_cilium_policy),
        "CiliumClusterwideNetworkPolicy" => policy!(clusterwide_policies, policy::ingest_clusterwide_policy),
        "CiliumCIDRGroup" => {
            let group = policy::ingest_cidr_group(&serde_json::from_value(object).unwrap()).unwrap();
            tables.cidr_groups.insert(group);
        }
        "EndpointSlice" => {
            let slice = policy::ingest_api_servers(&serde_json::from_value(object).unwrap());
            tables.api_servers.insert(slice.unwrap());
        }
        other => panic!("kind {other}"),
    }
}

/// A pod of this node, or with another `nodeName` one that is known by its CiliumEndpoint and identity.
fn pod(tables: &mut Tables, config: &Config, object: &core::Pod, number: u16) {
    let meta = &object.metadata;
    let spec = object.spec.as_ref();
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap());
    let labels: Vec<_> = meta.labels.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let ports = spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.ports.iter().flatten());
    let ports: Vec<_> = ports
        .filter_map(|port| {
            let port_number = u16::try_from(port.container_port).ok()?;
            Some(NamedPort { name: port.name.clone()?, port: port_number, protocol: Protocol::Tcp })
        })
        .collect();
    if spec.and_then(|s| s.node_name.as_deref()).unwrap_or("node1") == "node1" {
        let known = tables.namespaces.snapshot().get(namespace);
        tables.namespaces.commit();
        let known = known.or_else(|| tables.namespaces.snapshot().get(namespace));
        tables.add_pod(number, &format!("{namespace}/{name}"), &labels, ports);
        if let Some(known) = known {
            tables.namespaces.insert(model::Namespace::clone(&known));
        }
        return;
    }
    let identity = IdentityId(1000 + u32::from(number));
    let own = labels.iter().map(|(k, v)| Label::k8s(*k, *v));
    let derived = [
        Label::k8s("io.kubernetes.pod.namespace", namespace),
        Label::k8s("io.cilium.k8s.policy.cluster", &*config.cluster_name),
    ];
    tables.identities.insert(model::Identity { id: identity, labels: own.chain(derived).collect() });
    tables.remote_endpoints.insert(RemoteEndpoint {
        cluster: "default".into(),
        pod: PodName::new(namespace, name),
        ipv4: Some(format!("10.0.2.{number}").parse().unwrap()),
        ipv6: None,
        identity,
        host: Some("192.168.77.12".parse().unwrap()),
        named_ports: ports,
    });
}

/// What the node makes of it, as text.
fn render(agent: &Agent, tables: &Tables) -> String {
    let mut text = String::new();
    for endpoint in tables.endpoints.snapshot().iter() {
        let row = agent.outputs.endpoint_policies.snapshot().get(&endpoint.id).unwrap();
        let enforced = [(row.ingress_enforced, "ingress"), (row.egress_enforced, "egress")];
        let enforced: Vec<_> = enforced.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        let enforced = if enforced.is_empty() { "nothing".to_owned() } else { enforced.join(" and ") };
        writeln!(text, "{} enforces {enforced}", endpoint.owner()).unwrap();
        for line in agent.lines(endpoint.id.0) {
            writeln!(text, "  {line}").unwrap();
        }
    }
    let prefixes = agent.ipcache.entries.snapshot();
    let prefixes: Vec<_> =
        prefixes.iter().filter(|row| row.identity.is_node_local()).map(|row| row.prefix.to_string()).collect();
    if !prefixes.is_empty() {
        writeln!(text, "prefixes: {}", prefixes.join(" ")).unwrap();
    }
    for row in agent.outputs.problems.snapshot().iter() {
        let what = if row.valid { "problem" } else { "rejected" };
        for problem in &row.problems {
            writeln!(text, "{what}: {}: {problem}", row.policy).unwrap();
        }
    }
    text
}

/// What the kernel was told is what the tables say.
fn kernel_agrees(kernel: &fake::Kernel, agent: &Agent) -> bool {
    let map = kernel.trie::<abi::maps::Policies>().unwrap().entries().unwrap();
    let rows = agent.outputs.compiled.snapshot();
    let wanted = rows.iter().flat_map(|row| row.entries.iter().map(|(key, entry)| (key.of_policy(row.id), *entry)));
    let mut wanted: Vec<_> = wanted.map(|(key, entry)| format!("{key:?} {entry:?}")).collect();
    let mut there: Vec<_> = map.into_iter().map(|(key, entry)| format!("{key:?} {entry:?}")).collect();
    wanted.sort();
    there.sort();
    wanted == there
}

/// Plays one story and returns it as it went, on a kernel that fails now and then.
async fn play(story: &str, failures: f64) -> String {
    let families = Families { ipv4: true, ipv6: true };
    let config = Config { ipv4: families.ipv4, ipv6: families.ipv6, ..Config::default() };
    let (mut tables, kernel) = (Tables::default(), fake::Kernel::new());
    let chaotic = fake::chaos(kernel.clone(), failures, 11);
    let agent = start(config.clone(), chaotic, Store::default(), &tables);
    let mut numbers = 1..;
    kit::play(story, async |command, body| match command {
        "apply" => {
            for object in serde_saphyr::from_multiple(body).expect("YAML") {
                apply(&mut tables, &config, object, numbers.next().unwrap());
            }
            None
        }
        "result" => {
            tables.commit();
            tables.mark_initialized();
            // The clock is paused, so it moves only once every task waits: for the next of many attempts, at most.
            tokio::time::sleep(Duration::from_secs(1200)).await;
            assert!(kernel_agrees(&kernel, &agent));
            Some(render(&agent, &tables))
        }
        other => panic!("unknown command {other}"),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn golden_files_hold_also_on_a_kernel_that_fails_now_and_then() {
    for (path, story) in kit::stories(env!("CARGO_MANIFEST_DIR")) {
        for failures in [0.0, 0.2] {
            let seen = play(&story, failures).await;
            kit::compare(&path, &story, &seen, &format!("with {failures} of calls failing"));
        }
    }
}

#[test]
fn labels_that_all_pods_share_are_left_out_of_the_text() {
    let line = "allow ingress k8s:app=a,k8s:io.cilium.k8s.policy.cluster=c,k8s:io.kubernetes.pod.namespace=x all";
    assert_eq!(compact(line), "allow ingress app=a,ns=x all");
}
