// SPDX-License-Identifier: Apache-2.0
//! Inspects the nodes: the contents of maps by meaning, the rest of the kernel's network, what pods leave behind.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::NODES;
use crate::clock;
use crate::cluster::Cluster;
use crate::run;

/// The identity of health endpoints.
const HEALTH: u64 = 4;

/// Findings as lines, unordered.
pub(super) type Lines = BTreeSet<String>;

/// The same inspection of each node.
pub(super) fn everywhere(look: fn(&Cluster, &str) -> Result<Lines>, cluster: &Cluster) -> Result<Vec<Lines>> {
    NODES.iter().map(|node| look(cluster, node).with_context(|| (*node).to_owned())).collect()
}

/// The difference between two inspections.
pub(super) fn differences(before: &[Lines], after: &[Lines]) -> Vec<String> {
    let nodes = NODES.iter().zip(before.iter().zip(after));
    nodes.flat_map(|(node, (before, after))| one_sided(node, before, after)).collect()
}

fn one_sided(node: &str, before: &Lines, after: &Lines) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("{node} - {line}"));
    gone.chain(after.difference(before).map(|line| format!("{node} + {line}"))).collect()
}

/// The state of a node once it has been stable for a while.
pub(super) fn steady(cluster: &Cluster, node: &str) -> Result<Lines> {
    let mut last = Lines::new();
    clock::poll(super::REST, Duration::from_secs(5), || {
        let now = [maps(cluster, node)?, network(cluster, node)?, objects(cluster, node)?].into_iter().flatten();
        let before = std::mem::replace(&mut last, now.collect());
        ensure!(before == last, "the node changes still:\n{}", one_sided(node, &before, &last).join("\n"));
        Ok(last.clone())
    })
}

/// Routes, rules, nftables, and the programs of interfaces, without numbers that the kernel draws anew each time and without the
/// health endpoint.
fn network(cluster: &Cluster, node: &str) -> Result<Lines> {
    const SCRIPT: &str = r#"
        for family in -4 -6; do
            ip $family route show table all | sed -E 's/ (expires|age) [0-9a-z]+//g' | sed "s/^/route $family /"
            ip $family rule | sed "s/^/rule $family /"
        done
        nft -s list ruleset 2>/dev/null | awk '/^table/ {table = $2 " " $3} /^\t[a-z]/ {part = $1 " " $2} {print "nft", table, part, $0}'
        for device in $(ls /sys/class/net); do
            for side in ingress egress; do
                tc filter show dev $device $side 2>/dev/null | sed -E 's/ (id|handle) [0-9a-fx]+//g' | sed "s/^/tc $device $side /"
            done
        done
        cd /sys/fs/bpf/cilium && find . -type f | sed 's/^/pin /'
        true"#;
    let said = run::output(cluster.on_node(node).args(["sh", "-c", SCRIPT]))?;
    let lines: Lines = said.lines().map(str::trim).filter(|line| !line.contains("health")).map(str::to_owned).collect();
    for kind in ["route -4", "rule -4", "pin"] {
        ensure!(lines.iter().any(|line| line.starts_with(kind)), "no line of '{kind}' in:\n{said}");
    }
    Ok(lines)
}

/// What the API server says of a node's pods: CiliumEndpoints and their identities.
fn objects(cluster: &Cluster, node: &str) -> Result<Lines> {
    let address =
        cluster.kubectl(&["get", "ciliumnode", node, "-o=jsonpath={.spec.addresses[?(@.type=='InternalIP')].ip}"])?;
    let of_node = |object: &Value| {
        let on = object.pointer("/status/networking/node").and_then(Value::as_str);
        on.is_some_and(|on| address.split_whitespace().any(|own| own == on))
    };
    let (mut lines, mut used) = (Lines::new(), BTreeSet::new());
    for endpoint in list(cluster, "ciliumendpoints")?.iter().filter(|object| of_node(object)) {
        used.extend(endpoint.pointer("/status/identity/id").map(Value::to_string));
        lines.insert(format!("endpoint object {} {}", name(endpoint), endpoint.get("status").unwrap_or(&Value::Null)));
    }
    for identity in list(cluster, "ciliumidentities")?.iter().filter(|object| used.contains(&name(object))) {
        lines.insert(format!(
            "identity object {} {}",
            name(identity),
            identity.get("security-labels").unwrap_or(&Value::Null)
        ));
    }
    Ok(lines)
}

fn list(cluster: &Cluster, kind: &str) -> Result<Vec<Value>> {
    let mut list: Value = serde_json::from_str(&cluster.kubectl(&["get", kind, "-A", "-o", "json"])?)?;
    list.get_mut("items").map(Value::take).map_or_else(|| bail!("a list of {kind} has no items"), entries)
}

fn name(object: &Value) -> String {
    let part = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    match (part("/metadata/namespace"), part("/metadata/name")) {
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

/// The agent's maps, without mere references between entries and without the health endpoint, which is another one after each start.
fn maps(cluster: &Cluster, node: &str) -> Result<Lines> {
    let pod = cluster.agent_pod(node)?;
    let dump = |map: &str| -> Result<Vec<Value>> {
        let command = ["-n", "kube-system", "exec", &pod, "--", "cilium-dbg", "bpf", map, "list", "-o", "json"];
        let text = cluster.kubectl(&command)?;
        serde_json::from_str(&text).map_err(Into::into).and_then(entries).with_context(|| format!("the dump of {map}"))
    };
    let endpoints: Vec<String> = dump("endpoint")?.iter().map(Value::to_string).collect();
    let (of_health, others): (Vec<String>, Vec<String>) =
        endpoints.into_iter().partition(|entry| entry.contains(&format!("sec_id={HEALTH} ")));
    let policies_of =
        |entries: &[String]| -> BTreeSet<u64> { entries.iter().filter_map(|entry| policy(entry)).collect() };
    let only_of_health = &policies_of(&of_health) - &policies_of(&others);
    let mut lines: Lines = others.into_iter().map(|entry| format!("endpoint {entry}")).collect();
    for map in ["policy", "lb", "ipcache"] {
        for mut entry in dump(map)? {
            let number = |field: &str| entry.get(field).and_then(Value::as_u64);
            let of_health = number("policy").is_some_and(|policy| only_of_health.contains(&policy));
            if of_health || number("identity") == Some(HEALTH) {
                continue;
            }
            if let Some(fields) = entry.as_object_mut() {
                fields.remove("provenance");
            }
            lines.insert(format!("{map} {entry}"));
        }
    }
    Ok(lines)
}

/// The policy number of an endpoint, in a dump of it.
fn policy(endpoint: &str) -> Option<u64> {
    let (_, rest) = endpoint.split_once("policy=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The entries of a dump: a list, or an object of keys and values.
fn entries(dump: Value) -> Result<Vec<Value>> {
    match dump {
        Value::Array(entries) => Ok(entries),
        Value::Object(values) => Ok(values.into_iter().map(|(key, value)| serde_json::json!({ key: value })).collect()),
        other => bail!("neither a list nor an object: {other}"),
    }
}

/// What pods may leave behind on a node: links, network namespaces, pins of links that are gone, files of the agent.
pub(super) fn leftovers(cluster: &Cluster, node: &str) -> Result<Lines> {
    const SCRIPT: &str = "
        ip -o link | grep -o 'lxc[0-9a-f]*' | sed 's/^/link /'
        ls /run/netns /var/run/netns 2>/dev/null | grep -v ':$' | sort -u | sed 's/^/netns /'
        cd /sys/fs/bpf/cilium && find . -type f | while read -r pin; do
            link=$(echo \"$pin\" | grep -o 'lxc[0-9a-f]*')
            [ -n \"$link\" ] && [ -e \"/sys/class/net/$link\" ] || echo \"pin $pin\"
        done
        ls /var/run/cilium/state /var/run/cilium/deleteQueue | sed 's/^/file /'
        true";
    let said = run::output(cluster.on_node(node).args(["sh", "-c", SCRIPT]))?;
    let lasting = |line: &&str| !line.is_empty() && !line.contains("health") && !line.ends_with("lockfile");
    Ok(said.lines().map(str::trim).filter(lasting).map(str::to_owned).collect())
}
