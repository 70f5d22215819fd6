// SPDX-License-Identifier: Apache-2.0
//! Injects the faults of real machines.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::{self, Hierarchy};
use crate::machine::{self, Machine};
use crate::state::Lab;
use crate::supervise;
use crate::topology::{CONTROL, Place};
use crate::{clock, namespace, node, run};

/// What a fault is done to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Machine(String),
    /// A process of a machine, by its name.
    Process(String, String),
}

/// Kills a process with SIGKILL; a service restarts at once. A node loses power and stays off.
pub(crate) fn kill_target(lab: &Lab, target: &str) -> Result<String> {
    match parse(lab, target)? {
        Target::Machine(name) => power_off(lab, &name),
        Target::Process(machine, name) => {
            let count = signal(lab, &machine, &name, Signal::SIGKILL)?;
            Ok(format!("killed {count} process(es) '{name}' on {machine}"))
        }
    }
}

/// Holds a service down, freezes any other process, or switches a node off, until restored.
pub(crate) fn stop(lab: &Lab, target: &str) -> Result<String> {
    match parse(lab, target)? {
        Target::Machine(name) => power_off(lab, &name),
        Target::Process(machine, name) if is_service(lab, &machine, &name)? => {
            supervise::hold(&lab.machine(&machine), &name, true)?;
            if !named(lab, &machine, &name)?.is_empty() {
                signal(lab, &machine, &name, Signal::SIGKILL)?;
            }
            Ok(format!("{name} on {machine} is down until restored"))
        }
        Target::Process(machine, name) => {
            let count = signal(lab, &machine, &name, Signal::SIGSTOP)?;
            Ok(format!("froze {count} process(es) '{name}' on {machine}"))
        }
    }
}

/// Pulls a node's network cable.
pub(crate) fn cut(lab: &Lab, target: &str) -> Result<String> {
    let name = node_only(lab, target, "cut")?;
    link(lab, &name, "down")?;
    Ok(format!("{name} is cut off"))
}

/// Undoes all faults of a target: cable in, power on, service running, process thawed.
pub(crate) fn restore(lab: &Lab, target: &str) -> Result<String> {
    match parse(lab, target)? {
        Target::Machine(name) => {
            let place = place(lab, &name)?;
            if namespace::first_process(lab, &name).is_err() {
                node::start(lab, &place)?;
                return Ok(format!("{name} is switched on"));
            }
            link(lab, &name, "up")?;
            Ok(format!("{name} is connected"))
        }
        Target::Process(machine, name) if is_service(lab, &machine, &name)? => {
            supervise::hold(&lab.machine(&machine), &name, false)?;
            clock::poll(Duration::from_secs(10), &format!("starting {name} on {machine}"), || {
                if named(lab, &machine, &name)?.is_empty() { bail!("it does not run") } else { Ok(()) }
            })?;
            Ok(format!("{name} on {machine} is running"))
        }
        Target::Process(machine, name) => {
            let count = signal(lab, &machine, &name, Signal::SIGCONT)?;
            Ok(format!("thawed {count} process(es) '{name}' on {machine}"))
        }
    }
}

/// Kills every process of a node, discards its namespaces, and starts it again. Its disk is kept.
pub(crate) fn reboot(lab: &Lab, target: &str) -> Result<String> {
    let name = node_only(lab, target, "reboot")?;
    let place = place(lab, &name)?;
    machine::pull_plug(lab, &name)?;
    node::start(lab, &place)?;
    Ok(format!("{name} was rebooted"))
}

fn power_off(lab: &Lab, name: &str) -> Result<String> {
    if name == CONTROL {
        bail!(
            "the control plane cannot be switched off as a whole; name a part of it: apiserver, etcd, scheduler, controller-manager"
        );
    }
    machine::pull_plug(lab, name)?;
    Ok(format!("{name} is off until restored"))
}

/// `nodeN`, `nodeN/PROCESS`, or a part of the control plane.
fn parse(lab: &Lab, target: &str) -> Result<Target> {
    let nodes: Vec<String> = lab.spec.topology.places().into_iter().map(|place| place.name).collect();
    let known = |name: &str| name == CONTROL || nodes.iter().any(|node| node == name);
    match target.split_once('/') {
        Some((machine, process)) if known(machine) && !process.is_empty() => {
            Ok(Target::Process(machine.to_owned(), full_name(process).to_owned()))
        }
        None if known(target) => Ok(Target::Machine(target.to_owned())),
        None if full_name(target).starts_with("kube-") || target == "etcd" => {
            Ok(Target::Process(CONTROL.to_owned(), full_name(target).to_owned()))
        }
        _ => bail!(
            "unknown target '{target}': name a node ({}), a process of a node (node1/kubelet, node1/containerd, node1/agent, \
             node1/ANY), or a part of the control plane (apiserver, etcd, scheduler, controller-manager)",
            nodes.join(", ")
        ),
    }
}

fn full_name(short: &str) -> &str {
    match short {
        "agent" => "cilium-agent",
        "operator" => "cilium-operator-generic",
        "apiserver" => "kube-apiserver",
        "scheduler" => "kube-scheduler",
        "controller-manager" => "kube-controller-manager",
        other => other,
    }
}

fn node_only(lab: &Lab, target: &str, verb: &str) -> Result<String> {
    match parse(lab, target)? {
        Target::Machine(name) if name != CONTROL => Ok(name),
        _ => bail!("only a node can be {verb}, and '{target}' is not one"),
    }
}

fn place(lab: &Lab, name: &str) -> Result<Place> {
    let found = lab.spec.topology.places().into_iter().find(|place| place.name == name);
    found.with_context(|| format!("lab '{}' has no node '{name}'", lab.spec.name))
}

fn link(lab: &Lab, node: &str, state: &str) -> Result<()> {
    let control = namespace::first_process(lab, CONTROL)?;
    run::ip(&["nsenter", &format!("--net=/proc/{control}/ns/net")], &format!("link set {node} {state}\n"))
}

fn is_service(lab: &Lab, machine: &str, name: &str) -> Result<bool> {
    let file = lab.machine(machine).join("machine.json");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let machine: Machine = serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?;
    Ok(machine.services.iter().any(|service| service.name == name))
}

fn signal(lab: &Lab, machine: &str, name: &str, signal: Signal) -> Result<usize> {
    let found = named(lab, machine, name)?;
    if found.is_empty() {
        bail!("no process named '{name}' runs on {machine}");
    }
    for pid in &found {
        kill(Pid::from_raw(*pid), signal).with_context(|| format!("cannot send {signal} to '{name}' on {machine}"))?;
    }
    Ok(found.len())
}

/// The processes of a machine with this name.
fn named(lab: &Lab, machine: &str, name: &str) -> Result<Vec<i32>> {
    let group = Hierarchy::find()?.group(&lab.spec.name, Some(machine));
    let called = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        Path::new(&*String::from_utf8_lossy(first)).file_name().is_some_and(|file| file == name)
    };
    Ok(cgroup::processes(&group).into_iter().filter(called).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Spec;
    use crate::topology::Topology;

    fn lab() -> Lab {
        let topology = Topology { nodes: 2, ipv4: true, ipv6: true };
        let name = "test".to_owned();
        Lab {
            spec: Spec { name, topology, kube_bin: "/bin".into(), kube_proxy: None, bridge_cni: false },
            folder: "/nonexistent".into(),
        }
    }

    #[test]
    fn short_names_stand_for_the_programs() {
        let process = |machine: &str, name: &str| Target::Process(machine.to_owned(), name.to_owned());
        assert_eq!(parse(&lab(), "node2").unwrap(), Target::Machine("node2".to_owned()));
        assert_eq!(parse(&lab(), "node1/agent").unwrap(), process("node1", "cilium-agent"));
        assert_eq!(parse(&lab(), "node1/operator").unwrap(), process("node1", "cilium-operator-generic"));
        assert_eq!(parse(&lab(), "apiserver").unwrap(), process("control", "kube-apiserver"));
        assert_eq!(parse(&lab(), "etcd").unwrap(), process("control", "etcd"));
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_known_ones() {
        let error = parse(&lab(), "node3").unwrap_err().to_string();
        assert!(error.contains("unknown target 'node3'") && error.contains("node1, node2"), "{error}");
    }
}
