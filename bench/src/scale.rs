// SPDX-License-Identifier: Apache-2.0
//! The agent in a big cluster: nodes and pods that exist as objects only, written as other agents would. First with a tenth of
//! them, to show what grows faster than the cluster.

use std::fs;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::clock;
use crate::cluster::{Cluster, NAMESPACE};
use crate::pods;
use crate::report::Figure;

const NODE: &str = "node1";
/// Identities that the pods share.
const IDENTITIES: usize = 500;
/// Objects created at a time.
const BATCH: usize = 6000;
/// Pods that change.
const CHANGES: usize = 500;
/// How long the agent is observed while nothing happens except health probes.
const IDLE: Duration = Duration::from_secs(30);
/// How long an agent may take to catch up.
const PATIENCE: Duration = Duration::from_secs(120);

/// With a tenth of the objects, then with all.
pub(crate) fn measure(cluster: &Cluster, nodes: usize, pods: usize) -> Result<Vec<Figure>> {
    // It would delete objects without a Node or a pod.
    cluster.kubectl(&["-n", "kube-system", "scale", "deployment/cilium-operator", "--replicas=0", "--timeout=60s"])?;
    cluster.namespace()?;
    create(cluster, "identities", 0..IDENTITIES, identity)?;
    let mut figures = Vec::new();
    let mut there = (0, 0);
    for size in [(nodes / 10, pods / 10), (nodes, pods)] {
        create(cluster, "nodes", there.0..size.0, node)?;
        create(cluster, "pods", there.1..size.1, |number| pod(number, size.0, 0))?;
        there = size;
        figures.extend(look(cluster, size)?);
    }
    Ok(figures)
}

fn look(cluster: &Cluster, (nodes, pods): (usize, usize)) -> Result<Vec<Figure>> {
    let figure =
        |what: &str, value, unit| Figure::new(format!("{what}, {nodes} nodes, {pods} pods"), "ours", value, unit);
    let start = pods::agent_start(cluster)?.pop().context("no time of the start")?.value;
    // The kernel already has all pods: only a change that follows the lists shows that they were read.
    turn(cluster, nodes, pods - 1..pods, 1)?;
    let agent = cluster.agent(NODE)?;
    let [peak, resident] = ["VmHWM", "VmRSS"].map(|name| memory(agent, name));
    let lists = processor(agent)?;

    let begin = processor(agent)?;
    turn(cluster, nodes, 0..CHANGES, 1)?;
    let changes = processor(agent)? - begin;
    turn(cluster, nodes, 0..CHANGES, 0)?;
    turn(cluster, nodes, pods - 1..pods, 0)?;

    let begin = processor(agent)?;
    clock::breathe(IDLE);
    let idle = processor(agent)? - begin;
    Ok(vec![
        figure("agent, from its start to ready", start, "ms"),
        figure("processor time up to there", clock::milliseconds(lists), "ms"),
        figure("peak memory of the agent", peak?, "MiB"),
        figure("resident memory of the agent", resident?, "MiB"),
        figure("processor time of one changed pod", clock::milliseconds(changes) / CHANGES as f64, "ms"),
        figure("processor time while idle, with health probes", idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0, "%"),
    ])
}

/// Gives pods the identities of a turn, and waits until the agent knows the last of them.
fn turn(cluster: &Cluster, nodes: usize, numbers: Range<usize>, turn: usize) -> Result<()> {
    let last = numbers.end - 1;
    cluster.replace(&numbers.map(|number| pod(number, nodes, turn)).collect::<Vec<_>>())?;
    known(cluster, last, turn)
}

/// Waits until the agent knows a pod by the identity of that turn.
fn known(cluster: &Cluster, number: usize, turn: usize) -> Result<()> {
    let (address, identity) = (address([11, 0], number), identity_of(number, turn));
    clock::poll(PATIENCE, Duration::from_millis(200), || {
        let agent = cluster.agent_pod(NODE)?;
        let command = ["cilium-dbg", "bpf", "ipcache", "get", &address];
        let said = cluster.kubectl(&[&["-n", "kube-system", "exec", &agent, "--"][..], &command].concat())?;
        if said.contains(&identity.to_string()) { Ok(()) } else { bail!("{address} is {said}, not {identity}") }
    })
}

fn create(cluster: &Cluster, what: &str, numbers: Range<usize>, object: impl Fn(usize) -> Value) -> Result<()> {
    let end = numbers.end;
    let mut next = numbers.start;
    while next < end {
        let last = end.min(next + BATCH);
        cluster.create(&(next..last).map(&object).collect::<Vec<_>>())?;
        next = last;
        eprint!("\r\x1b[K  {next} {what}");
    }
    eprint!("\r\x1b[K");
    Ok(())
}

fn identity_of(number: usize, turn: usize) -> usize {
    20_000 + (number + turn) % IDENTITIES
}

fn address([first, second]: [u8; 2], number: usize) -> String {
    let number = number + 1;
    format!("{first}.{}.{}.{}", usize::from(second) + number / 62_500, number / 250 % 250, number % 250 + 1)
}

fn identity(number: usize) -> Value {
    let labels = json!({"k8s:app": format!("app-{number}"), "k8s:io.kubernetes.pod.namespace": NAMESPACE});
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "security-labels": labels,
        "metadata": {"name": identity_of(number, 0).to_string(), "labels": {"io.kubernetes.pod.namespace": NAMESPACE}},
    })
}

fn node(number: usize) -> Value {
    let prefix = format!("100.{}.{}.0/24", 64 + number / 250, number % 250);
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": format!("paper-{number:05}")},
        "spec": {
            "addresses": [{"type": "InternalIP", "ip": address([172, 20], number)}],
            "ipam": {"podCIDRs": [prefix]},
        },
    })
}

fn pod(number: usize, nodes: usize, turn: usize) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": {"name": format!("paper-{number:06}"), "namespace": NAMESPACE},
        "status": {
            "id": 1 + number % 60_000, "state": "ready", "identity": {"id": identity_of(number, turn)},
            "networking": {
                "addressing": [{"ipv4": address([11, 0], number)}],
                "node": address([172, 20], number % nodes.max(1)),
            },
        },
    })
}

/// A line of /proc/PID/status, in MiB.
fn memory(pid: u32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("no {name}"))? / 1024.0)
}

/// Processor time that the agent has used.
pub(crate) fn processor(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent has ended")?;
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Ok(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    #[test]
    fn every_object_has_an_address_of_its_own() {
        let all: BTreeSet<Ipv4Addr> = (0..100_000).map(|number| address([11, 0], number).parse().unwrap()).collect();
        assert_eq!(all.len(), 100_000);
        let nodes: BTreeSet<String> = (0..5000).map(|number| node(number)["spec"].to_string()).collect();
        assert_eq!(nodes.len(), 5000);
    }
}
