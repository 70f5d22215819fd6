// SPDX-License-Identifier: Apache-2.0
//! Acts as a service manager would on a real machine: starts services once their prerequisites exist, restarts them when
//! they exit, and reaps every orphaned process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock;

/// A program that runs as long as its machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) command: Vec<String>,
    /// Paths that must exist before it starts.
    pub(crate) after: Vec<PathBuf>,
}

const LOOK: Duration = Duration::from_millis(50);
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// The file whose presence holds a service back.
pub(crate) fn hold_mark(folder: &Path, service: &str) -> PathBuf {
    folder.join("hold").join(service)
}

/// Never returns.
pub(crate) fn supervise(folder: &Path, services: &[Service]) -> ! {
    let mut running: HashMap<Pid, &str> = HashMap::new();
    let mut not_before: HashMap<&str, Instant> = HashMap::new();
    loop {
        reap(&mut running);
        for service in services {
            let name = service.name.as_str();
            let due = not_before.get(name).is_none_or(|at| clock::now() >= *at);
            if running.values().any(|other| *other == name) || !due || !may_start(folder, service) {
                continue;
            }
            not_before.insert(name, clock::now() + RESTART_AFTER);
            match start(folder, service) {
                Ok(pid) => {
                    running.insert(pid, name);
                }
                Err(error) => eprintln!("{error:#}"),
            }
        }
        clock::breathe(LOOK);
    }
}

fn may_start(folder: &Path, service: &Service) -> bool {
    service.after.iter().all(|path| path.exists()) && !hold_mark(folder, &service.name).exists()
}

fn start(folder: &Path, service: &Service) -> Result<Pid> {
    let log = folder.join("log").join(format!("{}.log", service.name));
    let out = File::options().create(true).append(true).open(&log);
    let out = out.with_context(|| format!("cannot open {}", log.display()))?;
    let [program, arguments @ ..] = service.command.as_slice() else {
        anyhow::bail!("{} has no command", service.name)
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = command.spawn().with_context(|| format!("cannot start {}", service.name))?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

fn reap(running: &mut HashMap<Pid, &str>) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(status) => {
                if let Some(name) = status.pid().and_then(|pid| running.remove(&pid)) {
                    eprintln!("{name} ended: {status:?}");
                }
            }
            Err(_) => return,
        }
    }
}

/// Creates or removes the file that holds a service back.
pub(crate) fn hold(folder: &Path, service: &str, held: bool) -> Result<()> {
    let mark = hold_mark(folder, service);
    if held {
        return crate::state::write(&mark, "");
    }
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", mark.display()))
        }
        _ => Ok(()),
    }
}
