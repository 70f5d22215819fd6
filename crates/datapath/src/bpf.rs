// SPDX-License-Identifier: Apache-2.0
//! The real kernel: maps that live on under pins, programs, and what they are attached to.
//!
//! All of it lies below one folder of the bpf file system, named after the version of the layouts:
//! `cilium/v1/{maps,programs,links}/NAME`. A starting agent adopts what it finds there.

mod attach;
mod cleanup;
mod clsact;
mod cost;
mod features;
mod load;
mod map;
mod pins;
mod program;
mod run_time;

pub use attach::{Direction, LinkPin};
pub use cleanup::post_uninstall_cleanup;
pub use cost::ProgramCost;
pub use features::Features;
pub use load::{Datapath, Options};
pub use map::Pinned;
pub use program::Program;
pub use run_time::{RunTime, RunTimeCount};

pub(crate) use map::pin_of_map;

pub use crate::sys::test_run::TestRun;

/// Where the bpf file system is mounted by default.
pub const BPFFS: &str = "/sys/fs/bpf";
