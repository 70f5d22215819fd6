// SPDX-License-Identifier: Apache-2.0
//! Enters a machine's namespaces and runs commands there.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::cgroup::{self, Hierarchy};
use crate::state::Lab;
use crate::topology::CONTROL;

/// The namespaces a machine has for itself.
pub(crate) fn own() -> CloneFlags {
    CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP
}

/// The process id, on this machine, of a lab machine's first process; fails if the machine is off.
pub(crate) fn first_process(lab: &Lab, machine: &str) -> Result<i32> {
    let places = lab.spec.topology.places();
    if machine != CONTROL && places.iter().all(|place| place.name != machine) {
        let known: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        bail!("lab '{}' has no machine '{machine}', but {}, {CONTROL}", lab.spec.name, known.join(", "));
    }
    let file = lab.machine(machine).join("pid");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let group = Hierarchy::find()?.group(&lab.spec.name, Some(machine));
    // The number may have been reused by now; the cgroup cannot.
    match text.trim().parse::<i32>() {
        Ok(pid) if cgroup::processes(&group).contains(&pid) => Ok(pid),
        _ => {
            bail!("'{machine}' of lab '{}' is off (start it with `cilium lab fault restore {machine}`)", lab.spec.name)
        }
    }
}

/// Runs a command as a process of the machine: in its namespaces and its cgroup. The calling process must be single-threaded.
pub(crate) fn run_in(lab: &Lab, machine: &str, command: &[String]) -> Result<ExitCode> {
    let pid = first_process(lab, machine)?;
    let [program, arguments @ ..] = command else { bail!("no command given") };
    let here = std::env::current_dir().ok();
    let namespaces = Path::new("/proc").join(pid.to_string()).join("ns");
    // The mount namespace comes last: it takes /proc away.
    let mut files = Vec::new();
    for name in ["cgroup", "ipc", "uts", "net", "pid", "mnt"] {
        let path = namespaces.join(name);
        files.push(File::open(&path).with_context(|| format!("cannot open {}", path.display()))?);
    }
    Hierarchy::find()?.join(&lab.spec.name, machine)?;
    for file in files {
        setns(file, CloneFlags::empty()).with_context(|| format!("cannot enter the namespaces of '{machine}'"))?;
    }
    if let Some(here) = here.filter(|path| path.is_dir()) {
        std::env::set_current_dir(here).context("cannot return to the working folder")?;
    }
    let path = crate::machine::path(&lab.spec.kube_bin);
    let status = Command::new(program).args(arguments).env("PATH", path).status();
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            eprintln!("cannot run '{program}' on {machine}: {error}");
            return Ok(ExitCode::from(127));
        }
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
