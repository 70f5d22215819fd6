// SPDX-License-Identifier: Apache-2.0
//! The real kernel: maps that live on under pins, programs, and what they are attached to.
//!
//! All of it lies below one folder of the bpf file system, named after its version:
//! `cilium/v1/{maps,programs,links}/NAME`. A starting agent adopts what it finds there. A map whose layout has changed has a pin of
//! its own, `maps/NAME_vN`, and takes over what the older one holds.

mod attach;
mod cleanup;
mod clsact;
mod cost;
pub(crate) mod event_rings;
mod features;
mod load;
mod map;
mod migrate;
mod pins;
mod program;
mod run_time;
mod stack;
mod xdp;

pub use attach::{Direction, LinkPin};
pub use cleanup::post_uninstall_cleanup;
pub use cost::ProgramCost;
pub use features::Features;
pub use load::{Datapath, Options};
pub use map::Pinned;
pub use migrate::Migration;
pub use program::Program;
pub use run_time::{RunTime, RunTimeCount};
pub use xdp::XdpMode;

pub use crate::sys::test_run::{Place, TestRun};

/// Where the bpf file system is mounted by default.
pub const BPFFS: &str = "/sys/fs/bpf";
