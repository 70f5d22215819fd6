// SPDX-License-Identifier: Apache-2.0
//! The chart: installed with other values than the usual ones, told values that it does not know, and uninstalled. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;

const SUITE: Suite = Suite {
    name: "install",
    command: env!("CARGO_BIN_EXE_lab"),
    options: &[],
    values: &[
        "routingMode=native",
        "autoDirectNodeRoutes=true",
        "ipv4NativeRoutingCIDR=10.20.0.0/16",
        "ipv6NativeRoutingCIDR=fd00:20::/104",
        "ipam.mode=cluster-pool",
        "ipam.operator.clusterPoolIPv4PodCIDRList={10.20.0.0/16}",
        "ipam.operator.clusterPoolIPv6PodCIDRList={fd00:20::/104}",
    ],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("pods_get_addresses_of_the_pool_that_the_operator_hands_out", cluster_pool),
        ("native_routing_needs_no_tunnel_between_nodes", native),
        ("a_value_that_is_not_known_is_named_by_helm_and_by_the_agent", unknown_value),
        ("an_uninstall_leaves_nodes_clean_and_another_install_works", uninstall),
    ],
};

fn main() -> ExitCode {
    SUITE.main()
}

fn cluster_pool(cluster: &Cluster) -> Result<()> {
    let mut ranges = Vec::new();
    for node in cluster.nodes() {
        let object = cluster.get(&["ciliumnode", &node])?;
        let own = object["spec"]["ipam"]["podCIDRs"].as_array().cloned().unwrap_or_default();
        ensure!(own.len() == 2, "{node} has {own:?}");
        ranges.extend(own.iter().map(ToString::to_string));
    }
    let before = ranges.len();
    ranges.sort();
    ranges.dedup();
    ensure!(ranges.len() == before, "two nodes have one range: {ranges:?}");
    for pod in ["client", "near", "far"] {
        let own = cluster.pod_addresses("net", pod)?;
        ensure!(
            own.len() == 2 && own[0].to_string().starts_with("10.20.") && own[1].to_string().starts_with("fd00:20:"),
            "{pod} has {own:?}"
        );
    }
    Ok(())
}

fn native(cluster: &Cluster) -> Result<()> {
    let routes = cluster.shell("node1", "ip route; ip -6 route")?;
    ensure!(
        routes.contains("via 192.168.77.12") && routes.contains("via fd77::12"),
        "node1 has no routes to node2's pods:\n{routes}"
    );
    ensure!(!routes.contains("encap"), "{routes}");
    let own = cluster.pod_addresses("net", "client")?;
    for (to, from) in cluster.pod_addresses("net", "far")?.into_iter().zip(own) {
        let url = format!("http://{}/clientip", SocketAddr::new(to, 8080));
        let seen: SocketAddr = cluster.exec("net", "client", &["curl", "-sS", "-m", "5", &url])?.trim().parse()?;
        assert_eq!(seen.ip(), from, "far is to see the client's own address");
    }
    let listener = Netns::of_machine(cluster, "control")?.listen(7070)?;
    let client = Netns::of_pod(cluster, "net", "client")?;
    for (to, node) in [("192.168.77.1", "192.168.77.11"), ("fd77::1", "fd77::11")] {
        let _stream = client.connect(SocketAddr::new(to.parse()?, 7070))?;
        assert_eq!(listener.accept()?.1.ip().to_canonical(), node.parse::<IpAddr>()?, "outside of the native range");
    }
    let said =
        cluster.exec("net", "client", &["curl", "-sS", "-m", "5", "http://echo.net.svc.cluster.local/hostname"])?;
    ensure!(["near", "far"].contains(&said.trim()), "{said}");
    Ok(())
}

fn unknown_value(cluster: &Cluster) -> Result<()> {
    product::upgrade(cluster, &["noSuchThing.enabled=true", "rollOutCiliumPods=true"])?;
    let notes = product::told(cluster, "notes")?;
    ensure!(notes.contains("noSuchThing"), "{notes}");
    eventually(Duration::from_secs(30), "the agent names it", || {
        let status = product::in_agent(cluster, "node1", &["cilium-dbg", "status", "--verbose"])?;
        ensure!(status.contains("noSuchThing"), "{status}");
        Ok(())
    })
}

/// What is there of us on a node besides the plugin's file, which nothing calls any more: devices, pinned programs, attached programs, routes and files.
fn traces(cluster: &Cluster, node: &str) -> Result<String> {
    let script = "ip -o link | grep -o -E '(cilium|lxc)[^:@]*'; find /sys/fs/bpf -name '*cilium*'; ip route show table all proto 202; \
                  ip -6 route show table all proto 202; ls /etc/cni/net.d /var/run/cilium/state 2>/dev/null | grep -i -E 'cilium|^[0-9]'; true";
    cluster.shell(node, script)
}

fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "namespace", "net", "other", "--timeout=60s"])?;
    // A pod that runs keeps its device, so let none run.
    cluster.kubectl(&["scale", "--namespace=kube-system", "deployment/coredns", "--replicas=0"])?;
    cluster.kubectl(&[
        "wait",
        "--namespace=kube-system",
        "--for=delete",
        "pod",
        "--selector=k8s-app=kube-dns",
        "--timeout=60s",
    ])?;
    product::uninstall(cluster)?;
    for node in cluster.nodes() {
        eventually(Duration::from_secs(30), "a clean node", || {
            let found = traces(cluster, &node)?;
            ensure!(found.is_empty(), "{node} still has:\n{found}");
            Ok(())
        })?;
    }
    cluster.kubectl(&["scale", "--namespace=kube-system", "deployment/coredns", "--replicas=2"])?;
    product::install(cluster, SUITE.values)?;
    cluster.apply_file(&product::repository("examples/connectivity/pods.yaml"))?;
    cluster.kubectl(&["wait", "--namespace=net", "pod", "--all", "--for=condition=Ready", "--timeout=90s"])?;
    native(cluster)
}
