// SPDX-License-Identifier: Apache-2.0
//! What one wants to see after a failure, collected into one folder: what the API server knows, every log, and what the network of
//! every machine looks like.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::state::{self, Lab};
use crate::topology::CONTROL;
use crate::{namespace, run};

/// Questions for the API server: file name and arguments.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("nodes.txt", &["get", "nodes", "-o", "wide"]),
    ("pods.txt", &["get", "pods", "-A", "-o", "wide"]),
    ("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
    ("objects.yaml", &["get", "nodes,pods,services,endpointslices,networkpolicies,configmaps", "-A", "-o", "yaml"]),
    ("pods-described.txt", &["describe", "pods", "-A"]),
];

/// Questions for every machine that is on.
const COMMANDS: [(&str, &str); 5] = [
    ("ip.txt", "ip -d address; ip rule; ip route show table all; ip neigh"),
    ("mounts.txt", "cat /proc/1/mountinfo"),
    ("processes.txt", "ps -eo pid,ppid,stat,args"),
    ("sockets.txt", "ss -tunap"),
    ("bpf.txt", "find /sys/fs/bpf; command -v bpftool >/dev/null && bpftool net"),
];

/// Collects everything about a lab for a failed test.
pub fn capture_named(name: &str, to: &Path) -> Result<PathBuf> {
    capture(&Lab::open(name)?, to)
}

/// Collects what is available; where a command fails, its error is in the file.
pub(crate) fn capture(lab: &Lab, to: &Path) -> Result<PathBuf> {
    for (file, question) in QUESTIONS {
        let answer = run::output(lab.kubectl().args(question).arg("--request-timeout=5s"));
        state::write(&to.join(file), said(answer))?;
    }
    let nodes: Vec<String> = lab.spec.topology.places().into_iter().map(|place| place.name).collect();
    for machine in nodes.iter().map(String::as_str).chain([CONTROL]) {
        let folder = to.join(machine);
        copy(&lab.machine(machine).join("log"), &folder.join("services"))?;
        copy(&lab.machine(machine).join("disk/var/log/pods"), &folder.join("pods"))?;
        let Ok(pid) = namespace::first_process(lab, machine) else { continue };
        for (file, command) in COMMANDS {
            let mut enter = Command::new("nsenter");
            enter.arg("--target").arg(pid.to_string()).args(["--all", "sh", "-c", command]);
            state::write(&folder.join(file), said(run::output(&mut enter)))?;
        }
    }
    Ok(to.to_owned())
}

fn said(answer: Result<String>) -> String {
    answer.unwrap_or_else(|error| format!("{error:#}\n"))
}

/// Copies a folder of logs; links are followed, since container logs are links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else if let Ok(text) = fs::read(&path) {
            state::write(&target, text).context("cannot copy a log")?;
        }
    }
    Ok(())
}
