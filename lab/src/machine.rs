// SPDX-License-Identifier: Apache-2.0
//! A machine of the lab, the control plane or a node: the parameters of its first process, and switching it on and off.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchy;
use crate::run;
use crate::state::{self, Lab};
use crate::supervise::Service;

/// Everything the first process of a machine needs to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) lab: String,
    /// As seen from outside: a cgroup namespace shows other paths.
    pub(crate) hierarchy: Hierarchy,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) role: Role,
    pub(crate) services: Vec<Service>,
    pub(crate) path: OsString,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Holds the bridge; connections to a port of 127.0.0.1 outside go to this address.
    Control {
        forward_to: SocketAddr,
    },
    Node(Plug),
}

/// How a node is connected to the bridge, and what it mounts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plug {
    /// The first process of the machine with the bridge.
    pub(crate) control: i32,
    pub(crate) mac: String,
    pub(crate) gateways: Vec<IpAddr>,
    /// The machine's own folders: source and mount point.
    pub(crate) binds: Vec<(PathBuf, PathBuf)>,
}

/// The search path inside: Kubernetes' programs first.
pub(crate) fn path(kube_bin: &Path) -> OsString {
    let mut path = kube_bin.as_os_str().to_owned();
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

impl Machine {
    /// Switches the machine on: starts its first process and returns once its namespaces, mounts and network are set up.
    pub(crate) fn start(&self) -> Result<()> {
        fs::create_dir_all(self.folder.join("log"))
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        for stale in ["pid", "booted"] {
            let _ = fs::remove_file(self.folder.join(stale));
        }
        let file = self.folder.join("machine.json");
        state::write(&file, serde_json::to_string_pretty(self)?)?;
        let log = self.folder.join("log/init.log");
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("cannot open {}", log.display()))?;
        let mut command = itself();
        command.arg("init").arg("boot").arg(&file);
        command.env_clear().env("PATH", &self.path).env("HOME", "/").env("LANG", "C.UTF-8").current_dir("/");
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let status = command.status().context("cannot start this program again")?;
        if !status.success() {
            bail!("'{}' did not start; the end of {}:\n{}", self.name, log.display(), run::tail(&log, 15));
        }
        Ok(())
    }
}

/// Switches the machine off, as if unplugged: every process is killed, and its namespaces vanish with them.
pub(crate) fn pull_plug(lab: &Lab, machine: &str) -> Result<()> {
    Hierarchy::find()?.clear(&lab.spec.name, Some(machine))?;
    let _ = fs::remove_file(lab.machine(machine).join("pid"));
    Ok(())
}

/// This program, also where its file has been replaced since it was started, as cargo does with each build.
pub(crate) fn itself() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("cilium-lab");
    command
}
