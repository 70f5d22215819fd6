// SPDX-License-Identifier: Apache-2.0
//! Direct server return, where the network routes pods: a machine that is no node asks one node, and is answered by the
//! node of the backend, in the name of what it has asked; the backend sees its address. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;
use lab::traffic::get;
use serde_json::json;

const SUITE: Suite = Suite {
    name: "direct-return",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[
        "routingMode=native",
        "autoDirectNodeRoutes=true",
        "ipv4NativeRoutingCIDR=10.20.0.0/16",
        "ipv6NativeRoutingCIDR=fd00:20::/104",
        "ipam.mode=cluster-pool",
        "ipam.operator.clusterPoolIPv4PodCIDRList={10.20.0.0/16}",
        "ipam.operator.clusterPoolIPv6PodCIDRList={fd00:20::/104}",
        "loadBalancer.mode=dsr",
        "bpf.lbModeAnnotation=true",
        "loadBalancer.acceleration=best-effort",
    ],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("a_backend_of_another_node_answers_as_the_node_that_was_asked_and_sees_the_client", answered_directly),
        ("a_service_may_ask_to_be_answered_by_the_node_that_was_asked", by_annotation),
        ("a_node_serves_before_its_stack_has_the_packets", before_the_stack),
        ("what_a_client_has_sent_goes_to_a_backend_of_another_node_inside_of_a_packet", inside),
    ],
};

/// The machine that is no node.
const OUTSIDE: [&str; 2] = ["192.168.77.50", "fd77::50"];
const NODE: [&str; 2] = ["192.168.77.11", "fd77::11"];
const LONG: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    SUITE.main()
}

/// Applies a Service of both families in front of the pods of both nodes, and returns its node ports for TCP and UDP.
fn apply(cluster: &Cluster, name: &str, mode: Option<&str>) -> Result<[u16; 2]> {
    let annotations = mode.map_or(json!({}), |mode| json!({"service.cilium.io/forwarding-mode": mode}));
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "net", "annotations": annotations},
        "spec": {
            "type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "echo"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "udp", "port": 90, "targetPort": 8081, "protocol": "UDP"},
            ],
        },
    });
    cluster.apply(&object.to_string())?;
    let object = cluster.get(&["service", "--namespace=net", name])?;
    let port = |index: usize| -> Result<u16> {
        let port = object["spec"]["ports"][index]["nodePort"].as_u64().context("no node port")?;
        Ok(u16::try_from(port)?)
    };
    Ok([port(0)?, port(1)?])
}

/// What pods of both nodes see as their client when a node is asked, by who answers. A connection takes nothing from any other address.
fn seen(outside: &Netns, to: SocketAddr) -> Result<BTreeSet<(String, IpAddr)>> {
    let mut seen = BTreeSet::new();
    eventually(LONG, &format!("answers of both pods at {to}"), || {
        for _ in 0..10 {
            let pod = outside.run(|| get(to, "/hostname"))?;
            let client: SocketAddr = outside.run(|| get(to, "/clientip"))?.parse()?;
            seen.insert((pod, client.ip().to_canonical()));
        }
        let pods: BTreeSet<_> = seen.iter().map(|(pod, _)| pod.as_str()).collect();
        ensure!(pods == BTreeSet::from(["near", "far"]), "only {seen:?}");
        Ok(())
    })?;
    Ok(seen)
}

/// Asks by datagrams until both pods have answered.
fn datagrams(outside: &Netns, to: SocketAddr) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut seen = BTreeSet::new();
    eventually(LONG, &format!("datagrams of both pods from {to}"), || {
        for _ in 0..10 {
            let socket = outside.datagrams(any.parse()?)?;
            socket.send_to(b"hostname", to)?;
            let mut room = [0; 64];
            let (count, by) = socket.recv_from(&mut room).with_context(|| format!("from {to} over UDP"))?;
            ensure!(by == to, "{by} answers what {to} was asked");
            seen.insert(String::from_utf8_lossy(&room[..count]).trim().to_owned());
        }
        ensure!(seen.len() == 2, "only {seen:?}");
        Ok(())
    })
}

fn answered_directly(cluster: &Cluster) -> Result<()> {
    let outside = Netns::of_stranger(cluster, "outside", &[50])?;
    let [http, udp] = apply(cluster, "direct", None)?;
    for (own, node) in OUTSIDE.into_iter().zip(NODE) {
        let (own, node): (IpAddr, IpAddr) = (own.parse()?, node.parse()?);
        let clients = seen(&outside, SocketAddr::new(node, http))?;
        ensure!(clients.iter().all(|(_, client)| *client == own), "the backends see {clients:?}");
        datagrams(&outside, SocketAddr::new(node, udp))?;
    }
    Ok(())
}

fn by_annotation(cluster: &Cluster) -> Result<()> {
    let outside = Netns::of_stranger(cluster, "outside", &[50])?;
    let [http, _] = apply(cluster, "hidden", Some("snat"))?;
    for (own, node) in OUTSIDE.into_iter().zip(NODE) {
        let (own, node): (IpAddr, IpAddr) = (own.parse()?, node.parse()?);
        let clients: BTreeSet<_> =
            seen(&outside, SocketAddr::new(node, http))?.into_iter().map(|(_, client)| client).collect();
        ensure!(clients == BTreeSet::from([own, node]), "the backends see {clients:?}");
    }
    Ok(())
}

/// A client that makes its checksums itself, as one behind a wire does: what leaves them to a card is left to the stack.
fn before_the_stack(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        let device = cluster.shell(&node, "ip -d link show dev eth0")?;
        ensure!(device.contains("prog/xdp"), "no program before the stack on {node}: {device}");
        let says = cluster.shell(&node, "ip -d link show dev eth0 | grep -c xdpgeneric")?;
        ensure!(says.trim() == "1", "veth devices are served by the kernel, not their driver: {device}");
    }
    let outside = Netns::of_stranger(cluster, "outside", &[50])?;
    outside.command(&["ethtool", "-K", "eth0", "tx", "off"])?;
    for (name, mode) in [("early-direct", None), ("early-hidden", Some("snat"))] {
        let [http, udp] = apply(cluster, name, mode)?;
        for node in NODE {
            let node: IpAddr = node.parse()?;
            seen(&outside, SocketAddr::new(node, http))?;
            datagrams(&outside, SocketAddr::new(node, udp))?;
        }
    }
    let agent = ["exec", "--namespace=kube-system", "daemonset/cilium", "--", "cilium-dbg", "status", "--verbose"];
    let status = cluster.kubectl(&agent)?;
    let line = status.lines().find(|line| line.contains("XDP Acceleration")).context("no line about XDP")?;
    ensure!(line.trim_end().ends_with("Generic"), "{line}");
    Ok(())
}

/// By both hooks, also what a card would cut up into segments.
fn inside(cluster: &Cluster) -> Result<()> {
    product::upgrade(cluster, &["loadBalancer.dsrDispatch=ipip", "rollOutCiliumPods=true"])?;
    let agent = ["exec", "--namespace=kube-system", "daemonset/cilium", "--", "cilium-dbg", "status", "--verbose"];
    let status = cluster.kubectl(&agent)?;
    let line =
        status.lines().find(|line| line.contains("DSR Dispatch Mode")).context("no line about how it is told")?;
    ensure!(line.trim_end().ends_with("IPIP"), "{line}");
    let [http, udp] = apply(cluster, "inside", None)?;
    let outside = Netns::of_stranger(cluster, "outside", &[50])?;
    let long = "x".repeat(200_000);
    for checksums in ["on", "off"] {
        outside.command(&["ethtool", "-K", "eth0", "tx", checksums])?;
        for (own, node) in OUTSIDE.into_iter().zip(NODE) {
            let (own, node): (IpAddr, IpAddr) = (own.parse()?, node.parse()?);
            let to = SocketAddr::new(node, http);
            let clients = seen(&outside, to)?;
            ensure!(clients.iter().all(|(_, client)| *client == own), "the backends see {clients:?}");
            datagrams(&outside, SocketAddr::new(node, udp))?;
            for _ in 0..8 {
                let heard = outside.run(|| get(to, &format!("/echo?msg={long}")))?;
                // They come in pieces, with the length of each.
                let count = heard.matches('x').count();
                ensure!(count == long.len(), "{count} of {} come back from {to}", long.len());
            }
        }
    }
    Ok(())
}
