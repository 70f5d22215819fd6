// SPDX-License-Identifier: Apache-2.0
//! A network and mount namespace of its own for each test, with a bpf file system: tests run side by side and leave
//! nothing behind. Needs root.

#![allow(dead_code, reason = "shared by two test binaries, of which neither uses all")]

use std::path::{Path, PathBuf};

use datapath::bpf::{Datapath, Options};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

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

    /// A path below the bpf file system's folder of ours.
    pub(crate) fn pin(&self, path: impl AsRef<Path>) -> PathBuf {
        self.bpffs.join("cilium/v1").join(path)
    }
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
