// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod allocator;
pub mod cluster;
mod metrics;
mod pool;
mod status;

pub use allocator::{Allocation, Allocator, Error, PoolUsage};
pub use metrics::register_metrics;

use model::LocalNode;
use statedb::{Change, Reader, Tasks};
use surface::Surface;

/// Inputs of the node side.
#[derive(Debug)]
pub struct Inputs {
    /// This node: its pod CIDRs, and its own addresses within them.
    pub local_node: Reader<LocalNode>,
}

/// Outputs of the node side.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Hands out addresses.
    pub allocator: Allocator,
    /// Usage of each pool.
    pub pools: Reader<PoolUsage>,
    /// Tables, status and metrics.
    pub surface: Surface,
}

/// Starts the node side: the pools follow the node's pod CIDRs from now on.
#[must_use]
pub fn start(inputs: Inputs, tasks: &Tasks) -> Outputs {
    let (writer, pools) = statedb::table("ipam-pools");
    let allocator = Allocator::new(writer);
    let follower = allocator.clone();
    tasks.spawn("ipam-pools", async move {
        let mut changes = inputs.local_node.subscribe();
        loop {
            for change in changes.next().await.changes {
                // The node vanishes from its own table only when its writer restarts: allocations stand.
                if let Change::Upsert(node) = change {
                    let own = node.addresses.iter().copied();
                    let router = node.router_ipv4.map(Into::into).into_iter().chain(node.router_ipv6.map(Into::into));
                    follower.configure(&node.pod_cidrs, own.chain(router));
                }
            }
        }
    });
    let surface = Surface::new()
        .table(&pools)
        .status(status::fill(allocator.clone(), pools.clone()))
        .metrics(|registry| register_metrics(pools.clone(), registry));
    Outputs { allocator, pools, surface }
}

#[cfg(test)]
mod tests;
