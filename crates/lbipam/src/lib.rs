// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod allocator;
mod cluster;
#[cfg(fuzzing)]
pub mod fuzz;
mod nodes;
mod pool;
mod range;
mod selector;
mod service;
mod status;
mod verdict;

pub use allocator::{Allocator, Settled, Totals};
pub use cluster::Occupant;
pub use nodes::{Hosts, NodePlace, NodeService, NodeUpdate};
pub use pool::Pool;
pub use service::{CONDITION, Config, Service};
pub use status::{Counts, POOL_CONFLICT, POOL_VALID, PoolUpdate, ServiceUpdate};
