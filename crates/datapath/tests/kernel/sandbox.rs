// SPDX-License-Identifier: Apache-2.0
//! A network and mount namespace of its own for each test, with a bpf file system: tests run side by side and leave
//! nothing behind. Needs root.

#![allow(dead_code, reason = "shared by two test binaries, of which neither uses all")]

use std::fs;
use std::path::{Path, PathBuf};

use datapath::bpf::{Datapath, Options};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

/// What a test finds in its namespaces.
pub(crate) struct Sandbox {
    /// An empty bpf file system.
    pub(crate) bpffs: PathBuf,
}

impl Sandbox {
    /// Runs the test in fresh namespaces, on a thread of its own.
    pub(crate) fn run(test: impl FnOnce(&Self) + Send + 'static) {
        let result = std::thread::spawn(move || test(&Self::enter())).join();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let bpffs = PathBuf::from("/sys/fs/bpf");
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
        Self { bpffs }
    }

    /// The programs, loaded.
    pub(crate) fn load(&self) -> Datapath {
        self.load_with(Options::default())
    }

    /// The programs, loaded with these options but for the place.
    pub(crate) fn load_with(&self, options: Options) -> Datapath {
        match Datapath::load(&Options { bpffs: self.bpffs.clone(), ..options }) {
            Ok(datapath) => datapath,
            Err(error) => panic!("{}", chain(&error)),
        }
    }

    /// Brings the loopback device up.
    pub(crate) fn loopback_up(&self) {
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
    }

    /// A path below the bpf file system's folder of ours.
    pub(crate) fn pin(&self, path: impl AsRef<Path>) -> PathBuf {
        self.bpffs.join("cilium/v1").join(path)
    }
}

/// Major and minor number of the running kernel.
pub(crate) fn version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A control group (version 2) below the one that the tests run in, for threads; removed at the end.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then_some(path)
        });
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let parent = PathBuf::from(root.expect("no cgroup2 mounted")).join(own);
        let path = parent.join(format!("{name}-{}", gettid()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts the calling thread into it, until the guard is dropped.
    pub(crate) fn enter(&self) -> Inside {
        fs::write(self.0.join("cgroup.type"), "threaded").unwrap();
        fs::write(self.0.join("cgroup.threads"), gettid().to_string()).unwrap();
        Inside(self.0.parent().unwrap().into())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The calling thread is in a control group; see [`Cgroup::enter`].
pub(crate) struct Inside(PathBuf);

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.threads"), gettid().to_string());
    }
}
