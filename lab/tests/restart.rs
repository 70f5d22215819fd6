// SPDX-License-Identifier: Apache-2.0
//! What must survive: agents killed, upgraded and uninstalled, the API server, the kubelet and containerd away, a node rebooted, while pods talk. Needs root, `make kube` and
//! `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually, stays};
use lab::product;
use lab::suite::Suite;
use lab::traffic::{Requests, Resent, Traffic};
use serde_json::Value;

const SUITE: Suite = Suite {
    name: "restart",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[],
    manifest: Some("examples/connectivity/pods.yaml"),
    cases: &[
        ("not_a_packet_is_lost_when_agents_are_killed_and_they_adopt_what_they_find", agents_killed),
        ("not_a_packet_is_lost_when_agents_pods_are_deleted", agents_deleted),
        ("not_a_packet_is_lost_by_an_upgrade_to_another_image", upgraded),
        ("not_a_packet_is_lost_by_an_uninstall_and_the_next_install_adopts_the_pods", installed_again),
        // From here on Helm treats what is there as somebody else's.
        ("not_a_packet_is_lost_when_everything_of_ours_is_deleted_and_applied_again", deleted_and_applied),
        ("traffic_policy_and_known_pods_do_without_the_api_server", api_server_away),
        ("a_pod_deleted_while_the_agent_is_down_leaves_nothing_behind", deleted_meanwhile),
        ("kubelet_and_containerd_start_again_under_traffic", kubelet_and_containerd),
        ("a_rebooted_node_is_ready_again_without_help_and_its_pods_talk", rebooted),
    ],
};

const SECOND: &str = "quay.io/cilium-rs/cilium:second";
const FIRST: &str = "quay.io/cilium-rs/cilium:dev";

fn main() -> ExitCode {
    SUITE.main()
}

/// The machine that is no node, to which what pods send is masqueraded.
const OUTSIDE: [&str; 2] = ["192.168.77.50", "fd77::50"];

/// Runs a body while the client talks to a pod of its own node and to one of the other node over both families; nothing may be lost. With `CILIUM_ALL_TRAFFIC`
/// (`make restart`) it also talks to a machine outside, under its node's address, and asks a Service on one new connection after the other, and nothing may be
/// hidden by being sent again.
fn under_traffic(cluster: &Cluster, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let client = Netns::of_pod(cluster, "net", "client")?;
    let (mut servers, mut asked) = (servers(cluster)?, Vec::new());
    let is_all = std::env::var_os("CILIUM_ALL_TRAFFIC").is_some();
    if is_all {
        let addresses = OUTSIDE.iter().map(|one| one.parse()).collect::<Result<_, _>>()?;
        servers.push(("outside", Netns::of_stranger(cluster, "outside", &[50])?, addresses));
    }
    let all = traffic(&client, &servers)?;
    if is_all {
        let service = |to: IpAddr| Ok(Requests::start(client.try_clone()?, SocketAddr::new(to, 80), "/hostname"));
        asked = cluster.service_addresses("net", "echo")?.into_iter().map(service).collect::<Result<_>>()?;
    }
    let ends = servers.into_iter().map(|(name, netns, _)| (name, netns)).chain([("client", client)]);
    let ends = ends.map(|(name, netns)| (name.to_owned(), netns));
    let resent = is_all.then(|| Resent::start(ends)).transpose()?;
    body()?;
    all.iter().try_for_each(|one| one.goes_on(100))?;
    asked.iter().try_for_each(|one| one.goes_on(50))?;
    let outcomes = asked.into_iter().map(Requests::finish).chain(all.into_iter().map(Traffic::finish));
    // All of them end, whatever one says.
    outcomes.collect::<Vec<_>>().into_iter().collect::<Result<()>>()?;
    resent.map_or(Ok(()), Resent::finish)
}

/// Who is talked to, with the addresses.
type Server = (&'static str, Netns, Vec<IpAddr>);

fn servers(cluster: &Cluster) -> Result<Vec<Server>> {
    let server = |pod| Ok((pod, Netns::of_pod(cluster, "net", pod)?, cluster.pod_addresses("net", pod)?));
    ["near", "far"].into_iter().map(server).collect()
}

/// What flows between the client and each address, once it does.
fn traffic(client: &Netns, servers: &[Server]) -> Result<Vec<Traffic>> {
    let addresses = servers.iter().flat_map(|(_, netns, addresses)| addresses.iter().map(move |to| (netns, *to)));
    let ports = (7100..).step_by(10);
    let all: Vec<_> = addresses
        .zip(ports)
        .map(|((server, to), port)| Traffic::between(client, server, to, port))
        .collect::<Result<_>>()?;
    all.iter().try_for_each(|one| one.goes_on(50))?;
    Ok(all)
}

/// The pinned links and maps of a node, each with the id it keeps until it is pinned anew. The health
/// endpoint goes with its agent and is created anew.
fn pins(cluster: &Cluster, node: &str) -> Result<String> {
    cluster.shell(
        node,
        "cd /sys/fs/bpf/cilium/v1 && find links maps -type f -printf '%i %p\\n' | grep -v lxc_health | sort -k 2",
    )
}

/// The same, once the programs of all pods are attached by links: nodes on which pods have just started use filters at first (ADR 0014).
fn settled_pins(cluster: &Cluster, node: &str) -> Result<String> {
    let devices = cluster.shell(node, "ip -o link | grep -o 'lxc[0-9a-f]\\{12\\}' | sort -u")?;
    ensure!(!devices.is_empty(), "{node} has no pods");
    eventually(Duration::from_secs(60), "links of every pod", || {
        let pins = pins(cluster, node)?;
        let linked = |device: &str| {
            ["ingress", "egress"].iter().all(|way| pins.contains(&format!("links/pod_{device}_{way}\n")))
        };
        ensure!(devices.lines().all(linked), "pods on {devices}, pinned are\n{pins}");
        Ok(pins)
    })
}

fn agent_process(cluster: &Cluster, node: &str) -> Result<String> {
    cluster.shell(node, "pgrep -f '^cilium-agent' | head -n 1")
}

fn agents_killed(cluster: &Cluster) -> Result<()> {
    let before: Vec<_> = cluster.nodes().iter().map(|node| settled_pins(cluster, node)).collect::<Result<_>>()?;
    ensure!(before.iter().all(|pins| pins.contains("maps/")), "{before:?}");
    under_traffic(cluster, || {
        for node in cluster.nodes() {
            let old = agent_process(cluster, &node)?;
            cluster.fault("kill", &format!("{node}/agent"))?;
            eventually(Duration::from_secs(60), "another agent", || {
                let new = agent_process(cluster, &node)?;
                ensure!(!new.is_empty() && new != old, "there is '{new}' after '{old}'");
                Ok(())
            })?;
        }
        eventually(Duration::from_secs(60), "agents are healthy", || {
            cluster
                .nodes()
                .iter()
                .try_for_each(|node| cluster.shell(node, "curl -fsS http://127.0.0.1:9879/healthz").map(drop))
        })?;
        product::ready(cluster)
    })?;
    let after: Vec<_> = cluster.nodes().iter().map(|node| pins(cluster, node)).collect::<Result<_>>()?;
    assert_eq!(after, before, "links and maps are adopted, not made anew");
    Ok(())
}

fn agents_deleted(cluster: &Cluster) -> Result<()> {
    under_traffic(cluster, || {
        cluster.kubectl(&["delete", "pod", "--namespace=kube-system", "--selector=k8s-app=cilium"])?;
        product::ready(cluster)
    })
}

/// Upgrades to the image in `CILIUM_NEXT_IMAGE` (`make upgrade`, with an older build installed), else to the same image under another name.
fn upgraded(cluster: &Cluster) -> Result<()> {
    if let Some(next) = std::env::var_os("CILIUM_NEXT_IMAGE") {
        product::load(cluster, next.into())?;
    }
    let tag = |node: &String| {
        let ctr = "ctr --address /run/containerd/containerd.sock --namespace k8s.io images tag --force";
        cluster.shell(node, &format!("{ctr} {FIRST} {SECOND}")).map(drop)
    };
    cluster.nodes().iter().try_for_each(tag)?;
    under_traffic(cluster, || product::upgrade(cluster, &["image.tag=second"]))?;
    let images = cluster.kubectl(&[
        "get",
        "pods",
        "--namespace=kube-system",
        "--selector=k8s-app=cilium",
        "-o=jsonpath={..image}",
    ])?;
    ensure!(images.contains(SECOND), "{images}");
    under_traffic(cluster, || product::upgrade(cluster, &["image.tag=dev"]))
}

/// The endpoint number of each pod.
fn endpoints(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let all = cluster.get(&["ciliumendpoints", "--all-namespaces"])?;
    let items = all["items"].as_array().context("no CiliumEndpoints")?;
    let row =
        |item: &Value| (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item["status"]["id"].clone());
    Ok(items.iter().map(row).collect())
}

/// Removes everything of ours except what is on the nodes and brings it back under traffic; links, maps and endpoints must be the same afterwards.
fn adopted(cluster: &Cluster, away: impl FnOnce() -> Result<()>, back: impl FnOnce() -> Result<()>) -> Result<()> {
    let known = || cluster.nodes().iter().map(|node| settled_pins(cluster, node)).collect::<Result<Vec<_>>>();
    let (before, numbers) = (known()?, endpoints(cluster)?);
    ensure!(["client", "near", "far"].iter().all(|pod| numbers.contains_key(*pod)), "{numbers:?}");
    under_traffic(cluster, || {
        away()?;
        for node in cluster.nodes() {
            eventually(Duration::from_secs(60), "no agent", || {
                ensure!(agent_process(cluster, &node)?.is_empty(), "it runs");
                Ok(())
            })?;
        }
        stays(Duration::from_secs(5), "nodes without an agent are ready", || {
            cluster.nodes_ready(Duration::from_secs(1)).map(drop)
        })?;
        back()
    })?;
    assert_eq!(known()?, before, "links and maps are adopted, not made anew");
    for node in cluster.nodes() {
        let agent = product::in_agent(cluster, &node, &["cilium-dbg", "endpoint", "list", "-o", "json"])?;
        let agent: Vec<Value> = serde_json::from_str(&agent)?;
        let known = |one: &Value| numbers.values().any(|id| *id == one["id"]);
        ensure!(
            agent.iter().filter(|one| known(one)).count() > 1,
            "{node} has {agent:?}, before there were {numbers:?}"
        );
    }
    assert_eq!(endpoints(cluster)?, numbers, "endpoints are adopted, not made anew");
    Ok(())
}

fn deleted_and_applied(cluster: &Cluster) -> Result<()> {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifest.yaml");
    std::fs::write(&file, product::told(cluster, "manifest")?)?;
    let path = file.display().to_string();
    let away = || cluster.kubectl(&["delete", "--filename", &path, "--timeout=90s"]).map(drop);
    adopted(cluster, away, || {
        cluster.apply_file(&file)?;
        product::ready(cluster)
    })
}

fn installed_again(cluster: &Cluster) -> Result<()> {
    let away = || product::uninstall(cluster).map(drop);
    adopted(cluster, away, || product::install(cluster, SUITE.values).map(drop))
}

fn api_server_away(cluster: &Cluster) -> Result<()> {
    let policy = product::repository("examples/policy/client-to-http.yaml");
    cluster.apply_file(&policy)?;
    let client = Netns::of_pod(cluster, "net", "client")?;
    let near = Netns::of_pod(cluster, "net", "near")?;
    let to = cluster.pod_addresses("net", "far")?;
    let _denied = Netns::of_pod(cluster, "net", "far")?.listen(9090)?;
    let holds = || -> Result<()> {
        for one in &to {
            client.connect(SocketAddr::new(*one, 8080)).context("what the policy allows")?;
            let denied = std::net::TcpStream::connect_timeout;
            let open = client.run(|| Ok(denied(&SocketAddr::new(*one, 9090), Duration::from_millis(300)).is_ok()))?;
            ensure!(!open, "{one} is reached on a port that the policy does not allow");
        }
        Ok(())
    };
    eventually(Duration::from_secs(30), "the policy", holds)?;
    cluster.fault("stop", "apiserver")?;
    let meanwhile = (|| {
        // The kubelet notices that the sandbox is gone and creates another: CNI DEL and ADD of a known pod.
        let old = near.identity()?;
        let kill = format!(
            "for p in $(pgrep -x pause); do [ \"$(readlink /proc/$p/ns/net)\" = '{old}' ] && kill -9 $p; done; true"
        );
        cluster.shell("node1", &kill)?;
        let find = "for p in $(pgrep -f netexec); do [ \"$(cat /proc/$p/root/etc/hostname 2>/dev/null)\" = near ] && readlink /proc/$p/ns/net; done; true";
        eventually(Duration::from_secs(60), "the pod in another sandbox", || match cluster.shell("node1", find)? {
            new if new.is_empty() || new == old => bail!("it is in '{new}'"),
            _ => Ok(()),
        })?;
        stays(Duration::from_secs(60), "traffic and policy", holds)
    })();
    cluster.fault("restore", "apiserver")?;
    eventually(Duration::from_secs(60), "the API server", || cluster.kubectl(&["get", "--raw", "/readyz"]))?;
    meanwhile?;
    cluster.kubectl(&["delete", "--filename", &policy.display().to_string()])?;
    product::ready(cluster)?;
    let talks = || -> Result<()> {
        for to in cluster.pod_addresses("net", "near")? {
            client.connect(SocketAddr::new(to, 8080))?;
        }
        Ok(())
    };
    eventually(Duration::from_secs(60), "the pod with the new sandbox talks", talks)
}

/// What pods have on a node, in the kernel and on disk.
fn left(cluster: &Cluster, node: &str) -> Result<String> {
    let links = "ip -o link | grep -o 'lxc[0-9a-f]\\{12\\}' | sort -u";
    let routes = "ip route show proto static; ip -6 route show proto static";
    let files =
        "ls /var/run/cilium/state; ls /var/run/cilium/deleteQueue | grep -v lockfile; ls /sys/fs/bpf/cilium/v1/links";
    // The health endpoint comes and goes with the agent.
    cluster.shell(node, &format!("({links}; {routes}; {files}) | grep -v lxc_health; true"))
}

fn deleted_meanwhile(cluster: &Cluster) -> Result<()> {
    let before = left(cluster, "node2")?;
    let overrides = r#"--overrides={"spec":{"nodeName":"node2","terminationGracePeriodSeconds":0}}"#;
    let image = "--image=registry.k8s.io/e2e-test-images/agnhost:2.63.0";
    cluster.kubectl(&["run", "short-lived", "--namespace=net", image, overrides, "--", "pause"])?;
    cluster.pods_ready("net", "run=short-lived", Duration::from_secs(60))?;
    let address = cluster.pod_addresses("net", "short-lived")?[0].to_string();
    let with_pod = left(cluster, "node2")?;
    ensure!(with_pod != before && with_pod.contains(&address), "{with_pod}");

    let agents = |selector: &str| {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{selector}}}}}}}}}"#);
        cluster.kubectl(&["patch", "--namespace=kube-system", "daemonset/cilium", "--type=merge", "--patch", &patch])
    };
    agents(r#"{"nowhere":"true"}"#)?;
    eventually(Duration::from_secs(60), "no agent", || {
        ensure!(agent_process(cluster, "node2")?.is_empty(), "it runs");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "--namespace=net", "short-lived", "--timeout=60s"])?;
    agents(r#"{"nowhere":null}"#)?;
    product::ready(cluster)?;
    eventually(Duration::from_secs(60), "nothing of the pod", || {
        let now = left(cluster, "node2")?;
        ensure!(now == before, "before the pod:\n{before}\nnow:\n{now}");
        let known = product::in_agent(cluster, "node2", &["cilium-dbg", "bpf", "endpoint", "list"])?;
        ensure!(
            !known
                .split_whitespace()
                .any(|word| word.starts_with(&address) && !word[address.len()..].starts_with(char::is_numeric)),
            "{known}"
        );
        Ok(())
    })
}

fn kubelet_and_containerd(cluster: &Cluster) -> Result<()> {
    under_traffic(cluster, || {
        for service in ["kubelet", "containerd"] {
            cluster.fault("kill", &format!("node1/{service}"))?;
        }
        cluster.nodes_ready(Duration::from_secs(60))?;
        let overrides = r#"--overrides={"spec":{"nodeName":"node1","terminationGracePeriodSeconds":0}}"#;
        let image = "--image=registry.k8s.io/e2e-test-images/agnhost:2.63.0";
        cluster.kubectl(&["run", "afterwards", "--namespace=net", image, overrides, "--", "pause"])?;
        cluster.pods_ready("net", "run=afterwards", Duration::from_secs(90))?;
        cluster.kubectl(&["delete", "pod", "--namespace=net", "afterwards", "--timeout=60s"]).map(drop)
    })
}

fn rebooted(cluster: &Cluster) -> Result<()> {
    let restarts = || -> Result<u32> {
        let path = "-o=jsonpath={.status.containerStatuses[0].restartCount}";
        Ok(cluster.kubectl(&["get", "pod", "--namespace=net", "far", path])?.trim().parse()?)
    };
    let before = restarts()?;
    cluster.fault("reboot", "node2")?;
    eventually(Duration::from_secs(120), "the node's pod started again", || {
        let now = restarts()?;
        ensure!(now > before, "{now} restarts");
        Ok(())
    })?;
    cluster.kubectl(&["wait", "--all-namespaces", "pod", "--all", "--for=condition=Ready", "--timeout=120s"])?;
    product::ready(cluster)?;
    for to in cluster.pod_addresses("net", "far")? {
        let url = format!("http://{}/hostname", SocketAddr::new(to, 8080));
        eventually(Duration::from_secs(30), "the client reaches the pod", || {
            let said = cluster.exec("net", "client", &["curl", "-sS", "-m", "5", &url])?;
            ensure!(said.trim() == "far", "{said}");
            Ok(())
        })?;
    }
    under_traffic(cluster, || Ok(()))
}
