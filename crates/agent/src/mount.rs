// SPDX-License-Identifier: Apache-2.0
//! `cilium-mount cgroup2|bpf PATH`: mounts a file system on the node from an unprivileged init container. It enters the
//! node's namespaces through the node's `/proc`, which the chart mounts at `$HOST_PROC`.

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::path::Path;

/// Runs the command.
///
/// # Errors
///
/// The namespaces cannot be entered, or the file system cannot be mounted.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let [kind, path] = args else { bail!("usage: cilium-mount cgroup2|bpf PATH") };
    if !matches!(kind.as_str(), "cgroup2" | "bpf") {
        bail!("{kind:?} is not a file system to mount: want cgroup2 or bpf");
    }
    let proc = std::env::var("HOST_PROC").unwrap_or_else(|_| "/proc".to_owned());
    enter(Path::new(&proc))?;
    mount_once(kind, Path::new(path))
}

/// Enters the control group and mount namespaces of the node's first process.
fn enter(proc: &Path) -> anyhow::Result<()> {
    let open = |name: &str| {
        let path = proc.join("1/ns").join(name);
        File::open(&path).with_context(|| format!("open {}: is HOST_PROC the node's /proc?", path.display()))
    };
    let (cgroup, mnt) = (open("cgroup")?, open("mnt")?);
    setns(cgroup, CloneFlags::CLONE_NEWCGROUP).context("enter the node's control group namespace")?;
    setns(mnt, CloneFlags::CLONE_NEWNS).context("enter the node's mount namespace")
}

fn mount_once(kind: &str, path: &Path) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    if is_mounted(&mounts, kind, path) {
        println!("{kind} is mounted at {} already", path.display());
        return Ok(());
    }
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), path, Some(kind), flags, None::<&str>)
        .with_context(|| format!("mount {kind} at {}", path.display()))?;
    println!("mounted {kind} at {}", path.display());
    Ok(())
}

fn is_mounted(mounts: &str, kind: &str, path: &Path) -> bool {
    let mounted = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|p| Path::new(p) == path) && fields.next() == Some(kind)
    };
    mounts.lines().any(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_mounted_once_and_only_the_right_kind_counts() {
        let mounts = "none /run/cilium/cgroupv2 cgroup2 rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n";
        assert!(is_mounted(mounts, "cgroup2", Path::new("/run/cilium/cgroupv2")));
        assert!(!is_mounted(mounts, "bpf", Path::new("/sys/fs/bpf")));
        assert!(!is_mounted(mounts, "cgroup2", Path::new("/run/cilium")));
    }
}
