// SPDX-License-Identifier: Apache-2.0
//! What the README tells to type works where nothing else was chosen: IPv4 only, the chart's defaults, and kube-proxy that was there already. Needs root,
//! `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::own::Own;
use lab::probe::{Cluster, eventually};
use lab::product;

const LAB: &str = env!("CARGO_BIN_EXE_cilium-lab");

#[test]
fn what_the_readme_tells_to_type_makes_a_network_beside_kube_proxy_and_with_ipv4_alone() {
    let own = Own::up(LAB, "readme", &["--ipv4", "--kube-proxy"]).unwrap();
    own.cluster
        .test("readme", |cluster| {
            let said = product::install_by_readme(cluster)?;
            ensure!(!said.contains("WARNING"), "{said}");
            cluster.apply_file(&product::repository("examples/connectivity/pods.yaml"))?;
            cluster.kubectl(&["wait", "--namespace=net", "pod", "--all", "--for=condition=Ready", "--timeout=90s"])?;
            pods_talk(cluster)?;
            commands_answer(cluster)
        })
        .unwrap();
}

fn pods_talk(cluster: &Cluster) -> Result<()> {
    let curl = |url: &str| cluster.exec("net", "client", &["curl", "-sS", "-m", "5", url]);
    for pod in ["near", "far"] {
        let addresses = cluster.pod_addresses("net", pod)?;
        ensure!(addresses.len() == 1 && addresses[0].to_string().starts_with("10."), "{pod} has {addresses:?}");
        assert_eq!(curl(&format!("http://{}:8080/hostname", addresses[0]))?.trim(), pod);
    }
    let service = cluster.get(&["service", "--namespace=net", "echo"])?["spec"]["clusterIP"].clone();
    let service = format!("http://{}/hostname", service.as_str().unwrap_or_default());
    for said in [curl("http://echo.net.svc.cluster.local/hostname")?, curl(&service)?] {
        ensure!(["near", "far"].contains(&said.trim()), "{said}");
    }
    for node in cluster.nodes() {
        let kube_proxy = cluster.node(&node, &["pgrep", "-f", "kube-proxy"])?;
        ensure!(kube_proxy.status.success(), "{node} runs no kube-proxy");
        let said = cluster.shell(&node, &format!("curl -fsS -m 5 {service}"))?;
        ensure!(["near", "far"].contains(&said.as_str()), "{node}: {said}");
    }
    Ok(())
}

/// What a user types next.
fn commands_answer(cluster: &Cluster) -> Result<()> {
    eventually(Duration::from_secs(60), "every node reaches every other", || {
        let status = product::in_agent(cluster, "node1", &["cilium-dbg", "status"])?;
        ensure!(status.contains("2/2 reachable"), "{status}");
        Ok(())
    })?;
    let status = product::in_agent(cluster, "node1", &["hubble", "status"])?;
    ensure!(status.contains("Healthcheck (via unix:///var/run/cilium/hubble.sock): Ok"), "{status}");
    let flows = product::in_agent(cluster, "node1", &["hubble", "observe", "--last=50", "--to-pod=net/far"])?;
    ensure!(flows.contains("net/client") && flows.contains("net/far"), "{flows}");
    let metrics =
        |node: &str, port: u16| cluster.shell(node, &format!("curl -fsS -m 5 http://127.0.0.1:{port}/metrics"));
    // One operator of the two leads and has something to count. Agents serve none by default.
    let counted = cluster.nodes().iter().map(|node| metrics(node, 9963)).collect::<Result<String>>()?;
    ensure!(counted.contains("cilium_operator_ipam_nodes{"), "{counted}");
    ensure!(metrics("node1", 9962).is_err(), "the agent serves metrics that nobody asked for");
    Ok(())
}
