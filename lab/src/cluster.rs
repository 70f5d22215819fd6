// SPDX-License-Identifier: Apache-2.0
//! A cluster: up and down.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::bridge::{self, PodRange};
use crate::cgroup::Hierarchy;
use crate::progress::Progress;
use crate::state::{self, Lab, Spec};
use crate::topology::CONTROL;
use crate::{addons, certs, clock, control, images, node, run};

/// What is required of this machine, and how to get it.
const TOOLS: [&str; 4] = ["ip", "nsenter", "runc", "mount"];
const PARTS: [&str; 8] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "containerd",
    "containerd-shim-runc-v2",
];

/// Brings up a lab; an existing one of the same name is taken down first.
pub(crate) fn up(spec: Spec, progress: Progress) -> Result<Lab> {
    check(&spec)?;
    if state::folder(&spec.name).exists() {
        progress.step("the lab that was here", || down(&spec.name).map(|()| "taken down".to_owned()))?;
    }
    let lab = Lab::create(spec)?;
    progress.step("certificates", || certs::write_all(&lab).map(|()| "one authority, kubeconfigs".to_owned()))?;
    progress.step("machines", || machines(&lab))?;
    let places = lab.spec.topology.places();
    thread::scope(|scope| {
        let loading = scope.spawn(|| images::load(&lab, &images::own(&lab)));
        progress.step("control plane", || api_ready(&lab))?;
        let mut ranges = Vec::new();
        progress.step("nodes", || {
            ranges = registered(&lab)?;
            Ok(places.iter().map(|place| place.name.as_str()).collect::<Vec<_>>().join(", "))
        })?;
        progress.step("cluster DNS", || addons::install_dns(&lab).map(|()| "applied".to_owned()))?;
        if lab.spec.bridge_cni {
            progress.step("bridge network", || {
                bridge::install(&lab, &places, &ranges).map(|()| "plugins and routes".to_owned())
            })?;
        }
        progress.step("images", || {
            let nodes = loading.join().unwrap_or_else(|_| Err(anyhow!("a thread ended")))?;
            Ok(format!("{} on {nodes} nodes", images::own(&lab).len()))
        })
    })?;
    Ok(lab)
}

/// Takes down a lab in any state. A lab that does not exist counts as down.
pub(crate) fn down(name: &str) -> Result<()> {
    root_only()?;
    Hierarchy::find()?.clear(name, None)?;
    let folder = state::folder(name);
    clock::poll(Duration::from_secs(10), &format!("removing {}", folder.display()), || {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    })
}

/// Finds the folder with Kubernetes' programs: the given one, or target/kube/bin above the working folder or this program.
pub(crate) fn kube_bin(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(given) = given {
        return given.canonicalize().with_context(|| format!("--kube-bin: there is no folder {}", given.display()));
    }
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let above = starts.iter().flatten().flat_map(|start| start.ancestors());
    let mut folders = above.map(|folder| folder.join("target/kube/bin"));
    let found = folders.find(|folder| folder.join("kubelet").exists());
    found.context("Kubernetes' programs are not built here: run `make kube`, or name their folder with --kube-bin")
}

fn check(spec: &Spec) -> Result<()> {
    root_only()?;
    for tool in TOOLS {
        if !run::exists(tool) {
            bail!("the '{tool}' command is missing: run scripts/bootstrap");
        }
    }
    for part in PARTS {
        if !spec.kube_bin.join(part).exists() {
            bail!("{} is missing in {}: run `make kube`", part, spec.kube_bin.display());
        }
    }
    Ok(())
}

fn root_only() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes namespaces and mounts, which only root may: call it with sudo");
    }
    Ok(())
}

fn machines(lab: &Lab) -> Result<String> {
    control::start(lab)?;
    let port =
        fs::read_to_string(lab.machine(CONTROL).join("port")).context("no port was chosen for the API server")?;
    certs::write_admin_kubeconfig(lab, port.parse().context("the port is not a number")?)?;
    let places = lab.spec.topology.places();
    for place in &places {
        node::start(lab, place)?;
    }
    Ok(format!("control plane and {} nodes are on", places.len()))
}

fn api_ready(lab: &Lab) -> Result<String> {
    clock::poll(Duration::from_secs(60), "the API server", || {
        run::output(lab.kubectl().args(["get", "--raw", "/readyz", "--request-timeout=2s"]))
    })
    .with_context(|| last_words(lab, CONTROL, "kube-apiserver"))?;
    state::write(&lab.ready_mark(), "")?;
    Ok("the API server is ready".to_owned())
}

/// Waits until every node has pod ranges, and returns them.
fn registered(lab: &Lab) -> Result<Vec<PodRange>> {
    let places = lab.spec.topology.places();
    let mut ranges = Vec::new();
    for place in &places {
        let cidrs = clock::poll(Duration::from_secs(60), "registering the nodes", || pod_cidrs(lab, &place.name))
            .with_context(|| last_words(lab, &place.name, "kubelet"))?;
        for cidr in cidrs {
            if let Some(via) = place.addresses.iter().find(|address| address.is_ipv6() == cidr.contains(':')) {
                ranges.push(PodRange { cidr, node: place.name.clone(), via: *via });
            }
        }
    }
    bridge::route_from_control(lab, &ranges)?;
    Ok(ranges)
}

/// The pod ranges that Kubernetes assigned to a node; fails if there are none yet.
fn pod_cidrs(lab: &Lab, node: &str) -> Result<Vec<String>> {
    let text = run::output(lab.kubectl().args(["get", "node", node, "-o", "json"]))?;
    let object: Value = serde_json::from_str(&text).context("kubectl did not answer in JSON")?;
    let cidrs = object.pointer("/spec/podCIDRs").and_then(Value::as_array).cloned().unwrap_or_default();
    if cidrs.is_empty() {
        bail!("{node} has no pod CIDR yet");
    }
    Ok(cidrs.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn last_words(lab: &Lab, machine: &str, service: &str) -> String {
    let log = lab.machine(machine).join("log").join(format!("{service}.log"));
    format!("the end of {}:\n{}", log.display(), run::tail(&log, 12))
}
