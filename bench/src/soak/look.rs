// SPDX-License-Identifier: Apache-2.0
//! Inspects the nodes: the contents of maps by meaning, what pods leave behind, and the agents' memory.

use std::collections::BTreeSet;
use std::fs;
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

/// The maps once they have been stable for a while.
pub(super) fn steady(cluster: &Cluster, node: &str) -> Result<Lines> {
    let mut last = Lines::new();
    clock::poll(super::REST, Duration::from_secs(5), || {
        let now = maps(cluster, node)?;
        let before = std::mem::replace(&mut last, now);
        ensure!(before == last, "the maps change still:\n{}", one_sided(node, &before, &last).join("\n"));
        Ok(last.clone())
    })
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

/// Samples of the agents' resident memory and open files.
#[derive(Debug, Default)]
pub(super) struct Memory {
    samples: Vec<(&'static str, u64)>,
    last: Option<std::time::Instant>,
}

impl Memory {
    const EVERY: Duration = Duration::from_secs(15);
    /// How much larger an agent may be after the soak than after a fresh start: a share, and a minimum in KiB.
    const FACTOR: u64 = 2;
    const SLACK_KIB: u64 = 16 * 1024;
    /// How many more files than after a start an agent may have open: mostly connections.
    const FILES: usize = 32;

    /// Takes a sample if one is due. The agent may just be restarting.
    pub(super) fn sample(&mut self, cluster: &Cluster) {
        if self.last.is_some_and(|last| last.elapsed() < Self::EVERY) {
            return;
        }
        self.last = Some(clock::now());
        for node in NODES {
            self.samples.extend(cluster.agent(node).and_then(resident).map(|kib| (node, kib)));
        }
    }

    /// Compares the agents and the largest sample with the same agents after a restart. They have seen at least the end of the soak.
    pub(super) fn is_flat(&self, cluster: &Cluster) -> Result<()> {
        let mut faulty = Vec::new();
        for node in NODES {
            let largest = self.samples.iter().filter(|(of, _)| *of == node).map(|(_, kib)| *kib).max();
            let (used, open) = (resident(cluster.agent(node)?)?, open_files(cluster.agent(node)?)?);
            cluster.replace_agent(node)?;
            super::rested(cluster)?;
            let (fresh, open_fresh) = (resident(cluster.agent(node)?)?, open_files(cluster.agent(node)?)?);
            let largest = largest.unwrap_or_default();
            eprintln!(
                "{node}: {largest} KiB at most, {used} KiB and {open} files at the end, {fresh} KiB and {open_fresh} after a start"
            );
            if largest.max(used) > fresh * Self::FACTOR + Self::SLACK_KIB {
                faulty.push(format!("{node}: {largest} KiB at most, {fresh} KiB after a start"));
            }
            if open > open_fresh + Self::FILES {
                faulty.push(format!("{node}: {open} open files, {open_fresh} after a start"));
            }
        }
        if faulty.is_empty() { Ok(()) } else { bail!("{}", faulty.join("; ")) }
    }
}

/// KiB of a process.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).context("VmRSS is no number")
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).context("the agent has ended")?.count())
}
