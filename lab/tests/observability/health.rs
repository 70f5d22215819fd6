// SPDX-License-Identifier: Apache-2.0
//! Nodes and their health endpoints: published, reached, probed; and what is not reached is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::product;
use serde_json::Value;

use crate::PATIENCE;

/// The addresses of a node's health endpoint, as its CiliumNode has them.
fn health_addresses(cluster: &Cluster, node: &str) -> Result<Vec<IpAddr>> {
    let health = cluster.get(&["ciliumnode", node])?["spec"]["health"].clone();
    let address = |family: &str| {
        let text = health[family].as_str().with_context(|| format!("{node}: spec.health is {health}"))?;
        text.parse().context("spec.health")
    };
    Ok(vec![address("ipv4")?, address("ipv6")?])
}

pub(crate) fn published(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let addresses = eventually(PATIENCE, "published addresses", || health_addresses(cluster, &node))?;
        for ip in &addresses {
            let url = format!("http://{}/hello", SocketAddr::new(*ip, 4240));
            for asking in cluster.nodes() {
                let answered = || cluster.shell(&asking, &format!("curl -fsS -m 2 {url}"));
                eventually(PATIENCE, &format!("{asking} to {url}"), answered)?;
            }
            cluster.exec("net", "client", &["curl", "-fsS", "-m", "5", &url])?;
        }
        let list = product::in_agent(cluster, &node, &["cilium-dbg", "endpoint", "list"])?;
        let line = list.lines().find(|line| line.contains("reserved:health")).context("no such endpoint")?;
        ensure!(addresses.iter().all(|ip| line.contains(&ip.to_string())) && line.contains("ready"), "{line}");
    }
    Ok(())
}

/// What a node's agent says, after it has probed everybody now: for each node, which of its addresses are not reached.
fn unreached(cluster: &Cluster, node: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let text = product::in_agent(cluster, node, &["cilium-health", "status", "--probe", "-o", "json"])?;
    let said: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let nodes = said["nodes"].as_array().cloned().unwrap_or_default();
    let faults = |node: &Value| {
        let mut all = Vec::new();
        for part in ["host", "health-endpoint"] {
            let primary = std::iter::once(&node[part]["primary-address"]);
            let others = node[part]["secondary-addresses"].as_array().into_iter().flatten();
            for (address, kind) in primary.chain(others).flat_map(|a| [(a, "icmp"), (a, "http")]) {
                let status = &address[kind];
                if status["lastProbed"].as_str().is_none_or(str::is_empty) || !status["status"].is_null() {
                    all.push(format!("{part} {} {kind}: {}", address["ip"], status["status"]));
                }
            }
        }
        all
    };
    Ok(nodes.iter().map(|node| (node["name"].as_str().unwrap_or_default().to_owned(), faults(node))).collect())
}

/// Waits until a node reaches everything.
fn reaches_all(cluster: &Cluster, node: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{node} reaches all"), || {
        let faults = unreached(cluster, node)?;
        let names: Vec<&str> = faults.keys().map(String::as_str).collect();
        ensure!(names == ["node1", "node2"] && faults.values().all(Vec::is_empty), "{faults:?}");
        Ok(())
    })
}

pub(crate) fn all_reached(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        reaches_all(cluster, &node)?;
        let text = product::in_agent(cluster, &node, &["cilium-health", "status"])?;
        ensure!(text.contains("2/2 reachable") && text.contains("(localhost)"), "{text}");
        let verbose = product::in_agent(cluster, &node, &["cilium-health", "status", "--verbose"])?;
        ensure!(verbose.matches("ICMP to stack:").count() >= 8, "two nodes, two parts, two families:\n{verbose}");
        let status = product::in_agent(cluster, &node, &["cilium-dbg", "status"])?;
        ensure!(status.contains("Cluster health:") && status.contains("2/2 reachable"), "{status}");
    }
    Ok(())
}

pub(crate) fn cut_by_policy(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: { name: no-probes }\n\
         spec:\n  endpointSelector: { matchLabels: { 'reserved:health': '' } }\n  ingress: [{ fromEntities: [host] }]\n",
    )?;
    eventually(PATIENCE, "node1 does not reach node2's endpoint", || {
        let faults = unreached(cluster, "node1")?;
        let (own, other) = (&faults["node1"], &faults["node2"]);
        ensure!(
            own.is_empty() && other.len() == 4 && other.iter().all(|f| f.starts_with("health-endpoint")),
            "{faults:?}"
        );
        Ok(())
    })?;
    let text = product::in_agent(cluster, "node1", &["cilium-health", "status"])?;
    ensure!(text.contains("1/2 reachable"), "{text}");
    cluster.kubectl(&["delete", "ccnp", "no-probes"])?;
    reaches_all(cluster, "node1")
}

pub(crate) fn node_cut_off(cluster: &Cluster) -> Result<()> {
    cluster.fault("cut", "node2")?;
    let told = eventually(PATIENCE, "node1 does not reach node2", || {
        let faults = unreached(cluster, "node1")?;
        ensure!(faults["node1"].is_empty() && faults["node2"].len() == 8, "{faults:?}");
        Ok(())
    });
    cluster.fault("restore", "node2")?;
    told?;
    reaches_all(cluster, "node1")?;
    cluster.nodes_ready(PATIENCE)
}

pub(crate) fn agent_killed(cluster: &Cluster) -> Result<()> {
    let before = health_addresses(cluster, "node2")?;
    cluster.fault("kill", "node2/agent")?;
    product::ready(cluster)?;
    reaches_all(cluster, "node1")?;
    ensure!(health_addresses(cluster, "node2")? == before, "others know {before:?}");
    reaches_all(cluster, "node2")
}

/// It is in nobody's list of attachments, and its address in nobody's pool.
pub(crate) fn among_endpoints(cluster: &Cluster) -> Result<()> {
    let status = product::in_agent(cluster, "node2", &["cilium-dbg", "status", "-o", "json"])?;
    let status: Value = serde_json::from_str(&status)?;
    for ip in health_addresses(cluster, "node2")? {
        ensure!(status["ipam"]["allocations"][ip.to_string()] == "health", "{}", status["ipam"]);
    }
    let gc = r#"{"cniVersion":"1.1.0","name":"cilium","type":"cilium-cni","cni.dev/valid-attachments":[ATTACHED]}"#;
    let list = product::in_agent(cluster, "node2", &["cilium-dbg", "endpoint", "list", "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let names = list.as_array().into_iter().flatten();
    let names = names.filter_map(|one| one["status"]["external-identifiers"]["cni-attachment-id"].as_str());
    let attached: Vec<String> = names
        .filter_map(|name| name.split_once(':'))
        .map(|(id, interface)| format!(r#"{{"containerID":"{id}","ifname":"{interface}"}}"#))
        .collect();
    let gc = gc.replace("ATTACHED", &attached.join(","));
    cluster.shell("node2", &format!("echo '{gc}' | CNI_COMMAND=GC CNI_PATH=/opt/cni/bin /opt/cni/bin/cilium-cni"))?;
    reaches_all(cluster, "node1")
}
