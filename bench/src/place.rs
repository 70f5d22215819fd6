// SPDX-License-Identifier: Apache-2.0
//! Where a process runs: in which network namespace and cgroup, and on which processor.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::run;

/// The place of a process.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Network namespace to enter, as a file.
    #[arg(long)]
    pub(crate) netns: Option<PathBuf>,
    /// Cgroup (v2) to join, as a folder: where a pod's socket programs are.
    #[arg(long)]
    pub(crate) cgroup: Option<PathBuf>,
    /// The processor to stay on.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
    /// Take precedence over everything else on the processor (`SCHED_FIFO`).
    #[arg(long)]
    pub(crate) ahead: bool,
}

impl Place {
    /// A named network namespace.
    pub(crate) fn named(netns: &str) -> Self {
        Self { netns: Some(Path::new("/run/netns").join(netns)), ..Self::default() }
    }

    /// The same on a processor.
    pub(crate) fn on(&self, cpu: usize) -> Self {
        Self { cpu: Some(cpu), ..self.clone() }
    }

    /// Moves this process there. It ends with the process that started it.
    pub(crate) fn enter(&self) -> Result<()> {
        set_pdeathsig(Signal::SIGKILL).context("cannot ask to end with the parent")?;
        if let Some(cgroup) = &self.cgroup {
            let file = cgroup.join("cgroup.procs");
            fs::write(&file, "0").with_context(|| format!("cannot join {}", file.display()))?;
        }
        if let Some(netns) = &self.netns {
            enter_netns(netns)?;
        }
        if let Some(cpu) = self.cpu {
            let mut cpus = CpuSet::new();
            cpus.set(cpu).with_context(|| format!("no processor {cpu}"))?;
            sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot stay on processor {cpu}"))?;
        }
        if self.ahead {
            run::output(Command::new("chrt").args(["--fifo", "--pid", "10", &Pid::this().to_string()]))?;
        }
        Ok(())
    }

    /// The arguments that move another process of this program there.
    pub(crate) fn arguments(&self, command: &mut Command) {
        if let Some(netns) = &self.netns {
            command.arg("--netns").arg(netns);
        }
        if let Some(cgroup) = &self.cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        if let Some(cpu) = self.cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        if self.ahead {
            command.arg("--ahead");
        }
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_netns(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open the network namespace {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}
