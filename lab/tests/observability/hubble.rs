// SPDX-License-Identifier: Apache-2.0
//! Hubble as a user types it: `docs/guide/hubble.md` on a cluster.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::product;
use serde_json::Value;

use crate::PATIENCE;

pub(crate) const VALUES: [&str; 6] = [
    "hubble.dropEventEmitter.enabled=true",
    "hubble.relay.enabled=true",
    "hubble.ui.enabled=true",
    "hubble.metrics.enabled={flow,tcp,drop:sourceContext=pod}",
    "hubble.export.static.enabled=true",
    "hubble.export.static.fieldMask={time,verdict,source,destination,l4,node_name}",
];

/// The port of the machine that the guide forwards to the relay.
const FORWARDED: &str = "4245";

/// A program of the test; it ends with it.
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The relay, at a port of this machine.
pub(crate) fn forward(cluster: &Cluster) -> Result<Background> {
    forward_service(cluster, "hubble-relay", FORWARDED)
}

/// `kubectl port-forward`, as the guide has it.
pub(crate) fn forward_service(cluster: &Cluster, name: &str, port: &str) -> Result<Background> {
    let deployment = format!("deployment/{name}");
    cluster.kubectl(&["rollout", "status", "--namespace=kube-system", &deployment, "--timeout=60s"])?;
    let words = ["port-forward", "--namespace=kube-system", &format!("svc/{name}"), &format!("{port}:80")];
    let child = cluster.kubectl_command().args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(Background(child))
}

/// The command, on the machine of the user.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = product::tool("hubble");
    command.args(words);
    command
}

pub(crate) fn typed(words: &[&str]) -> Result<String> {
    product::typed("hubble", words)
}

pub(crate) fn flows(lines: &str) -> Vec<Value> {
    lines.lines().filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["flow"].clone())).collect()
}

/// How often each agent was started.
pub(crate) fn restarts(cluster: &Cluster) -> Result<String> {
    let agents = ["get", "pods", "--namespace=kube-system", "--selector=k8s-app=cilium"];
    let started = "-o=jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].restartCount};{end}";
    cluster.kubectl(&[&agents[..], &[started]].concat())
}

fn ask_both(cluster: &Cluster) -> Result<()> {
    for pod in ["near", "far"] {
        let ip = cluster.pod_addresses("net", pod)?[0];
        cluster.exec("net", "client", &["curl", "-fsS", "-m", "5", &format!("http://{ip}:8080/hostname")])?;
    }
    Ok(())
}

pub(crate) fn whole_cluster(cluster: &Cluster) -> Result<()> {
    let _forward = forward(cluster)?;
    eventually(PATIENCE, "both nodes behind the relay", || {
        let said = typed(&["status"])?;
        ensure!(
            said.contains("Healthcheck (via localhost:4245): Ok") && said.contains("Connected Nodes: 2/2"),
            "{said}"
        );
        Ok(())
    })?;
    ask_both(cluster)?;
    eventually(PATIENCE, "flows of both nodes", || {
        let said = typed(&["observe", "--last=200", "--from-pod=net/client", "--to-port=8080", "-o=json"])?;
        let flows = flows(&said);
        let told: BTreeSet<(String, String)> =
            flows.iter().map(|f| (f["node_name"].to_string(), f["destination"]["pod_name"].to_string())).collect();
        for (node, pod) in [("node1", "near"), ("node1", "far"), ("node2", "far")] {
            let want = |(name, to): &&(String, String)| name.contains(node) && to.contains(pod);
            ensure!(told.iter().any(|one| want(&one)), "nothing of {pod} from {node}: {told:?}");
        }
        let times: Vec<&str> = flows.iter().filter_map(|flow| flow["time"].as_str()).collect();
        ensure!(times.is_sorted(), "not in the order of time: {times:?}");
        Ok(())
    })?;
    let nodes = typed(&["list", "nodes"])?;
    ensure!(nodes.contains("node1") && nodes.contains("node2") && nodes.matches("Connected").count() == 2, "{nodes}");
    let namespaces = typed(&["list", "namespaces"])?;
    ensure!(namespaces.lines().any(|line| line.trim_start().starts_with("net")), "{namespaces}");
    Ok(())
}

/// With `-P` nobody has to forward a port.
pub(crate) fn own_port(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["rollout", "status", "--namespace=kube-system", "deployment/hubble-relay", "--timeout=60s"])?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let forwarded = ["-P", "--port-forward-port=0", "--kubeconfig", &kubeconfig];
    ask_both(cluster)?;
    eventually(PATIENCE, "flows through a port of its own", || {
        let words = ["observe", "--last=20", "--from-pod=net/client", "--to-port=8080", "-o=json"];
        let said = typed(&[&words[..], &forwarded].concat())?;
        ensure!(!flows(&said).is_empty(), "none: {said}");
        let said = typed(&[&["list", "nodes"][..], &forwarded].concat())?;
        ensure!(said.contains("node1") && said.contains("node2"), "{said}");
        Ok(())
    })
}

/// A stream that began before an agent was killed tells of flows after it.
pub(crate) fn followed(cluster: &Cluster) -> Result<()> {
    let _forward = forward(cluster)?;
    eventually(PATIENCE, "the relay", || typed(&["status"]))?;
    let mut observe = command(&["observe", "--follow", "--from-pod=net/client", "--to-pod=net/far", "-o=json"]);
    let mut observe = Background(observe.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let told = BufReader::new(observe.0.stdout.take().context("its output")?);
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    thread::spawn(move || {
        let lines = told.lines().map_while(Result::ok).flat_map(|line| flows(&line));
        lines.filter(|flow| flow["node_name"].to_string().contains("node2")).for_each(|_| {
            counting.fetch_add(1, Ordering::Relaxed);
        });
    });
    let grows = |than: usize, what: &str| {
        eventually(PATIENCE, what, || {
            ask_both(cluster)?;
            let count = count.load(Ordering::Relaxed);
            ensure!(count > than, "{count} flows of node2");
            Ok(count)
        })
    };
    let before = grows(0, "a followed flow of node2")?;
    cluster.fault("kill", "node2/agent")?;
    product::ready(cluster)?;
    grows(before, "flows of node2's next agent in the same stream").map(drop)
}

/// What the ring of a killed agent held is on the node's disk, and the next agent, whose ring is empty, answers it through the relay.
pub(crate) fn remembered(cluster: &Cluster) -> Result<()> {
    let _forward = forward(cluster)?;
    let recorded = || -> Result<BTreeSet<String>> {
        let words = ["observe", "--since=1h", "--from-pod=net/client", "--to-pod=net/far", "-o=json"];
        let flows = flows(&typed(&words)?);
        let of_node2 = flows.iter().filter(|flow| flow["node_name"].to_string().contains("node2"));
        Ok(of_node2.map(|flow| flow["uuid"].to_string()).collect())
    };
    ask_both(cluster)?;
    let before = eventually(PATIENCE, "flows of node2", || {
        let before = recorded()?;
        ensure!(!before.is_empty(), "none");
        Ok(before)
    })?;
    // It is on disk within a second, and so before what is asked next.
    eventually(PATIENCE, "the history of node2", || {
        ask_both(cluster)?;
        let words = ["hubble", "history", "export", "--history=/var/lib/cilium/hubble", "--to-pod=net/far"];
        let kept = product::in_agent(cluster, "node2", &words)?;
        ensure!(before.iter().all(|uuid| kept.contains(uuid)), "not all of {} flows", before.len());
        Ok(())
    })?;
    cluster.fault("kill", "node2/agent")?;
    product::ready(cluster)?;
    eventually(PATIENCE, "the flows of the agent that was killed", || {
        let after = recorded()?;
        ensure!(after.is_superset(&before), "{} of {} are left", after.intersection(&before).count(), before.len());
        Ok(())
    })?;
    let stats = typed(&["stats", "--since=1h", "--namespace=net", "-o=json"])?;
    let stats: Value = serde_json::from_str(&stats)?;
    let pairs = stats["pairs"]["top"].as_array().context("pairs")?;
    let asked = |line: &Value| line["what"]["source"] == "net/client" && line["what"]["port"] == "8080/TCP";
    ensure!(pairs.iter().any(asked), "{stats}");
    Ok(())
}

/// One sample of a text of Prometheus whose line has all these parts; at least 1.
fn counted(text: &str, parts: &[&str]) -> Result<()> {
    let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    let line = line.with_context(|| format!("no line with {parts:?} in:\n{text}"))?;
    let value: f64 = line.rsplit(' ').next().unwrap_or_default().parse().with_context(|| line.to_owned())?;
    ensure!(value >= 1.0, "{line}");
    Ok(())
}

pub(crate) fn metrics(cluster: &Cluster) -> Result<()> {
    ask_both(cluster)?;
    for node in cluster.nodes() {
        eventually(PATIENCE, &format!("metrics of {node}"), || {
            let scrape =
                |port: u16| product::in_agent(cluster, &node, &["curl", "-s", &format!("localhost:{port}/metrics")]);
            let flows = scrape(9965)?;
            counted(&flows, &["hubble_flows_processed_total", "verdict=\"FORWARDED\""])?;
            counted(&flows, &["hubble_tcp_flags_total", "flag=\"SYN\""])?;
            let own = scrape(9962)?;
            counted(&own, &["cilium_endpoint_state", "state=\"ready\""])
        })?;
    }
    Ok(())
}

pub(crate) fn exported(cluster: &Cluster) -> Result<()> {
    ask_both(cluster)?;
    let file = "/var/run/cilium/hubble/events.log";
    eventually(PATIENCE, "the flow in the file", || {
        let words = ["hubble", "observe", "--input-file", file, "--to-pod=net/far", "--from-pod=net/client", "-o=json"];
        let said = product::in_agent(cluster, "node2", &words)?;
        let flow = flows(&said).pop().context("nothing of it in the file")?;
        ensure!(flow["source"]["pod_name"] == "client" && flow["l4"]["TCP"]["destination_port"] == 8080, "{flow}");
        ensure!(flow["IP"].is_null(), "the mask leaves addresses out: {flow}");
        Ok(())
    })
}

pub(crate) fn agent_down(cluster: &Cluster) -> Result<()> {
    let _forward = forward(cluster)?;
    cluster.fault("stop", "node2/agent")?;
    let told = eventually(PATIENCE, "node2 is named", || {
        let said = typed(&["status"])?;
        ensure!(said.contains("Connected Nodes: 1/2") && said.contains("node2"), "{said}");
        ask_both(cluster)?;
        let said = typed(&["observe", "--last=50", "--from-pod=net/client", "-o=json"])?;
        ensure!(flows(&said).iter().any(|flow| flow["node_name"].to_string().contains("node1")), "{said}");
        Ok(())
    });
    cluster.fault("restore", "node2/agent")?;
    told?;
    product::ready(cluster)?;
    eventually(PATIENCE, "node2 is back", || {
        let said = typed(&["status"])?;
        ensure!(said.contains("Connected Nodes: 2/2"), "{said}");
        Ok(())
    })
}
