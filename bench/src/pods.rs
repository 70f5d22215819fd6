// SPDX-License-Identifier: Apache-2.0
//! How long pods take to become Ready, compared with the same cluster on the bridge plugin; and the agent's own start.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::cluster::{Cluster, LabCommand, NAMESPACE, container};
use crate::place::enter_netns;
use crate::report::Figure;
use crate::run::Running;
use crate::{clock, stats};

const REPLICAS: usize = 20;
const LIMIT: Duration = Duration::from_secs(120);

/// Deployments of twenty pods, on both clusters alternately.
pub(crate) fn measure(ours: &Cluster, lab: &LabCommand, rounds: usize) -> Result<Vec<Figure>> {
    let bridge = Cluster::up(lab.clone(), "bench-bridge", &["--cni", "bridge", "--kube-proxy"])?;
    bridge.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"])?;
    let mut all = [(ours, "ours", Vec::new(), Vec::new()), (&bridge, "bridge plugin", Vec::new(), Vec::new())];
    for round in 0..rounds {
        for (cluster, name, each, last) in &mut all {
            eprint!("\r\x1b[K  round {} of {rounds}: {name}", round + 1);
            let times = deploy(cluster)?;
            last.push(times.iter().copied().fold(0.0, f64::max));
            each.extend(times);
        }
    }
    eprint!("\r\x1b[K");
    let reference = all.last().map_or(f64::NAN, |(_, _, _, last)| stats::median(last));
    let mut figures = Vec::new();
    for (_, name, each, last) in &all {
        figures.push(Figure::times(format!("a pod of {REPLICAS}, created to Ready"), *name, each));
        let mut figure = Figure::new(format!("all {REPLICAS} pods Ready"), *name, stats::median(last), "ms");
        // Times are inverted (reference over figure), so that more is better here too.
        figure.ratio = Some(reference / figure.value);
        figure.rounds.clone_from(last);
        figures.push(figure);
    }
    Ok(figures)
}

/// Milliseconds per pod, from its first event to Ready.
fn deploy(cluster: &Cluster) -> Result<Vec<f64>> {
    cluster.namespace()?;
    let labels = json!({"bench": "deployment"});
    let columns = "custom-columns=NAME:.metadata.name,READY:.status.conditions[?(@.type==\"Ready\")].status";
    let mut watch = cluster.kubectl_command(&["-n", NAMESPACE, "get", "pods", "-l", "bench=deployment", "--watch"]);
    let mut watch = Running::start(watch.args(["--no-headers", "-o", columns]))?;
    let (sender, seen) = mpsc::channel();
    let lines = watch.lines()?;
    std::thread::spawn(move || lines.map(|line| (clock::now(), line)).try_for_each(|line| sender.send(line)));
    cluster.apply(&[json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "pods", "namespace": NAMESPACE},
        "spec": {
            "replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                    "containers": [container()],
                },
            },
        },
    })])?;
    let mut pods = BTreeMap::new();
    let mut ready = BTreeMap::new();
    let end = clock::now() + LIMIT;
    while ready.len() < REPLICAS {
        let (when, line) = seen
            .recv_timeout(end.saturating_duration_since(clock::now()))
            .with_context(|| format!("{} of {REPLICAS} pods are Ready after {} s", ready.len(), LIMIT.as_secs()))?;
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        let begin = *pods.entry(name.to_owned()).or_insert(when);
        if words.next() == Some("True") {
            ready.entry(name.to_owned()).or_insert_with(|| clock::milliseconds(when - begin));
        }
    }
    drop(watch);
    cluster.kubectl(&["-n", NAMESPACE, "delete", "deployment", "pods", "--cascade=foreground", "--timeout=60s"])?;
    Ok(ready.into_values().collect())
}

/// From the start of the agent's process until it is ready, after a SIGKILL.
pub(crate) fn agent_start(cluster: &Cluster) -> Result<Vec<Figure>> {
    let node = "node1";
    let netns = PathBuf::from(format!("/proc/{}/ns/net", cluster.first_process(node)?));
    let new = cluster.restart_agent(node)?;
    let waiting = std::thread::spawn(move || -> Result<f64> {
        enter_netns(&netns)?;
        clock::poll(LIMIT, Duration::from_millis(5), healthy)?;
        uptime()
    });
    let ready = waiting.join().map_err(|_| anyhow::anyhow!("the thread that asks the agent ended"))??;
    let milliseconds = (ready - started(new)?) * 1e3;
    Ok(vec![Figure::new("agent, from its start to ready", "ours", milliseconds, "ms").target("< 2000 ms")])
}

/// Whether the agent in our network namespace reports that it is healthy.
fn healthy() -> Result<()> {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9879)).context("the agent does not listen")?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    if head.ends_with(b"200") { Ok(()) } else { bail!("the agent is not ready") }
}

/// Seconds since boot.
fn uptime() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    text.split_whitespace().next().and_then(|word| word.parse().ok()).context("/proc/uptime holds no number")
}

/// When a process started, in seconds since boot.
fn started(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent has ended again")?;
    // Field 22, in ticks; the second is a name in parentheses, which may contain spaces.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: f64 = fields.split_whitespace().nth(19).and_then(|word| word.parse().ok()).context("no start time")?;
    Ok(ticks / 100.0)
}
