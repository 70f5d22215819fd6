// SPDX-License-Identifier: Apache-2.0
//! For tests: our product in a lab, installed with Helm as a user installs it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::probe::Cluster;
use crate::topology::API_PORT;
use crate::{images, run};

/// Capabilities of the agent that a machine may lack: it is itself in a container then, and the runtime refuses to give what it has not.
const CAPABILITIES: [(&str, u32); 11] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("NET_ADMIN", 12),
    ("NET_RAW", 13),
    ("IPC_LOCK", 14),
    ("SYS_ADMIN", 21),
    ("SYS_RESOURCE", 24),
];

/// The release's name and namespace.
const RELEASE: [&str; 3] = ["cilium", "--namespace", "kube-system"];

/// What the lab's tests install with; a test's own values come after these and win.
const VALUES: [&str; 4] =
    ["kubeProxyReplacement=true", "ipam.mode=kubernetes", "ipv6.enabled=true", "prometheus.enabled=true"];

/// The image under test: `CILIUM_IMAGE`, or the one built by `make image`.
#[must_use]
pub fn image() -> PathBuf {
    std::env::var_os("CILIUM_IMAGE").map_or_else(|| repository("target/image/cilium.tar"), PathBuf::from)
}

/// A path of the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A program of the image, on the machine of the user.
#[must_use]
pub fn tool(name: &str) -> Command {
    Command::new(repository("target/image/root/usr/bin").join(name))
}

/// What it says when it is typed with these words.
pub fn typed(name: &str, words: &[&str]) -> Result<String> {
    run::output(tool(name).args(words)).context("make image unpacks it")
}

/// Loads another image on every node; it replaces one of the same name.
pub fn load(cluster: &Cluster, image: PathBuf) -> Result<()> {
    images::load(cluster.lab(), &[image]).map(drop)
}

/// Enables Gateway API, whose definitions users install before the chart.
pub const GATEWAY_API: &str = "gatewayAPI.enabled=true";

/// Loads the image and installs the chart with values (`key=value`), then waits until nodes and cluster DNS are Ready.
/// Answers with what Helm said.
pub fn install(cluster: &Cluster, values: &[&str]) -> Result<String> {
    if values.contains(&GATEWAY_API) {
        let definitions = cluster.lab().program("gateway-api.yaml").display().to_string();
        cluster.kubectl(&["apply", "--server-side", "-f", &definitions]).context("make kube fetches it")?;
    }
    images::load(cluster.lab(), &[image()]).context("make image builds it, or CILIUM_IMAGE names it")?;
    let said = helm(cluster, "install", values)?;
    ready(cluster)?;
    Ok(said)
}

/// Types what the README tells users to type, with the address of this cluster's API server.
pub fn install_by_readme(cluster: &Cluster) -> Result<String> {
    images::load(cluster.lab(), &[image()]).context("make image builds it, or CILIUM_IMAGE names it")?;
    let text = fs::read_to_string(repository("README.md")).context("read README.md")?;
    let (_, typed) = text.split_once("# helm install ").context("README.md shows no helm install")?;
    let mut line = String::new();
    for part in typed.lines() {
        line.push_str(part.trim_end_matches('\\'));
        if !part.ends_with('\\') {
            break;
        }
    }
    let line = line.replace("ADDRESS", &api_server(cluster)?.0.to_string());
    let mut command = program(cluster);
    command.arg("install").args(line.split_whitespace()).args(given_capabilities());
    let said = run::output(command.current_dir(repository(".")))?;
    ready(cluster)?;
    Ok(said)
}

/// Changes values of the release, as `helm upgrade --reuse-values` does, and waits until it is Ready again.
pub fn upgrade(cluster: &Cluster, values: &[&str]) -> Result<()> {
    helm(cluster, "upgrade", values)?;
    ready(cluster)
}

/// Runs `helm uninstall` and waits until the pods are gone.
pub fn uninstall(cluster: &Cluster) -> Result<String> {
    let mut command = program(cluster);
    run::output(command.arg("uninstall").args(RELEASE).args(["--wait", "--timeout", "90s"]))
}

/// What Helm knows of the release: `notes`, `values`, `manifest`.
pub fn told(cluster: &Cluster, what: &str) -> Result<String> {
    run::output(program(cluster).args(["get", what]).args(RELEASE))
}

/// Waits until agents, operator, nodes and cluster DNS are Ready.
pub fn ready(cluster: &Cluster) -> Result<()> {
    for workload in ["daemonset/cilium", "deployment/cilium-operator"] {
        cluster.kubectl(&["rollout", "status", "--namespace", "kube-system", workload, "--timeout=120s"])?;
    }
    cluster.nodes_ready(Duration::from_secs(120))?;
    cluster.kubectl(&["rollout", "status", "--namespace", "kube-system", "deployment/coredns", "--timeout=90s"])?;
    Ok(())
}

/// The API server's address for nodes.
pub fn api_server(cluster: &Cluster) -> Result<(IpAddr, u16)> {
    let addresses = cluster.lab().spec.topology.control();
    Ok((*addresses.first().context("the control plane has no address")?, API_PORT))
}

/// The agent's pod on a node.
pub fn agent(cluster: &Cluster, node: &str) -> Result<String> {
    let on = format!("spec.nodeName={node}");
    let place = ["get", "pods", "--namespace", "kube-system", "--selector", "k8s-app=cilium", "--field-selector", &on];
    let name = cluster.kubectl(&[&place[..], &["-o", "jsonpath={.items[0].metadata.name}"]].concat())?;
    Ok(name)
}

/// Runs a command in the agent's container on a node.
pub fn in_agent(cluster: &Cluster, node: &str, command: &[&str]) -> Result<String> {
    cluster.exec("kube-system", &agent(cluster, node)?, command)
}

fn helm(cluster: &Cluster, verb: &str, values: &[&str]) -> Result<String> {
    let (server, port) = api_server(cluster)?;
    let mut command = program(cluster);
    command.arg(verb).args(["cilium"]).arg(repository("deploy/helm/cilium")).args(RELEASE.get(1..).unwrap_or_default());
    if verb == "install" {
        command.args(["--set", &format!("k8sServiceHost={server}"), "--set", &format!("k8sServicePort={port}")]);
        command.args(given_capabilities());
        command.args(VALUES.iter().flat_map(|value| ["--set", value]));
    } else {
        command.arg("--reuse-values");
    }
    run::output(command.args(values.iter().flat_map(|value| ["--set", value])))
}

fn program(cluster: &Cluster) -> Command {
    let mut command = Command::new(cluster.lab().program("helm"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig());
    command
}

/// Values that leave out the agent's capabilities which this machine lacks; none if it has them all.
fn given_capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default();
    let bounds = u64::from_str_radix(bounds.trim(), 16).unwrap_or(u64::MAX);
    let list = granted_within(bounds).map(|list| format!("securityContext.capabilities.ciliumAgent={{{list}}}"));
    list.map_or_else(Vec::new, |list| vec!["--set".to_owned(), list])
}

/// The capabilities that a bounding set leaves, unless it leaves all.
fn granted_within(bounds: u64) -> Option<String> {
    let granted = CAPABILITIES.iter().filter(|(_, bit)| bounds >> bit & 1 == 1).map(|(name, _)| *name);
    let granted: Vec<&str> = granted.collect();
    (granted.len() < CAPABILITIES.len()).then(|| granted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_capabilities_that_a_machine_has_are_asked_for() {
        assert_eq!(granted_within(u64::MAX), None);
        let without = granted_within(!(1 << 24)).unwrap_or_default();
        assert!(without.contains("NET_ADMIN") && !without.contains("SYS_RESOURCE"), "{without}");
    }
}
