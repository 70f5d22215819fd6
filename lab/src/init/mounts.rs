// SPDX-License-Identifier: Apache-2.0
//! What a machine of the lab sees of the file system: this machine's, with its own /proc, and a node with its own /sys, /run and
//! the folders of kubelet, containerd and CNI. Nothing of it is visible outside.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cgroup::Hierarchy;
use crate::machine::{Machine, Plug};
use crate::state;

/// Where a node's own cgroup v2 tree is mounted, besides its usual place: what charts name as `cgroup.hostRoot`.
const CGROUP_ROOT: &str = "/run/cilium/cgroupv2";
const CGROUPS: &str = "/sys/fs/cgroup";

pub(crate) fn control() -> Result<()> {
    separate()?;
    fresh("proc", "/proc")
}

pub(crate) fn node(machine: &Machine, plug: &Plug) -> Result<()> {
    separate()?;
    fresh("proc", "/proc")?;
    tunables(&machine.folder)?;
    sys(machine)?;
    for (from, to) in &plug.binds {
        for path in [from, to] {
            fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        bind(from, to, MsFlags::empty())?;
    }
    fresh("tmpfs", "/run")?;
    fs::create_dir_all(CGROUP_ROOT).with_context(|| format!("cannot create {CGROUP_ROOT}"))?;
    fresh("cgroup2", CGROUP_ROOT)
}

/// Cuts the tree off from the outside, and then lets it propagate inside: `mountPropagation: Bidirectional` needs that.
fn separate() -> Result<()> {
    for flags in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, flags | MsFlags::MS_REC, None::<&str>)
            .context("cannot separate the mount namespace")?;
    }
    Ok(())
}

/// A sysfs that shows this network namespace, with the node's part of the cgroup trees, and a bpf file system of its own.
fn sys(machine: &Machine) -> Result<()> {
    let hierarchy = &machine.hierarchy;
    // Programs look for exactly one bpf file system; those inherited go first.
    while umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).is_ok() {}
    if hierarchy.pure() {
        fresh("sysfs", "/sys")?;
        fresh("cgroup2", CGROUPS)?;
    } else {
        let keep = machine.folder.join("cgroup");
        fs::create_dir_all(&keep).with_context(|| format!("cannot create {}", keep.display()))?;
        bind(Path::new(CGROUPS), &keep, MsFlags::MS_REC)?;
        fresh("sysfs", "/sys")?;
        beside_v1(machine, hierarchy, &keep)?;
        // Detaching a shared mount would detach its peers' mounts too.
        let alone = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, &keep, None::<&str>, alone, None::<&str>)
            .with_context(|| format!("cannot separate {}", keep.display()))?;
        umount2(&keep, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", keep.display()))?;
    }
    fresh("bpf", "/sys/fs/bpf")
}

/// The usual tree of a machine with v1 controllers: one folder for each, v2 beside them, and the links between their names.
fn beside_v1(machine: &Machine, hierarchy: &Hierarchy, keep: &Path) -> Result<()> {
    fresh("tmpfs", CGROUPS)?;
    for controller in &hierarchy.controllers {
        let Ok(name) = controller.strip_prefix(CGROUPS) else { continue };
        fs::create_dir_all(controller).with_context(|| format!("cannot create {}", controller.display()))?;
        bind(&Hierarchy::below(&keep.join(name), &machine.lab, Some(&machine.name)), controller, MsFlags::empty())?;
    }
    if hierarchy.unified.starts_with(CGROUPS) {
        let unified = &hierarchy.unified;
        fs::create_dir_all(unified).with_context(|| format!("cannot create {}", unified.display()))?;
        fresh("cgroup2", &unified.to_string_lossy())?;
    }
    for entry in fs::read_dir(keep).into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            let link = Path::new(CGROUPS).join(entry.file_name());
            symlink(target, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    Ok(())
}

/// The kubelet insists on these values of settings that all namespaces share. It is shown them, so that the lab changes nothing.
fn tunables(folder: &Path) -> Result<()> {
    let wanted = [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ];
    for (name, value) in wanted {
        let (shown, real) = (folder.join("sysctl").join(name), Path::new("/proc/sys").join(name));
        if real.exists() {
            state::write(&shown, value)?;
            bind(&shown, &real, MsFlags::empty())?;
        }
    }
    Ok(())
}

fn fresh(kind: &str, on: &str) -> Result<()> {
    let options = (kind == "tmpfs").then_some("mode=755");
    let options = if kind == "bpf" { Some("mode=700") } else { options };
    mount(Some(kind), on, Some(kind), MsFlags::empty(), options).with_context(|| format!("cannot mount {kind} on {on}"))
}

fn bind(from: &Path, to: &Path, recursive: MsFlags) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | recursive, None::<&str>)
        .with_context(|| format!("cannot bind {} on {}", from.display(), to.display()))
}
