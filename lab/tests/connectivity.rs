// SPDX-License-Identifier: Apache-2.0
//! Pods talk: to each other, to nodes, to Services and to the outside, over both families. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;
use serde_json::Value;

const SUITE: Suite = Suite {
    name: "connectivity",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("pods_reach_each_other_on_one_node_and_between_nodes_with_their_own_addresses", pods_reach_each_other),
        ("pods_reach_both_nodes_and_nodes_reach_pods", pods_and_nodes),
        ("the_outside_sees_the_nodes_address", masquerade),
        ("a_service_is_reached_by_name_over_tcp_and_udp_and_balanced", service),
        ("a_node_reaches_a_service", service_from_node),
        ("a_pod_reaches_itself_through_its_service", hairpin),
        ("names_are_resolved_over_udp_and_tcp", dns),
        ("pings_are_answered", ping),
        ("datagrams_larger_than_the_path_arrive_whole", fragments),
        ("a_packet_that_fills_the_pods_mtu_fits_into_the_tunnel", path_mtu),
        ("connections_in_the_tunnel_are_none_to_the_hosts_connection_tracking", tunnel_untracked),
        ("a_spoofed_source_is_dropped_and_seen", spoofed),
        ("a_service_without_its_backend_goes_to_the_other_one", backends_follow_pods),
        ("no_kube_proxy_runs", no_kube_proxy),
    ],
};

fn main() -> ExitCode {
    SUITE.main()
}

/// The addresses of a pod in the namespace `net`, of both families.
fn addresses(cluster: &Cluster, pod: &str) -> Result<Vec<IpAddr>> {
    let all = cluster.pod_addresses("net", pod)?;
    ensure!(all.len() == 2, "{pod} has {all:?}");
    Ok(all)
}

fn service_addresses(cluster: &Cluster, name: &str) -> Result<Vec<IpAddr>> {
    let object = cluster.get(&["service", "--namespace=net", name])?;
    let all: Vec<IpAddr> = object["spec"]["clusterIPs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str()?.parse().ok())
        .collect();
    ensure!(all.len() == 2, "{name} has {all:?}");
    Ok(all)
}

fn node_addresses(node: u8) -> [IpAddr; 2] {
    [format!("192.168.77.1{node}").parse().unwrap(), format!("fd77::1{node}").parse().unwrap()]
}

fn in_pod(cluster: &Cluster, pod: &str, command: &[&str]) -> Result<String> {
    cluster.exec("net", pod, command)
}

fn curl(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    in_pod(cluster, pod, &["curl", "-sS", "-m", "5", url]).map(|text| text.trim().to_owned())
}

fn pods_reach_each_other(cluster: &Cluster) -> Result<()> {
    let own = addresses(cluster, "client")?;
    for peer in ["near", "far"] {
        for (to, from) in addresses(cluster, peer)?.into_iter().zip(&own) {
            let at = SocketAddr::new(to, 8080);
            assert_eq!(curl(cluster, "client", &format!("http://{at}/hostname"))?, peer);
            let seen: SocketAddr = curl(cluster, "client", &format!("http://{at}/clientip"))?.parse()?;
            assert_eq!(seen.ip(), *from, "{peer} is to see the client's own address");
            let script = format!("echo hostname | nc -u -w 1 {to} 8081");
            assert_eq!(in_pod(cluster, "client", &["sh", "-c", &script])?.trim(), peer, "over UDP");
        }
    }
    Ok(())
}

fn pods_and_nodes(cluster: &Cluster) -> Result<()> {
    let client = Netns::of_pod(cluster, "net", "client")?;
    for node in [1, 2] {
        let name = format!("node{node}");
        let there = Netns::of_machine(cluster, &name)?;
        let listener = there.listen(7070)?;
        for to in node_addresses(node) {
            client.connect(SocketAddr::new(to, 7070)).with_context(|| format!("client to {name}"))?;
            listener.accept()?;
        }
        for to in addresses(cluster, "client")? {
            there.connect(SocketAddr::new(to, 8080)).with_context(|| format!("{name} to client"))?;
        }
    }
    Ok(())
}

fn masquerade(cluster: &Cluster) -> Result<()> {
    let outside = Netns::of_machine(cluster, "control")?;
    let listener = outside.listen(7070)?;
    let heard = outside.datagrams("[::]:7071".parse()?)?;
    for (pod, node) in [("client", 1), ("far", 2)] {
        let inside = Netns::of_pod(cluster, "net", pod)?;
        for (to, from) in [("192.168.77.1", node_addresses(node)[0]), ("fd77::1", node_addresses(node)[1])] {
            let to: IpAddr = to.parse()?;
            let stream = inside.connect(SocketAddr::new(to, 7070))?;
            let (_, seen) = listener.accept()?;
            assert_eq!(seen.ip().to_canonical(), from, "{pod} over TCP");
            drop(stream);

            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = inside.datagrams(any.parse()?)?;
            socket.send_to(b"question", SocketAddr::new(to, 7071))?;
            let mut room = [0; 64];
            let (count, seen) = heard.recv_from(&mut room)?;
            assert_eq!((&room[..count], seen.ip().to_canonical()), (&b"question"[..], from), "{pod} over UDP");
            heard.send_to(b"answer", seen)?;
            let (count, answered) = socket.recv_from(&mut room)?;
            assert_eq!((&room[..count], answered.ip()), (&b"answer"[..], to), "the answer finds {pod}");
        }
    }
    Ok(())
}

/// Asks a Service until every one of its backends has answered.
fn all_answer(cluster: &Cluster, pod: &str, url: &str, backends: &[&str]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let script = format!("for i in 1 2 3 4 5 6 7 8 9 10; do curl -sS -m 5 {url} || exit 1; echo; done");
    eventually(Duration::from_secs(20), url, || {
        seen.extend(in_pod(cluster, pod, &["sh", "-c", &script])?.split_whitespace().map(str::to_owned));
        ensure!(backends.iter().all(|name| seen.contains(*name)), "only {seen:?} answered");
        Ok(())
    })?;
    ensure!(seen.len() == backends.len(), "others answered too: {seen:?}");
    Ok(())
}

fn service(cluster: &Cluster) -> Result<()> {
    all_answer(cluster, "client", "http://echo.net.svc.cluster.local/hostname", &["near", "far"])?;
    let own = addresses(cluster, "client")?;
    for (to, from) in service_addresses(cluster, "echo")?.into_iter().zip(own) {
        all_answer(cluster, "client", &format!("http://{}/hostname", SocketAddr::new(to, 80)), &["near", "far"])?;
        let seen: SocketAddr =
            curl(cluster, "client", &format!("http://{}/clientip", SocketAddr::new(to, 80)))?.parse()?;
        assert_eq!(seen.ip(), from, "the backend is to see the client's own address");
        let answer = in_pod(cluster, "client", &["sh", "-c", &format!("echo hostname | nc -u -w 1 {to} 90")])?;
        ensure!(["near", "far"].contains(&answer.trim()), "over UDP {to}: '{answer}'");
    }
    Ok(())
}

fn service_from_node(cluster: &Cluster) -> Result<()> {
    for node in ["node1", "node2"] {
        for to in service_addresses(cluster, "echo")? {
            let url = format!("http://{}/hostname", SocketAddr::new(to, 80));
            for _ in 0..4 {
                let output = cluster.node(node, &["curl", "-sS", "-m", "5", &url])?;
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                ensure!(["near", "far"].contains(&said.trim()), "{node} to {url}: {said} {why}");
            }
        }
    }
    Ok(())
}

fn hairpin(cluster: &Cluster) -> Result<()> {
    for to in service_addresses(cluster, "myself")? {
        for _ in 0..3 {
            assert_eq!(curl(cluster, "client", &format!("http://{}/hostname", SocketAddr::new(to, 80)))?, "client");
        }
    }
    Ok(())
}

fn dns(cluster: &Cluster) -> Result<()> {
    let name = "kubernetes.default.svc.cluster.local";
    for server in ["10.96.0.10", "fd00:10:96::a"] {
        for over in ["+notcp", "+tcp"] {
            let words = ["dig", over, "+short", "+time=3", "+tries=2", &format!("@{server}"), name];
            assert_eq!(in_pod(cluster, "client", &words)?.trim(), "10.96.0.1", "{server} {over}");
        }
    }
    let both = in_pod(cluster, "far", &["getent", "ahosts", "echo"])?;
    for address in service_addresses(cluster, "echo")? {
        ensure!(both.contains(&address.to_string()), "echo is {both}, not {address}");
    }
    Ok(())
}

fn ping(cluster: &Cluster) -> Result<()> {
    let targets =
        [addresses(cluster, "near")?, addresses(cluster, "far")?, node_addresses(1).into(), node_addresses(2).into()];
    for to in targets.iter().flatten().copied().chain(["192.168.77.1".parse()?, "fd77::1".parse()?]) {
        for size in ["56", "4000"] {
            let said = in_pod(cluster, "client", &["ping", "-c", "1", "-W", "3", "-s", size, &to.to_string()])?;
            ensure!(said.contains("1 packets received"), "{to} with {size} octets: {said}");
        }
    }
    for to in addresses(cluster, "client")? {
        let said = cluster.node("node2", &["busybox", "ping", "-c", "1", "-W", "3", &to.to_string()])?;
        ensure!(said.status.success(), "node2 to {to}: {}", String::from_utf8_lossy(&said.stdout));
    }
    Ok(())
}

fn fragments(cluster: &Cluster) -> Result<()> {
    let client = Netns::of_pod(cluster, "net", "client")?;
    let payload: Vec<u8> = (0..20_000u32).map(|at| (at % 251) as u8).collect();
    for peer in ["near", "far"] {
        let there = Netns::of_pod(cluster, "net", peer)?;
        for to in addresses(cluster, peer)? {
            let echo = there.datagrams(SocketAddr::new(to, 7072))?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = client.datagrams(any.parse()?)?;
            let mut room = vec![0; 65_536];
            for size in [1400, 1472, 3000, 8000, 20_000] {
                socket.send_to(&payload[..size], SocketAddr::new(to, 7072))?;
                let (count, from) =
                    echo.recv_from(&mut room).with_context(|| format!("{size} octets to {peer} {to}"))?;
                ensure!(room[..count] == payload[..size], "{count} of {size} octets at {peer} {to}");
                echo.send_to(&payload[..size], from)?;
                let (count, _) =
                    socket.recv_from(&mut room).with_context(|| format!("{size} octets from {peer} {to}"))?;
                ensure!(room[..count] == payload[..size], "{count} of {size} octets back from {peer} {to}");
            }
        }
    }
    Ok(())
}

/// How many fragments a namespace has made, of packets of both families.
fn fragments_made(netns: &Netns) -> Result<u64> {
    let four = netns.counter("snmp", "Ip:", "FragCreates")?;
    let six = netns.command(&["cat", "/proc/net/snmp6"])?;
    let line = six.lines().find(|line| line.starts_with("Ip6FragCreates")).context("no Ip6FragCreates")?;
    Ok(four + line.split_whitespace().nth(1).context("no value")?.parse::<u64>()?)
}

fn path_mtu(cluster: &Cluster) -> Result<()> {
    let client = Netns::of_pod(cluster, "net", "client")?;
    let node = Netns::of_machine(cluster, "node1")?;
    let number = |text: &str| text.split_whitespace().skip_while(|word| *word != "mtu").nth(1)?.parse::<usize>().ok();
    for to in addresses(cluster, "far")? {
        let route = client.command(&["ip", "-o", "route", "get", &to.to_string()])?;
        let link = client.command(&["ip", "-o", "link", "show", "eth0"])?;
        let mtu = number(&route).or_else(|| number(&link)).context("no mtu")?;
        ensure!((1280..=1450).contains(&mtu), "a packet of {mtu} octets does not fit into the tunnel");
        let echo = Netns::of_pod(cluster, "net", "far")?.datagrams(SocketAddr::new(to, 7075))?;
        let (any, headers) = if to.is_ipv4() { ("0.0.0.0:0", 28) } else { ("[::]:0", 48) };
        let socket = client.datagrams(any.parse()?)?;
        let before = (fragments_made(&client)?, fragments_made(&node)?);
        socket.send_to(&vec![7; mtu - headers], SocketAddr::new(to, 7075))?;
        let (count, _) = echo.recv_from(&mut [0; 2000]).with_context(|| format!("{mtu} octets to {to}"))?;
        assert_eq!(count, mtu - headers);
        assert_eq!(
            (fragments_made(&client)?, fragments_made(&node)?),
            before,
            "a packet of {mtu} octets was fragmented"
        );
    }
    Ok(())
}

fn spoofed(cluster: &Cluster) -> Result<()> {
    let client = Netns::of_pod(cluster, "net", "client")?;
    for (to, other) in addresses(cluster, "far")?.into_iter().zip(["10.244.0.99", "fd00:10:244::99"]) {
        let other: IpAddr = other.parse()?;
        client.command(&["ip", "address", "replace", &other.to_string(), "dev", "lo"])?;
        let there = Netns::of_pod(cluster, "net", "far")?.datagrams(SocketAddr::new(to, 7073))?;
        there.set_read_timeout(Some(Duration::from_millis(500)))?;
        let liar = client.run(|| Ok(std::net::UdpSocket::bind(SocketAddr::new(other, 7074))?))?;
        for _ in 0..3 {
            liar.send_to(b"not mine", SocketAddr::new(to, 7073))?;
        }
        let heard = there.recv_from(&mut [0; 64]);
        let quiet = heard.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        ensure!(quiet, "far heard {heard:?} of {other}");
        eventually(Duration::from_secs(10), "the drop in hubble", || {
            let flows = product::in_agent(
                cluster,
                "node1",
                &["hubble", "observe", "--last=200", "--verdict=DROPPED", "-o=json"],
            )?;
            let of_liar = |flow: &Value| {
                flow["flow"]["IP"]["source"] == other.to_string()
                    && flow["flow"]["drop_reason_desc"] == "INVALID_SOURCE_IP"
            };
            let mut flows = flows.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            ensure!(flows.any(|flow| of_liar(&flow)), "no dropped flow names {other} and INVALID_SOURCE_IP");
            Ok(())
        })?;
    }
    Ok(())
}

fn backends_follow_pods(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["label", "--namespace=net", "pod", "near", "app-"])?;
    let url = "http://echo.net.svc.cluster.local/hostname";
    let script = format!("for i in 1 2 3 4 5 6 7 8; do curl -sS -m 5 {url} || exit 1; echo; done");
    eventually(Duration::from_secs(20), "only far answers", || {
        let seen: BTreeSet<_> =
            in_pod(cluster, "client", &["sh", "-c", &script])?.split_whitespace().map(str::to_owned).collect();
        ensure!(seen.iter().eq(["far"]), "{seen:?}");
        Ok(())
    })?;
    cluster.kubectl(&["label", "--namespace=net", "pod", "near", "app=echo"])?;
    all_answer(cluster, "client", url, &["near", "far"])
}

fn tunnel_untracked(cluster: &Cluster) -> Result<()> {
    let url = format!("http://{}/hostname", SocketAddr::new(addresses(cluster, "far")?[0], 8080));
    for _ in 0..5 {
        assert_eq!(curl(cluster, "client", &url)?, "far");
    }
    for node in cluster.nodes() {
        let tracked = cluster.shell(&node, "cat /proc/net/nf_conntrack")?;
        ensure!(tracked.contains("dport="), "nobody on {node} has connections tracked: the test shows nothing");
        ensure!(!tracked.contains("dport=8472"), "{node} tracks the tunnel:\n{tracked}");
    }
    Ok(())
}

fn no_kube_proxy(cluster: &Cluster) -> Result<()> {
    ensure!(
        !cluster.kubectl(&["get", "pods", "--all-namespaces"])?.contains("kube-proxy"),
        "a pod of kube-proxy is there"
    );
    for node in cluster.nodes() {
        let said = cluster.node(&node, &["pgrep", "-f", "kube-proxy"])?;
        ensure!(!said.status.success(), "{node} runs kube-proxy: {}", String::from_utf8_lossy(&said.stdout));
    }
    Ok(())
}
