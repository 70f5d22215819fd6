// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod addons;
mod bridge;
pub mod capture;
pub mod certs;
mod cgroup;
mod cli;
pub mod clock;
mod cluster;
mod conformance;
mod control;
mod fault;
mod images;
mod init;
mod machine;
mod namespace;
pub mod netns;
mod node;
pub mod own;
pub mod probe;
pub mod product;
mod progress;
mod run;
mod state;
mod status;
pub mod suite;
mod supervise;
mod topology;
pub mod traffic;
pub mod wire;

pub use cli::{command, main};
