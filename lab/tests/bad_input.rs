// SPDX-License-Identifier: Apache-2.0
//! Bad input on a cluster: each gives one clear error that names what is wrong, and changes nothing else. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;
use serde_json::Value;

const SUITE: Suite = Suite {
    name: "bad-input",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    // A node has room for a dozen pods.
    values: &[
        "ipam.mode=cluster-pool",
        "ipam.operator.clusterPoolIPv4PodCIDRList={10.30.0.0/24}",
        "ipam.operator.clusterPoolIPv4MaskSize=28",
        "ipam.operator.clusterPoolIPv6PodCIDRList={fd00:30::/104}",
    ],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("a_call_of_the_plugin_that_cannot_be_served_is_answered_by_what_is_wrong", plugin_calls),
        ("a_policy_with_an_unknown_field_is_refused_and_one_with_a_bad_value_is_not_valid", bad_policies),
        ("a_policy_that_selects_nothing_changes_nothing", selects_nothing),
        ("a_node_that_claims_what_another_has_is_named_and_gets_nothing", greedy_node),
        ("an_exhausted_pool_is_named_in_the_pods_event_and_pods_start_once_there_is_room", exhausted_pool),
    ],
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Whatever was wrong: the pods talk as before.
fn pods_talk(cluster: &Cluster) -> Result<()> {
    let client = Netns::of_pod(cluster, "net", "client")?;
    for peer in ["near", "far"] {
        for to in cluster.pod_addresses("net", peer)? {
            client.connect(SocketAddr::new(to, 8080)).with_context(|| format!("client to {peer}"))?;
        }
    }
    Ok(())
}

/// Calls the plugin on node1 as a runtime does; it must fail, and says why.
fn refused(cluster: &Cluster, environment: &str, configuration: &str) -> Result<Value> {
    let script = format!("echo '{configuration}' | env {environment} CNI_PATH=/opt/cni/bin /opt/cni/bin/cilium-cni");
    let output = cluster.node("node1", &["sh", "-c", &script])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "'{script}' succeeded: {said}");
    serde_json::from_str(&said).with_context(|| format!("'{script}' did not answer in JSON: {said}"))
}

fn plugin_calls(cluster: &Cluster) -> Result<()> {
    let before = product::in_agent(cluster, "node1", &["cilium-dbg", "endpoint", "list"])?;
    let good = r#"{"cniVersion":"1.0.0","name":"cilium","type":"cilium-cni"}"#;
    let pod = "CNI_ARGS='K8S_POD_NAMESPACE=net;K8S_POD_NAME=nobody'";
    let add = |rest: &str| format!("CNI_COMMAND=ADD CNI_CONTAINERID=bad0 {rest}");
    let calls = [
        (add("CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0"), "{not json", 6, "network configuration"),
        (
            add("CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0"),
            r#"{"cniVersion":"9.9.9","name":"x","type":"cilium-cni"}"#,
            1,
            "9.9.9",
        ),
        (add("CNI_NETNS=/run/netns/gone CNI_IFNAME=eth0"), good, 3, "/run/netns/gone"),
        (add("CNI_NETNS=/proc/1/ns/net CNI_IFNAME=a-name-that-is-too-long"), good, 4, "a-name-that-is-too-long"),
        (
            "CNI_COMMAND=DANCE CNI_CONTAINERID=bad0 CNI_NETNS=/proc/1/ns/net CNI_IFNAME=eth0".to_owned(),
            good,
            4,
            "DANCE",
        ),
    ];
    for (environment, configuration, code, named) in calls {
        let answer = refused(cluster, &format!("{pod} {environment}"), configuration)?;
        let text = format!("{} {}", answer["msg"], answer["details"]);
        ensure!(answer["code"] == code && text.contains(named), "{environment}, {configuration}: {answer}");
    }
    // A namespace that is there, for a pod that nobody knows.
    cluster.shell("node1", "ip netns add bad")?;
    let unknown = refused(cluster, &format!("{pod} {}", add("CNI_NETNS=/run/netns/bad CNI_IFNAME=eth0")), good);
    let links = cluster.shell("node1", "ip netns exec bad ip -o link | grep -vc ' lo:' || true");
    cluster.shell("node1", "ip netns del bad")?;
    let unknown = unknown?;
    ensure!(unknown.to_string().contains("net/nobody"), "{unknown}");
    assert_eq!(links?, "0", "nothing is left in the namespace");
    assert_eq!(product::in_agent(cluster, "node1", &["cilium-dbg", "endpoint", "list"])?, before);
    pods_talk(cluster)
}

fn bad_policies(cluster: &Cluster) -> Result<()> {
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{ name: {name}, namespace: net }}\nspec: {spec}\n"
        )
    };
    let unknown = cluster.apply(&policy("misspelt", "{ endpointSelector: {}, ingres: [{}] }"));
    let said = format!("{:#}", unknown.err().context("an unknown field was taken")?);
    ensure!(said.contains("spec.ingres"), "{said}");
    let bad = "{ endpointSelector: { matchLabels: { app: echo } }, ingress: [{ fromCIDR: [\"10.0.0.0/99\"] }] }";
    let outcome = cluster.apply(&policy("bad-prefix", bad));
    let answer = match outcome {
        // The schema's pattern is stricter in some releases than in others.
        Err(refusal) => format!("{refusal:#}"),
        Ok(()) => eventually(Duration::from_secs(30), "a condition", || not_valid(cluster, "bad-prefix"))?,
    };
    ensure!(answer.contains("fromCIDR") && answer.contains("10.0.0.0/99"), "{answer}");
    pods_talk(cluster)?;
    cluster.kubectl(&["delete", "ciliumnetworkpolicies", "--namespace=net", "--all"]).map(drop)
}

/// The message of a policy's condition `Valid`, which is to be false.
fn not_valid(cluster: &Cluster, name: &str) -> Result<String> {
    let object = cluster.get(&["ciliumnetworkpolicy", "--namespace=net", name])?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter().find(|condition| condition["type"] == "Valid" && condition["status"] == "False") {
        Some(condition) => Ok(condition["message"].to_string()),
        None => bail!("{conditions:?}"),
    }
}

fn selects_nothing(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: { name: nobody, namespace: net }\n\
         spec: { endpointSelector: { matchLabels: { app: nobody } }, ingress: [{}], egress: [{}] }\n",
    )?;
    eventually(Duration::from_secs(30), "a condition", || {
        let path = "-o=jsonpath={.status.conditions[?(@.type==\"Valid\")].status}";
        let valid = cluster.kubectl(&["get", "ciliumnetworkpolicy", "--namespace=net", "nobody", path])?;
        ensure!(valid.trim() == "True", "Valid is '{valid}'");
        Ok(())
    })?;
    let enforced = product::in_agent(cluster, "node1", &["cilium-dbg", "endpoint", "list"])?;
    ensure!(!enforced.contains("Enabled"), "{enforced}");
    pods_talk(cluster)?;
    cluster.kubectl(&["delete", "ciliumnetworkpolicy", "--namespace=net", "nobody"]).map(drop)
}

/// The problems with nodes that the agent of node1 sees.
fn problems(cluster: &Cluster) -> Result<String> {
    product::in_agent(cluster, "node1", &["cilium-dbg", "statedb", "dump", "node-problems"])
}

fn greedy_node(cluster: &Cluster) -> Result<()> {
    let taken = cluster.get(&["ciliumnode", "node2"])?["spec"]["ipam"]["podCIDRs"][0].clone();
    let taken = taken.as_str().context("node2 has no pod CIDR")?;
    for (name, address, range, complaint) in [
        ("greedy", "192.168.77.99", taken, format!("podCIDR {taken} of node greedy overlaps")),
        (
            "impostor",
            "192.168.77.12",
            "10.99.0.0/24",
            "address 192.168.77.12 of node impostor is node node2's".to_owned(),
        ),
    ] {
        cluster.apply(&format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {{ name: {name} }}\n\
             spec: {{ addresses: [{{ type: InternalIP, ip: {address} }}], ipam: {{ podCIDRs: [{range}] }} }}\n"
        ))?;
        eventually(Duration::from_secs(30), "the conflict", || {
            let said = problems(cluster)?;
            ensure!(said.contains(&complaint), "{said}");
            Ok(())
        })?;
        pods_talk(cluster)?;
        cluster.kubectl(&["delete", "ciliumnode", name])?;
    }
    eventually(Duration::from_secs(30), "no conflict", || {
        let said = problems(cluster)?;
        ensure!(!said.contains("greedy") && !said.contains("impostor"), "{said}");
        Ok(())
    })?;
    pods_talk(cluster)
}

fn exhausted_pool(cluster: &Cluster) -> Result<()> {
    let range = cluster.get(&["ciliumnode", "node2"])?["spec"]["ipam"]["podCIDRs"][0].clone();
    let range = range.as_str().context("node2 has no pod CIDR")?;
    cluster.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: crowd, namespace: net }\n\
         spec:\n  replicas: 16\n  selector: { matchLabels: { app: crowd } }\n  template:\n    metadata: { labels: { app: crowd } }\n\
         \x20   spec:\n      nodeSelector: { kubernetes.io/hostname: node2 }\n      terminationGracePeriodSeconds: 0\n\
         \x20     containers: [{ name: pause, image: 'registry.k8s.io/e2e-test-images/agnhost:2.63.0', args: [pause] }]\n",
    )?;
    eventually(Duration::from_secs(90), "an event that names the pool", || {
        let events = cluster.kubectl(&["get", "events", "--namespace=net", "-o=jsonpath={..message}"])?;
        ensure!(events.contains(&format!("pool {range} is exhausted")), "{events}");
        Ok(())
    })?;
    pods_talk(cluster)?;
    cluster.kubectl(&["scale", "--namespace=net", "deployment/crowd", "--replicas=3"])?;
    cluster.kubectl(&["rollout", "status", "--namespace=net", "deployment/crowd", "--timeout=90s"])?;
    cluster.kubectl(&["scale", "--namespace=net", "deployment/crowd", "--replicas=8"])?;
    cluster.kubectl(&["rollout", "status", "--namespace=net", "deployment/crowd", "--timeout=120s"])?;
    let list = cluster.get(&["pods", "--namespace=net", "--selector=app=crowd"])?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let mut addresses: Vec<String> = pods.iter().map(|pod| pod["status"]["podIP"].to_string()).collect();
    addresses.sort();
    let count = addresses.len();
    addresses.dedup();
    ensure!(addresses.len() == count, "an address was given twice: {addresses:?}");
    cluster.kubectl(&["delete", "deployment", "--namespace=net", "crowd", "--timeout=60s"])?;
    pods_talk(cluster)
}
