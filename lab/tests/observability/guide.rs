// SPDX-License-Identifier: Apache-2.0
//! What users' guides type to look at an installation, where no other case does.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::product;

use crate::PATIENCE;
use crate::hubble::{Background, command, forward, typed};

/// A pod in the namespace that `hubble` takes a name without one to be in.
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: { name: my-pod, namespace: default }\nspec:\n  \
    nodeSelector: { kubernetes.io/hostname: node2 }\n  terminationGracePeriodSeconds: 1\n  containers:\n    - name: server\n      \
    image: registry.k8s.io/e2e-test-images/agnhost:2.63.0\n      args: [netexec, --http-port=8080, --udp-port=8081]\n      \
    readinessProbe: { httpGet: { path: /healthz, port: 8080 }, periodSeconds: 1 }\n";

pub(crate) fn typed_on(cluster: &Cluster) -> Result<()> {
    for selector in ["k8s-app=cilium", "name=cilium-operator", "k8s-app=hubble-relay", "k8s-app=hubble-ui"] {
        cluster.pods_ready("kube-system", selector, PATIENCE)?;
    }
    let mut status = product::tool("cilium");
    let status = status.args(["status", "--wait"]).env("KUBECONFIG", cluster.kubeconfig()).output()?;
    let said = String::from_utf8_lossy(&status.stdout);
    ensure!(
        status.status.success() && said.contains("Hubble Relay"),
        "{said}{}",
        String::from_utf8_lossy(&status.stderr)
    );
    let logs = cluster.kubectl(&["logs", "-n", "kube-system", "-l", "k8s-app=cilium", "--tail=100"])?;
    ensure!(!logs.trim().is_empty(), "the agents log nothing");
    let in_agent = |words: &[&str]| cluster.exec("kube-system", "daemonset/cilium", words);
    let endpoints = in_agent(&["cilium", "endpoint", "list"])?;
    ensure!(endpoints.contains("ready"), "{endpoints}");
    let service = cluster.kubectl(&["get", "service", "--namespace=net", "echo", "-o=jsonpath={.spec.clusterIP}"])?;
    let frontends = in_agent(&["cilium", "bpf", "lb", "list"])?;
    ensure!(frontends.contains(&service), "{service} is missing in:\n{frontends}");
    let metrics = in_agent(&["curl", "-s", "localhost:9962/metrics"])?;
    let first: Vec<&str> = metrics.lines().take(50).collect();
    ensure!(first.len() == 50 && first.iter().any(|line| line.starts_with("cilium_")), "{first:?}");
    Ok(())
}

pub(crate) fn observed(cluster: &Cluster) -> Result<()> {
    cluster.apply(POD)?;
    cluster.kubectl(&["wait", "pod", "my-pod", "--for=condition=Ready", "--timeout=60s"])?;
    let address = cluster.pod_addresses("default", "my-pod")?[0];
    let ask =
        || cluster.exec("net", "client", &["curl", "-fsS", "-m", "5", &format!("http://{address}:8080/hostname")]);
    let _forward = forward(cluster)?;
    eventually(PATIENCE, "the relay", || typed(&["status"]))?;
    let followed = follow()?;
    for words in [["--namespace", "default"], ["--pod", "my-pod"]] {
        eventually(PATIENCE, &format!("flows by {words:?}"), || {
            ask()?;
            let said = typed(&["observe", words[0], words[1]])?;
            ensure!(said.contains("default/my-pod:8080") && said.contains("net/client"), "{said}");
            let others = said.lines().filter(|line| !line.contains("default/") && !line.starts_with("EVENTS LOST"));
            let others: Vec<&str> = others.collect();
            ensure!(others.is_empty(), "also {others:?}");
            Ok(())
        })?;
    }
    eventually(PATIENCE, "a followed flow", || {
        ask()?;
        let line = followed.1.try_iter().find(|line| line.contains("default/my-pod:8080"));
        line.context("none of it").map(drop)
    })?;
    cluster.kubectl(&["delete", "pod", "my-pod", "--timeout=60s"]).map(drop)
}

/// `hubble observe --follow`, and its lines.
fn follow() -> Result<(Background, mpsc::Receiver<String>)> {
    let mut observe = command(&["observe", "--follow"]);
    let mut observe = Background(observe.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let told = BufReader::new(observe.0.stdout.take().context("its output")?);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || told.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    Ok((observe, lines))
}
