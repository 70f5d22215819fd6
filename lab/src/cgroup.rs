// SPDX-License-Identifier: Apache-2.0
//! The cgroups of a lab: `lab/NAME/MACHINE` in the v2 hierarchy.
//!
//! All processes of a machine are below its group: socket programs attach to it, and `lab down` kills it. Where
//! the controllers are those of v1 (with v2 mounted beside them), a machine has a folder of the same name in each hierarchy.
//! Inside the machine, whose cgroup namespace begins there, these are the roots.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::clock;

/// The hierarchies of this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    /// Where v2 is mounted.
    pub(crate) unified: PathBuf,
    /// Where v1 hierarchies are mounted, if any has controllers.
    pub(crate) controllers: Vec<PathBuf>,
}

impl Hierarchy {
    pub(crate) fn find() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        let (mut unified, controllers) = parse(&text);
        if unified.is_none() {
            let own = crate::state::root().join("cgroup2");
            fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
            mount(Some("cgroup2"), &own, Some("cgroup2"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("no cgroup v2 is mounted, and it cannot be mounted on {}", own.display()))?;
            unified = Some(own);
        }
        let unified = unified.context("no cgroup v2 hierarchy")?;
        Ok(Self { unified, controllers })
    }

    /// Whether v2 has all controllers, as on most machines today.
    pub(crate) fn pure(&self) -> bool {
        self.controllers.is_empty()
    }

    /// The group of a lab, or of one of its machines.
    pub(crate) fn group(&self, lab: &str, machine: Option<&str>) -> PathBuf {
        machine.into_iter().fold(self.unified.join("lab").join(lab), |path, name| path.join(name))
    }

    /// The group for a machine's own processes. With v2 controllers only leaves may hold processes.
    pub(crate) fn leaf(&self, group: &Path) -> PathBuf {
        if self.pure() { group.join("system") } else { group.to_owned() }
    }

    /// A machine's folder in a v1 hierarchy.
    pub(crate) fn below(controller: &Path, lab: &str, machine: Option<&str>) -> PathBuf {
        machine.into_iter().fold(controller.join("lab").join(lab), |path, name| path.join(name))
    }

    /// Moves the calling process to the group for a machine's own processes, in every hierarchy.
    pub(crate) fn join(&self, lab: &str, machine: &str) -> Result<()> {
        let leaf = self.leaf(&self.group(lab, Some(machine)));
        let all = self.controllers.iter().map(|controller| Self::below(controller, lab, Some(machine))).chain([leaf]);
        for group in all {
            fs::write(group.join("cgroup.procs"), "0")
                .with_context(|| format!("cannot move into the cgroup {}", group.display()))?;
        }
        Ok(())
    }

    /// Creates or empties a machine's group.
    pub(crate) fn create(&self, lab: &str, machine: &str) -> Result<()> {
        let group = self.group(lab, Some(machine));
        let leaf = self.leaf(&group);
        fs::create_dir_all(&leaf).with_context(|| format!("cannot create the cgroup {}", leaf.display()))?;
        if self.pure() {
            let above = [self.unified.clone(), self.unified.join("lab"), self.group(lab, None), group.clone()];
            for path in above {
                delegate(&path)?;
            }
        }
        for controller in &self.controllers {
            for path in [
                controller.join("lab"),
                Self::below(controller, lab, None),
                Self::below(controller, lab, Some(machine)),
            ] {
                create_v1(&path)?;
            }
        }
        Ok(())
    }

    /// Kills every process of a lab or machine and removes its groups, in all hierarchies.
    pub(crate) fn clear(&self, lab: &str, machine: Option<&str>) -> Result<()> {
        let group = self.group(lab, machine);
        if group.exists() {
            end_processes(&group)?;
        }
        remove(&group)?;
        for controller in &self.controllers {
            remove(&Self::below(controller, lab, machine))?;
        }
        // The folder of all labs is removed with the last lab.
        for above in self.controllers.iter().chain([&self.unified]) {
            let _ = fs::remove_dir(above.join("lab"));
        }
        Ok(())
    }
}

/// All processes in a group and in those below it.
pub(crate) fn processes(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for below in folders(group) {
        all.extend(processes(&below));
    }
    all
}

/// Creates a folder in a v1 hierarchy. One of cpuset accepts no process until its processors and memory are set.
fn create_v1(group: &Path) -> Result<()> {
    fs::create_dir_all(group).with_context(|| format!("cannot create the cgroup {}", group.display()))?;
    for setting in ["cpuset.cpus", "cpuset.mems"] {
        let above = group.parent().map(|parent| fs::read_to_string(parent.join(setting)));
        if let Some(Ok(value)) = above {
            fs::write(group.join(setting), value.trim())
                .with_context(|| format!("cannot set {setting} of {}", group.display()))?;
        }
    }
    Ok(())
}

fn delegate(group: &Path) -> Result<()> {
    let names = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let wanted: Vec<String> = names.split_whitespace().map(|name| format!("+{name}")).collect();
    let file = group.join("cgroup.subtree_control");
    fs::write(&file, wanted.join(" ")).with_context(|| format!("cannot pass controllers down in {}", group.display()))
}

fn end_processes(group: &Path) -> Result<()> {
    clock::poll(Duration::from_secs(20), &format!("ending the processes of {}", group.display()), || {
        // One write kills all, children included (Linux 5.14); before that, one by one until none is left.
        if fs::write(group.join("cgroup.kill"), "1").is_err() {
            for pid in processes(group) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        match processes(group).len() {
            0 => Ok(()),
            left => bail!("{left} processes are still there"),
        }
    })
}

/// Removes a group and those below it. A group stays busy for a moment after its last process.
fn remove(group: &Path) -> Result<()> {
    for below in folders(group) {
        remove(&below)?;
    }
    clock::poll(Duration::from_secs(10), &format!("removing the cgroup {}", group.display()), || {
        match fs::remove_dir(group) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    })
}

fn folders(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// The first mount of the whole v2 hierarchy, and the v1 mounts if any has controllers.
fn parse(mountinfo: &str) -> (Option<PathBuf>, Vec<PathBuf>) {
    let mut unified = None;
    let (mut first, mut controllers) = (Vec::new(), false);
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut fields = left.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let mut after = right.split(' ');
        let kind = after.next();
        let options = after.nth(1).unwrap_or_default();
        match kind {
            Some("cgroup2") if root == "/" && unified.is_none() => unified = Some(PathBuf::from(point)),
            Some("cgroup") => {
                controllers |= !options.contains("name=");
                first.push(PathBuf::from(point));
            }
            _ => {}
        }
    }
    (unified, if controllers { first } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_hierarchies_beside_v2_are_told_apart() {
        let text = "24 19 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    25 24 0:21 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    26 24 0:22 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n\
                    27 24 0:23 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let (unified, controllers) = parse(text);
        assert_eq!(unified, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(controllers, [PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup/systemd")]);
    }

    #[test]
    fn a_named_hierarchy_without_controllers_does_not_make_a_machine_v1() {
        let text = "26 24 0:22 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                    27 24 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parse(text), (Some("/sys/fs/cgroup".into()), vec![]));
    }

    #[test]
    fn a_bind_of_a_part_of_v2_is_not_taken_for_the_hierarchy() {
        let text = "27 24 0:23 /lab/other /mnt rw - cgroup2 cgroup2 rw\n28 24 0:23 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse(text), (Some("/sys/fs/cgroup".into()), vec![]));
    }
}
