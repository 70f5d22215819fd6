// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
#![allow(clippy::type_complexity, reason = "a list of keys and values says more than a name for it")]

pub mod bpf;
mod epochs;
mod error;
pub mod events;
pub mod fake;
pub mod flows;
mod hooks;
mod host;
mod kernel;
mod map;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod sockets;
mod sys;
pub mod sysctl;
pub mod wire;

pub use epochs::{Due, Epochs};
pub use error::{Error, Result};
pub use hooks::Hooks;
pub use host::Host;
pub use kernel::{Kernel, MapSpec};
pub use map::per_cpu::{Counter, PerCpuMap};
pub use map::raw::RawMap;
pub use map::sync::{Diff, sync_map};
pub use map::trie::{LpmKey, Trie};
pub use map::{Layout, Map, Table};
pub use sockets::Sockets;
pub use wire::Wire;
