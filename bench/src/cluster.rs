// SPDX-License-Identifier: Apache-2.0
//! A cluster of the lab, used as a user would: `cilium lab`, `helm`, `kubectl`.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::clock;
use crate::load::PORT;
use crate::place::Place;
use crate::run;
use crate::traffic::{Arm, Shape};

/// Namespace of the benchmark's pods.
pub(crate) const NAMESPACE: &str = "bench";
/// Rules of the policy.
const RULES: u16 = 1000;
/// Concurrent calls of kubectl.
const CALLERS: usize = 6;
/// After this time a connection counts as one that nobody answers.
const SILENT_AFTER: Duration = Duration::from_millis(500);
/// How long the next agent of a node may take.
const RESTARTED: Duration = Duration::from_secs(60);
/// An image that is on every node of a lab and does nothing.
const IMAGE: &str = "registry.k8s.io/pause:3.10.2";

/// How to call the lab, kubectl and helm.
#[derive(Clone, Debug)]
pub(crate) struct LabCommand {
    program: PathBuf,
    kube_bin: PathBuf,
}

impl LabCommand {
    /// From the program of the lab and the folder of kubectl.
    pub(crate) fn new(program: &Path, kube_bin: &Path) -> Result<Self> {
        let there = |path: &Path, made_by: &str| {
            path.canonicalize().with_context(|| format!("no {} ({made_by} makes it)", path.display()))
        };
        let program = there(program, "`cargo build --package lab`")?;
        Ok(Self { program, kube_bin: there(kube_bin, "`make kube`")? })
    }

    fn lab(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--name", name]).env("CILIUM_LAB_KUBE_BIN", &self.kube_bin);
        command
    }
}

/// Which cluster to use.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterOptions {
    /// Use a lab that is up and has our chart, and leave it up.
    #[arg(long, value_name = "LAB")]
    cluster: Option<String>,
    /// The lab's program.
    #[arg(long, default_value = "target/debug/cilium-lab")]
    lab: PathBuf,
    /// The folder of kubectl and helm.
    #[arg(long, default_value = "target/kube/bin")]
    kube_bin: PathBuf,
    /// The image to use.
    #[arg(long, default_value = "target/image/cilium.tar")]
    image: PathBuf,
    /// Another value for the chart, as for `helm install --set`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) helm_set: Vec<String>,
}

impl ClusterOptions {
    /// How the lab, kubectl and helm are called.
    pub(crate) fn command(&self) -> Result<LabCommand> {
        LabCommand::new(&self.lab, &self.kube_bin)
    }

    /// The lab that is up, or one of that name with our build.
    pub(crate) fn open(&self, name: &str) -> Result<Cluster> {
        if let Some(present) = &self.cluster {
            return Cluster::adopt(self.command()?, present);
        }
        self.open_with(name, &[])
    }

    /// A lab of that name with our build and more values for the chart.
    pub(crate) fn open_with(&self, name: &str, more: &[&str]) -> Result<Cluster> {
        let build = Build { lab: name.to_owned(), image: self.image.clone(), chart: "deploy/helm/cilium".into() };
        let settings: Vec<String> = self.helm_set.iter().cloned().chain(more.iter().map(ToString::to_string)).collect();
        Cluster::with_build(self.command()?, &build, &settings)
    }
}

/// What is installed on a lab.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    /// Name of the lab.
    pub(crate) lab: String,
    pub(crate) image: PathBuf,
    pub(crate) chart: PathBuf,
}

/// A running lab. Dropping it takes it down if it was brought up for the benchmark.
#[derive(Debug)]
pub(crate) struct Cluster {
    command: LabCommand,
    name: String,
    kubeconfig: PathBuf,
    folder: PathBuf,
    adopted: bool,
}

impl Cluster {
    /// A lab that was already up.
    pub(crate) fn adopt(command: LabCommand, name: &str) -> Result<Self> {
        let kubeconfig = PathBuf::from(run::output(command.lab(name).arg("kubeconfig"))?.trim());
        let folder = kubeconfig.parent().context("the lab's kubeconfig is in no folder")?.to_owned();
        Ok(Self { command, name: name.to_owned(), kubeconfig, folder, adopted: true })
    }

    /// Brings a lab up.
    pub(crate) fn up(command: LabCommand, name: &str, arguments: &[&str]) -> Result<Self> {
        // Taken down even if it came up only in part.
        let mut cluster =
            Self { command, name: name.to_owned(), kubeconfig: PathBuf::new(), folder: PathBuf::new(), adopted: false };
        let said = run::output(cluster.command.lab(name).args(["up", "-o", "json"]).args(arguments))?;
        let said: Value = serde_json::from_str(&said).context("the lab did not answer in JSON")?;
        let field = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
        (cluster.kubeconfig, cluster.folder) = (field("kubeconfig").into(), field("folder").into());
        Ok(cluster)
    }

    /// Brings a lab up and installs a build with its chart: address pools large enough for the pods of `memory`, everything
    /// else as in the demo. Flow events and Hubble are on, as they are by default.
    pub(crate) fn with_build(command: LabCommand, build: &Build, settings: &[String]) -> Result<Self> {
        let image = build.image.canonicalize();
        let image = image.with_context(|| format!("no {} (`make image` makes it)", build.image.display()))?;
        let cluster = Self::up(command, &build.lab, &[])?;
        run::output(cluster.command.lab(&build.lab).arg("load").arg(image))?;
        let mut helm = Command::new("scripts/install-chart");
        helm.arg(&build.lab).env("CILIUM_LAB_PROGRAM", &cluster.command.program).env("CILIUM_CHART", &build.chart);
        let pools = [
            "ipam.mode=cluster-pool",
            "ipam.operator.clusterPoolIPv4PodCIDRList={10.245.0.0/16}",
            "ipam.operator.clusterPoolIPv4MaskSize=22",
            "ipam.operator.clusterPoolIPv6PodCIDRList={fd00:10:245::/104}",
            "ipam.operator.clusterPoolIPv6MaskSize=116",
        ];
        for setting in pools.into_iter().chain(settings.iter().map(String::as_str)) {
            helm.args(["--set", setting]);
        }
        run::output(&mut helm)?;
        cluster.kubectl(&["-n", "kube-system", "rollout", "status", "daemonset/cilium", "--timeout=120s"])?;
        cluster.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"])?;
        Ok(cluster)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.command.kube_bin.join(name));
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// A call of kubectl, not yet made.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.tool("kubectl");
        command.args(arguments);
        command
    }

    /// The output of kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run::output(&mut self.kubectl_command(arguments))
    }

    /// Applies objects.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        run::with_input(self.tool("kubectl").args(["apply", "--server-side", "-f", "-"]), &list.to_string()).map(drop)
    }

    /// Creates objects with several concurrent calls; none of them may exist yet.
    pub(crate) fn create(&self, objects: &[Value]) -> Result<()> {
        self.write("create", objects)
    }

    /// Replaces objects in the same way.
    pub(crate) fn replace(&self, objects: &[Value]) -> Result<()> {
        self.write("replace", objects)
    }

    fn write(&self, verb: &str, objects: &[Value]) -> Result<()> {
        let callers: Vec<Result<String>> = std::thread::scope(|scope| {
            let create = |part: &'_ [Value]| {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": part}).to_string();
                scope.spawn(move || run::with_input(self.tool("kubectl").args([verb, "-f", "-"]), &list))
            };
            let threads: Vec<_> = objects.chunks(objects.len().div_ceil(CALLERS).max(1)).map(create).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended"))).collect()
        });
        callers.into_iter().try_for_each(|said| said.map(drop))
    }

    /// Makes the namespace of our pods.
    pub(crate) fn namespace(&self) -> Result<()> {
        self.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})])
    }

    /// A command on a node, not yet run.
    pub(crate) fn on_node(&self, node: &str) -> Command {
        let mut command = self.command.lab(&self.name);
        command.args(["node", node, "--"]);
        command
    }

    /// `lab fault VERB TARGET`.
    pub(crate) fn fault(&self, verb: &str, target: &str) -> Result<()> {
        run::output(self.command.lab(&self.name).args(["fault", verb, target])).map(drop)
    }

    /// The first process of a node.
    pub(crate) fn first_process(&self, node: &str) -> Result<u32> {
        let file = self.folder.join(node).join("pid");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("{} holds no process id", file.display()))
    }

    /// A node's own bpf file system.
    pub(crate) fn bpffs(&self, node: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root/sys/fs/bpf", self.first_process(node)?)))
    }

    /// The processes of a node.
    pub(crate) fn processes(&self, node: &str) -> Result<Vec<u32>> {
        let below = format!("/lab/{}/{node}", self.name);
        let all = fs::read_dir("/proc").context("cannot list /proc")?.flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Ok(pids
            .filter(|pid| group(*pid).is_some_and(|group| group == below || group.starts_with(&format!("{below}/"))))
            .collect())
    }

    /// The processes of a machine whose program has this name.
    pub(crate) fn processes_named(&self, machine: &str, name: &str) -> Result<Vec<u32>> {
        let is_called = |pid: &u32| runs(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), name);
        Ok(self.processes(machine)?.into_iter().filter(is_called).collect())
    }

    /// The agent's process on a node.
    pub(crate) fn agent(&self, node: &str) -> Result<u32> {
        let agent = self.processes_named(node, "cilium-agent")?.first().copied();
        agent.with_context(|| format!("no agent runs on {node}"))
    }

    /// The operator's process, on one of these nodes.
    pub(crate) fn operator(&self, nodes: &[&str]) -> Result<u32> {
        for node in nodes {
            if let Some(pid) = self.processes_named(node, "cilium-operator")?.first() {
                return Ok(*pid);
            }
        }
        bail!("no operator runs on {}", nodes.join(" or "))
    }

    /// The agent's pod on a node.
    pub(crate) fn agent_pod(&self, node: &str) -> Result<String> {
        let on = format!("spec.nodeName={node}");
        let pods = ["-n", "kube-system", "get", "pods", "-l", "k8s-app=cilium", "--field-selector", &on];
        self.kubectl(&[&pods[..], &["-o=jsonpath={.items[0].metadata.name}"]].concat())
    }

    /// Kills the agent of a node and returns the next one.
    pub(crate) fn restart_agent(&self, node: &str) -> Result<u32> {
        let old = self.agent(node)?;
        self.fault("kill", &format!("{node}/agent"))?;
        self.next_agent(node, old)
    }

    /// Has the agent of a node replaced, as an upgrade does: without the kubelet's back-off, which grows to minutes with each kill.
    pub(crate) fn replace_agent(&self, node: &str) -> Result<u32> {
        let old = self.agent(node)?;
        self.kubectl(&["-n", "kube-system", "delete", "pod", &self.agent_pod(node)?])?;
        self.next_agent(node, old)
    }

    /// Waits for another agent of a node than the one with this process id.
    fn next_agent(&self, node: &str, old: u32) -> Result<u32> {
        clock::poll(RESTARTED, Duration::from_millis(20), || match self.agent(node)? {
            pid if pid == old => bail!("the agent of {node} still runs"),
            pid => Ok(pid),
        })
    }

    /// The place of a pod: its network namespace and control group.
    fn pod_place(&self, node: &str, address: IpAddr) -> Result<Place> {
        for pid in self.processes(node)? {
            // Local addresses are in the table as `32 host LOCAL` below the address.
            let table = fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
            let mut lines = table.lines().zip(table.lines().skip(1));
            if lines.any(|(line, next)| line.trim() == format!("|-- {address}") && next.contains("host LOCAL")) {
                let cgroup = unified()?.join(group(pid).unwrap_or_default().trim_start_matches('/'));
                let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
                return Ok(Place { netns: Some(netns), cgroup: Some(cgroup), ..Place::default() });
            }
        }
        bail!("no process on {node} has the address {address}")
    }

    /// Clients and servers on one and on two nodes, without and with policy. `ours` is the name of the build.
    pub(crate) fn arms(&self, ours: &str) -> Result<Vec<Arm>> {
        self.namespace()?;
        let mut pods = Vec::new();
        for policy in ["off", "on"] {
            for (name, node) in [("client", "node1"), ("near", "node1"), ("far", "node2")] {
                pods.push(pause(&format!("{name}-{policy}"), node, &json!({"bench": name, "policy": policy})));
            }
        }
        pods.extend(policies());
        self.apply(&pods)?;
        self.kubectl(&["-n", NAMESPACE, "wait", "pod", "-l", "policy", "--for=condition=Ready", "--timeout=60s"])?;
        let mut arms = Vec::new();
        for (policy, name) in [("off", ours.to_owned()), ("on", format!("{ours}, {RULES} rules"))] {
            let unserved = if policy == "off" { "refused" } else { "silent" };
            let client = self.pod(&format!("client-{policy}"), "node1")?;
            let near = self.pod(&format!("near-{policy}"), "node1")?;
            let far = self.pod(&format!("far-{policy}"), "node2")?;
            for (shape, server) in [(Shape::OneNode, near), (Shape::TwoNodes, far)] {
                let arm = Arm::new(shape, &name, client.clone(), server);
                checked(&arm, unserved)?;
                arms.push(arm);
            }
        }
        self.settled()?;
        Ok(arms)
    }

    /// The agent attaches new pods in a quick way at first, and in the way to be measured once no pod has started for a
    /// while, which an empty folder shows.
    fn settled(&self) -> Result<()> {
        for node in ["node1", "node2"] {
            let filters = self.bpffs(node)?.join("cilium/v1/filters");
            clock::poll(Duration::from_secs(30), Duration::from_millis(100), || {
                let left = fs::read_dir(&filters).map_or(0, Iterator::count);
                if left == 0 { Ok(()) } else { bail!("{left} programs on {node} are attached provisionally") }
            })?;
        }
        Ok(())
    }

    /// Where a pod is, and its addresses.
    pub(crate) fn pod(&self, name: &str, node: &str) -> Result<(Place, [IpAddr; 2])> {
        let path = "-o=jsonpath={.status.podIPs[*].ip}";
        let said = self.kubectl(&["-n", NAMESPACE, "get", "pod", name, path])?;
        let addresses: Vec<IpAddr> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [v4 @ IpAddr::V4(_), v6 @ IpAddr::V6(_)] = addresses[..] else {
            bail!("pod {name} has the addresses '{said}', expected an IPv4 and an IPv6 one")
        };
        Ok((self.pod_place(node, v4)?, [v4, v6]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.adopted {
            let _ = self.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false"]);
        } else if let Err(error) = run::output(self.command.lab(&self.name).arg("down")) {
            eprintln!("lab '{}' did not go down: {error:#}", self.name);
        }
    }
}

/// Checks that allowed connections succeed, and others fail in the expected way.
fn checked(arm: &Arm, unserved: &str) -> Result<()> {
    let address = arm.addresses[0];
    let server = arm.serve(address)?;
    let expected = [(PORT, "connected"), (PORT + 1, unserved)];
    for (port, expected) in expected {
        clock::poll(Duration::from_secs(20), Duration::from_millis(100), || {
            match arm.connect(address, port, SILENT_AFTER)? {
                seen if seen == expected => Ok(()),
                seen => bail!("{} ({}), port {port}: {seen}, expected {expected}", arm.name, arm.shape.name()),
            }
        })?;
    }
    drop(server);
    Ok(())
}

/// Whether the command line of a process starts a program of this name, wherever it lies. The operator's for clusters in no cloud
/// is called `cilium-operator-generic`.
fn runs(command_line: &[u8], name: &str) -> bool {
    let program = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
    let base = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    base.strip_suffix(b"-generic").unwrap_or(base) == name.as_bytes()
}

/// The v2 cgroup of a process.
fn group(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Where the v2 hierarchy is mounted.
fn unified() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let path = lines.find_map(|mut fields| {
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    path.context("no cgroup v2 is mounted")
}

/// A pod on a node that does nothing.
pub(crate) fn pause(name: &str, node: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container()],
        },
    })
}

/// Its container.
pub(crate) fn container() -> Value {
    json!({"name": "pause", "image": IMAGE, "imagePullPolicy": "IfNotPresent"})
}

/// Rules for both directions between clients and servers with policy; one of them allows the load.
fn policies() -> [Value; 2] {
    let ports = |port: u16| json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]);
    let rules = |peers: &str, labels: &[&str]| -> Vec<Value> {
        let selectors: Vec<Value> =
            labels.iter().map(|label| json!({"matchLabels": {"bench": label, "policy": "on"}})).collect();
        let rule = |port: u16| json!({peers: selectors, "toPorts": ports(port)});
        (0..RULES - 1).map(|index| rule(20000 + index)).chain([rule(PORT)]).collect()
    };
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        })
    };
    let servers = json!({"matchExpressions": [
        {"key": "bench", "operator": "In", "values": ["near", "far"]},
        {"key": "policy", "operator": "In", "values": ["on"]},
    ]});
    let clients = json!({"matchLabels": {"bench": "client", "policy": "on"}});
    [
        policy("servers", json!({"endpointSelector": servers, "ingress": rules("fromEndpoints", &["client"])})),
        policy("clients", json!({"endpointSelector": clients, "egress": rules("toEndpoints", &["near", "far"])})),
    ]
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn a_program_is_known_by_its_base_name_with_and_without_the_suffix_of_its_image() {
        for line in
            [&b"cilium-operator\0--x\0"[..], b"cilium-operator-generic\0", b"/usr/bin/cilium-operator-generic\0-v"]
        {
            assert!(runs(line, "cilium-operator"), "{line:?}");
        }
        for line in
            [&b""[..], b"my-cilium-operator\0", b"sh\0cilium-operator\0", b"cilium-operator-x\0", b"cilium-agent\0"]
        {
            assert!(!runs(line, "cilium-operator"), "{line:?}");
        }
        assert!(runs(b"/opt/kube/kube-apiserver\0--etcd", "kube-apiserver"));
    }
}
