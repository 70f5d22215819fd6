// SPDX-License-Identifier: Apache-2.0
//! Gateways at the nodes' own addresses, on ports that nobody but root may bind, by proxies without any capability: as the manifest in
//! `examples/host-network` has them, asked from a machine that is no node. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;
use lab::traffic::Requests;
use serde_json::Value;

const SUITE: Suite = Suite {
    name: "host-network",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[
        product::GATEWAY_API,
        "gatewayAPI.hostNetwork.enabled=true",
        "gatewayAPI.hostNetwork.nodes.matchLabels.edge=yes",
    ],
    manifest: None,
    cases: &[
        ("a_gateway_is_at_ports_80_and_443_of_the_nodes_with_the_label", at_nodes),
        ("a_port_that_is_taken_is_told_of_and_the_other_serves", taken),
        ("no_request_fails_while_agents_and_proxies_are_replaced", replaced),
    ],
};

/// The machine that is no node.
const OUTSIDE: u8 = 50;
const NODES: [[&str; 2]; 2] = [["192.168.77.11", "fd77::11"], ["192.168.77.12", "fd77::12"]];
const LONG: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "--namespace=edge-demo";

fn main() -> ExitCode {
    SUITE.main()
}

/// Applies the manifest, once, and returns the machine that asks.
fn demo(cluster: &Cluster) -> Result<Netns> {
    if cluster.kubectl(&["get", "namespace", "edge-demo"]).is_err() {
        cluster.kubectl(&["create", "namespace", "edge-demo"])?;
        certificate(cluster)?;
        cluster.apply_file(&product::repository("examples/host-network"))?;
        cluster.pods_ready("edge-demo", "app", LONG)?;
    }
    label(cluster, &cluster.nodes()[0], "edge=yes")?;
    Netns::of_stranger(cluster, "outside", &[OUTSIDE])
}

fn certificate(cluster: &Cluster) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("cilium-edge-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    let files = ["-subj", "/CN=edge", "-keyout", "tls.key", "-out", "tls.crt"];
    let made = Command::new("openssl").current_dir(&folder).args(words).args(files).output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
    let (key, chain) = (file("key", "tls.key"), file("cert", "tls.crt"));
    cluster.kubectl(&["create", "secret", "tls", NAMESPACE, "edge-cert", &key, &chain])?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn label(cluster: &Cluster, node: &str, label: &str) -> Result<()> {
    cluster.kubectl(&["label", "--overwrite", "node", node, label]).map(drop)
}

/// The code that a URL is answered with; 000 if it is not.
fn code(from: &Netns, scheme: &str, at: &str) -> String {
    let host = if at.contains(':') { format!("[{at}]") } else { at.to_owned() };
    let words = ["curl", "--silent", "--insecure", "--max-time", "5", "--output", "/dev/null", "--write-out"];
    let url = format!("{scheme}://{host}/hostname");
    from.command(&[&words[..], &["%{http_code}", &url]].concat()).unwrap_or_else(|_| "000".to_owned())
}

fn says(from: &Netns, scheme: &str, at: &str, wanted: &str) -> Result<()> {
    eventually(LONG, &format!("{scheme} at {at} is answered with {wanted}"), || {
        let said = code(from, scheme, at);
        ensure!(said == wanted, "{said}");
        Ok(())
    })
}

fn status(cluster: &Cluster) -> Result<Value> {
    Ok(cluster.get(&["gateway", NAMESPACE, "edge"])?["status"].clone())
}

/// Status and message of whether the Gateway is programmed, and of each of its listeners.
fn programmed(status: &Value) -> Vec<(String, String)> {
    let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
    let all = [status].into_iter().chain(&listeners).filter_map(|one| one["conditions"].as_array());
    let programmed = all.flatten().filter(|one| one["type"] == "Programmed");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    programmed.map(|one| (text(&one["status"]), text(&one["message"]))).collect()
}

fn at_nodes(cluster: &Cluster) -> Result<()> {
    let outside = demo(cluster)?;
    let nodes = cluster.nodes();
    let answers = |node: usize, code: &str| {
        let mut all = ["http", "https"].into_iter().flat_map(|scheme| NODES[node].map(|at| (scheme, at)));
        all.try_for_each(|(scheme, at)| says(&outside, scheme, at, code))
    };
    answers(0, "200")?;
    answers(1, "000")?;
    eventually(LONG, "the status has the node's addresses", || {
        let status = status(cluster)?;
        let addresses = status["addresses"].as_array().cloned().unwrap_or_default();
        let addresses: Vec<_> = addresses.iter().filter_map(|one| one["value"].as_str()).collect();
        ensure!(addresses.contains(&NODES[0][0]) && !addresses.contains(&NODES[1][0]), "{status}");
        ensure!(programmed(&status).iter().all(|(holds, _)| holds == "True"), "{status}");
        Ok(())
    })?;
    label(cluster, &nodes[1], "edge=yes")?;
    answers(1, "200")?;
    label(cluster, &nodes[1], "edge-")?;
    answers(1, "000")?;
    let pods = cluster.get(&["pods", "--namespace=kube-system", "-l", "k8s-app=cilium-envoy"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let spec = &pod["spec"];
        ensure!(spec["hostNetwork"].is_null(), "{spec}");
        let capabilities = &spec["containers"][0]["securityContext"]["capabilities"];
        ensure!(capabilities["add"].is_null() && capabilities["drop"][0] == "ALL", "{capabilities}");
    }
    Ok(())
}

/// Something else of the second node has port 80 by the time that it is given the label.
fn taken(cluster: &Cluster) -> Result<()> {
    let outside = demo(cluster)?;
    let node = &cluster.nodes()[1];
    let other = Netns::of_machine(cluster, node)?.listen(80)?;
    label(cluster, node, "edge=yes")?;
    says(&outside, "https", NODES[1][0], "200")?;
    eventually(LONG, "the listener's status names port and node", || {
        let status = status(cluster)?;
        let told = programmed(&status);
        let named = told.get(1).is_some_and(|(holds, text)| {
            holds == "True" && text.contains("80/TCP") && text.contains(node) && text.contains("in use")
        });
        ensure!(named && told.get(2).is_some_and(|(_, text)| text.is_empty()), "{status}");
        Ok(())
    })?;
    drop(other);
    says(&outside, "http", NODES[1][0], "200")?;
    label(cluster, node, "edge-")
}

fn replaced(cluster: &Cluster) -> Result<()> {
    let outside = demo(cluster)?;
    let at: IpAddr = NODES[0][0].parse()?;
    says(&outside, "http", NODES[0][0], "200")?;
    let load = Requests::start(outside, SocketAddr::new(at, 80), "/hostname");
    load.goes_on(50)?;
    let node = &cluster.nodes()[0];
    for _ in 0..3 {
        // The kubelet takes its time to start it again.
        eventually(LONG, "an agent to kill", || cluster.fault("kill", &format!("{node}/agent")))?;
        load.goes_on(50)?;
    }
    product::ready(cluster)?;
    cluster.kubectl(&["rollout", "restart", "--namespace=kube-system", "daemonset/cilium-envoy"])?;
    cluster.kubectl(&["rollout", "status", "--namespace=kube-system", "daemonset/cilium-envoy", "--timeout=180s"])?;
    load.goes_on(200)?;
    load.finish()
}
