// SPDX-License-Identifier: Apache-2.0
//! The chart: installed with other values than the usual ones, told values that it does not know, and uninstalled. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "policies/cases.rs"]
mod policies;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use lab::certs;
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use lab::suite::Suite;
use serde_json::{Value, json};

const SUITE: Suite = Suite {
    name: "install",
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
    ],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("pods_get_addresses_of_the_pool_that_the_operator_hands_out", cluster_pool),
        ("native_routing_needs_no_tunnel_between_nodes", native),
        ("policies_mean_the_same_with_native_routing", policies_hold),
        ("flows_are_served_on_the_network_to_who_has_a_certificate_only", network_flows),
        ("an_upgrade_keeps_the_authority_and_agents_take_the_renewed_certificate_without_a_restart", renewed),
        ("a_value_that_is_not_known_is_named_by_helm_and_by_the_agent", unknown_value),
        ("the_address_of_the_api_server_is_found_where_kubeadm_publishes_it", cluster_info),
        ("an_uninstall_leaves_what_pods_need_and_a_command_cleans_the_node", uninstall),
        ("an_uninstall_leaves_nodes_clean_where_values_say_so_and_another_install_works", clean_uninstall),
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
    let tables = cluster.shell("node1", "nft list tables")?;
    ensure!(!tables.contains("cilium"), "there is no tunnel to be told of: {tables}");
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

fn policies_hold(cluster: &Cluster) -> Result<()> {
    policies::CASES.iter().try_for_each(|(name, hold)| hold(cluster).context(*name))
}

/// What a Secret of the product holds.
fn secret(cluster: &Cluster, name: &str) -> Result<BTreeMap<String, String>> {
    let object = cluster.get(&["secret", "--namespace=kube-system", name])?;
    let data = object["data"].as_object().with_context(|| format!("the Secret {name} is empty"))?;
    let text = |value: &Value| -> Result<String> {
        Ok(String::from_utf8(BASE64_STANDARD.decode(value.as_str().unwrap_or_default())?)?)
    };
    data.iter().map(|(key, value)| Ok((key.clone(), text(value)?))).collect()
}

/// A folder of node1 that its agent's container sees under the same name.
const FOLDER: &str = "/var/run/cilium/lab-certificates";

/// Writes a file for the agent's container on node1.
fn put(cluster: &Cluster, name: &str, text: &str) -> Result<String> {
    let path = format!("{FOLDER}/{name}");
    let script = "umask 077; mkdir -p \"${1%/*}\" && printf %s \"$2\" >\"$1\"";
    let done = cluster.node("node1", &["sh", "-c", script, "sh", &path, text])?;
    ensure!(done.status.success(), "cannot write {path}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(path)
}

/// What node1 is told of node2's flows.
fn observe(cluster: &Cluster, server: &str, flags: &[&str]) -> Result<String> {
    let command = [&["hubble", "observe", "--last=20", "-o=json", "--server", server], flags].concat();
    product::in_agent(cluster, "node1", &command)
}

fn network_flows(cluster: &Cluster) -> Result<()> {
    let ours = secret(cluster, "cilium-ca")?;
    let trusted = put(cluster, "ca.crt", &ours["ca.crt"])?;
    let trust = ["--tls-ca-cert-files", &trusted, "--tls-server-name", "node2.default.hubble-grpc.cilium.io"];
    let client = |who: &str, authority: &str, key: &str| -> Result<[String; 4]> {
        let (certificate, key) = certs::for_client(who, authority, key)?;
        let certificate = put(cluster, &format!("{who}.crt"), &certificate)?;
        let key = put(cluster, &format!("{who}.key"), &key)?;
        Ok(["--tls-client-cert-file".to_owned(), certificate, "--tls-client-key-file".to_owned(), key])
    };
    let known = client("known", &ours["ca.crt"], &ours["ca.key"])?;
    let (authority, key) = certs::new_authority("another")?;
    let stranger = client("stranger", &authority, &key)?;
    let with = |who: &[String; 4]| trust.into_iter().map(str::to_owned).chain(who.clone()).collect::<Vec<_>>();
    let (known, stranger) = (with(&known), with(&stranger));

    for server in ["192.168.77.12:4244", "[fd77::12]:4244"] {
        let encrypted = format!("tls://{server}");
        let ask = |server: &str, flags: &[String]| {
            observe(cluster, server, &flags.iter().map(String::as_str).collect::<Vec<_>>())
        };
        eventually(Duration::from_secs(30), "flows of node2", || {
            // Something to tell of.
            let to = SocketAddr::new(*cluster.pod_addresses("net", "far")?.first().context("no address")?, 8080);
            cluster.exec("net", "client", &["curl", "-sS", "-m", "5", &format!("http://{to}/hostname")])?;
            let told = ask(&encrypted, &known)?;
            let mut flows = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            ensure!(flows.any(|flow| flow["flow"]["node_name"] == "node2"), "{told}");
            Ok(())
        })?;
        let nobody = trust.map(str::to_owned);
        for (who, server, flags) in [
            ("without a certificate", encrypted.as_str(), &nobody[..]),
            ("with one of another authority", encrypted.as_str(), &stranger[..]),
            ("in plain text", server, &[][..]),
        ] {
            let answer = ask(server, flags);
            ensure!(answer.is_err(), "{server} answers {who}: {answer:?}");
        }
        ask(&encrypted, &known).context("after those that were refused")?;
    }
    cluster.node("node1", &["rm", "-r", FOLDER])?;
    Ok(())
}

/// The certificate that node2 shows to whoever asks for its flows.
fn shown(cluster: &Cluster) -> Result<String> {
    let ask = "openssl s_client -connect 192.168.77.12:4244 </dev/null 2>/dev/null | openssl x509";
    cluster.shell("node1", ask)
}

fn renewed(cluster: &Cluster) -> Result<()> {
    let (authority, server) = (secret(cluster, "cilium-ca")?, secret(cluster, "hubble-server-certs")?);
    let agent = product::agent(cluster, "node2")?;
    ensure!(shown(cluster)?.trim() == server["tls.crt"].trim(), "not the certificate of the Secret");
    product::upgrade(cluster, &["hubble.tls.auto.certValidityDuration=30"])?;
    ensure!(secret(cluster, "cilium-ca")? == authority, "the upgrade made another authority");
    let now = secret(cluster, "hubble-server-certs")?;
    ensure!(now["tls.crt"] != server["tls.crt"] && now["ca.crt"] == authority["ca.crt"], "the upgrade signed nothing");
    // The kubelet looks at the Secrets of a pod that has changed at once, and at those of others within two minutes.
    cluster.kubectl(&["annotate", "--overwrite", "--namespace=kube-system", "pod", &agent, "lab=renewed"])?;
    eventually(Duration::from_secs(150), "the agent takes the renewed certificate", || {
        ensure!(shown(cluster)?.trim() == now["tls.crt"].trim(), "it shows the one before");
        Ok(())
    })?;
    ensure!(product::agent(cluster, "node2")? == agent, "the agent of node2 was replaced");
    network_flows(cluster)
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

fn cluster_info(cluster: &Cluster) -> Result<()> {
    let (host, port) = product::api_server(cluster)?;
    let published = format!("https://{host}:{port}");
    let kubeconfig = json!({"clusters": [{"name": "", "cluster": {"server": published}}]}).to_string();
    let literal = format!("--from-literal=kubeconfig={kubeconfig}");
    cluster.kubectl(&["create", "configmap", "cluster-info", "--namespace=kube-public", &literal])?;
    product::upgrade(cluster, &["k8sServiceHost=auto", "k8sServicePort="])?;
    for workload in ["daemonset/cilium", "deployment/cilium-operator"] {
        let object = cluster.get(&["--namespace=kube-system", workload])?;
        let environment =
            object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        let value = |name: &str| environment.iter().find(|one| one["name"] == name).map(|one| one["value"].clone());
        assert_eq!(value("KUBERNETES_SERVICE_HOST"), Some(json!(host.to_string())), "{workload}");
        assert_eq!(value("KUBERNETES_SERVICE_PORT"), Some(json!(port.to_string())), "{workload}");
    }
    Ok(())
}

/// What is there of us on a node besides the plugin's file, which nothing calls any more: devices but those of pods that run, pinned programs, filters, routes and
/// files.
fn traces(cluster: &Cluster, node: &str) -> Result<String> {
    let script = "ip -o link | grep -o -E '(cilium|lxc_health)[^:@]*'; find /sys/fs/bpf -name '*cilium*'; ip route show table all proto 202; nft list tables | grep cilium; \
                  ip -6 route show table all proto 202; ls /etc/cni/net.d /var/run/cilium/state /var/run/cilium/deleteQueue 2>/dev/null | grep -i -E 'cilium|^[0-9]'; \
                  tc qdisc show | grep clsact; for d in $(ls /sys/class/net); do tc filter show dev $d ingress; tc filter show dev $d egress; done; true";
    cluster.shell(node, script)
}

fn clean(cluster: &Cluster) -> Result<()> {
    cluster.nodes().iter().try_for_each(|node| {
        eventually(Duration::from_secs(30), "a clean node", || {
            let found = traces(cluster, node)?;
            ensure!(found.is_empty(), "{node} still has:\n{found}");
            Ok(())
        })
    })
}

/// Pods on both nodes, which reach one another by their addresses.
fn talk(cluster: &Cluster) -> Result<()> {
    for pod in ["near", "far"] {
        for to in cluster.pod_addresses("net", pod)? {
            let url = format!("http://{}/hostname", SocketAddr::new(to, 8080));
            let said = cluster.exec("net", "client", &["curl", "-sS", "-m", "5", &url])?;
            ensure!(said.trim() == pod, "{url} says {said}");
        }
    }
    Ok(())
}

/// Begins to delete all pods that are not of the host's network.
fn end_pods(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "namespace", "net", "other", "--ignore-not-found", "--wait=false"])?;
    cluster.kubectl(&["scale", "--namespace=kube-system", "deployment/coredns", "--replicas=0"]).map(drop)
}

/// Returns when there are none any more.
fn no_pods(cluster: &Cluster) -> Result<()> {
    end_pods(cluster)?;
    for (kind, select) in [("namespace/net", ""), ("namespace/other", ""), ("pod", "--selector=k8s-app=kube-dns")] {
        let gone = ["wait", "--namespace=kube-system", "--for=delete", "--timeout=60s", kind, select];
        cluster.kubectl(gone.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().as_slice())?;
    }
    Ok(())
}

fn start_pods(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["scale", "--namespace=kube-system", "deployment/coredns", "--replicas=2"])?;
    cluster.apply_file(&product::repository("examples/connectivity/pods.yaml"))?;
    cluster.kubectl(&["wait", "--namespace=net", "pod", "--all", "--for=condition=Ready", "--timeout=90s"])?;
    product::ready(cluster)
}

/// The plugin on the node is the one binary, and cleans under the name of its command.
const CLEAN: &str = "ln -sf /opt/cni/bin/cilium-cni /tmp/cilium-dbg && /tmp/cilium-dbg post-uninstall-cleanup --force --all-state; rm /tmp/cilium-dbg";

fn uninstall(cluster: &Cluster) -> Result<()> {
    product::uninstall(cluster)?;
    talk(cluster).context("after the uninstall")?;
    for node in cluster.nodes() {
        let left = traces(cluster, &node)?;
        for part in ["cilium_host", "/sys/fs/bpf/cilium", "05-cilium.conflist"] {
            ensure!(left.contains(part), "{node} has no {part}, which pods and the next agent need:\n{left}");
        }
    }
    // Without an agent, the plugin keeps in mind which pods were deleted.
    no_pods(cluster)?;
    for node in cluster.nodes() {
        let said = cluster.shell(&node, CLEAN)?;
        ensure!(said.contains("removed"), "{node}: {said}");
    }
    clean(cluster)?;
    product::install(cluster, SUITE.values)?;
    start_pods(cluster)?;
    native(cluster)
}

/// With the tunnel, which leaves more than native routing does, and with pods that run.
fn clean_uninstall(cluster: &Cluster) -> Result<()> {
    let tunnel = ["cni.uninstall=true", "ipam.mode=kubernetes"];
    no_pods(cluster)?;
    product::uninstall(cluster)?;
    product::install(cluster, &tunnel)?;
    start_pods(cluster)?;
    talk(cluster)?;
    product::uninstall(cluster)?;
    clean(cluster)?;
    let devices = || cluster.shell("node1", "ip -o link | grep -o 'lxc[0-9a-f]\\{12\\}' | sort -u; true");
    ensure!(!devices()?.is_empty(), "no pod ran while the node was cleaned");
    // Kubernetes cannot delete them while there is no network at all.
    end_pods(cluster)?;
    product::install(cluster, SUITE.values)?;
    no_pods(cluster)?;
    let left = devices()?;
    ensure!(left.is_empty(), "devices of pods that are gone: {left}");
    start_pods(cluster)?;
    native(cluster)
}
