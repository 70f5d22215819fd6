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

/// What the node side needs.
#[derive(Debug)]
pub struct Inputs {
    /// This node: its pod CIDRs, and the addresses in them that are its own.
    pub local_node: Reader<LocalNode>,
}

/// What the node side offers.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Hands out addresses.
    pub allocator: Allocator,
    /// How full each pool is.
    pub pools: Reader<PoolUsage>,
    /// What it shows of itself.
    pub surface: Surface,
}

/// Starts the node side: from now on the pools follow the node's pod CIDRs.
#[must_use]
pub fn start(inputs: Inputs, tasks: &Tasks) -> Outputs {
    let (writer, pools) = statedb::table("ipam-pools");
    let allocator = Allocator::new(writer);
    let follower = allocator.clone();
    tasks.spawn("ipam-pools", async move {
        let mut changes = inputs.local_node.subscribe();
        loop {
            for change in changes.next().await.changes {
                // A node that vanishes from its own table is a restart of its writer: what was given stays given.
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
