// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod allocator;
mod pool;
mod range;
mod selector;
mod service;
mod status;
mod verdict;

pub use allocator::{Allocator, Settled, Totals};
pub use pool::Pool;
pub use service::{CONDITION, Config, Service};
pub use status::{POOL_CONFLICT, POOL_VALID, PoolUpdate, ServiceUpdate};
