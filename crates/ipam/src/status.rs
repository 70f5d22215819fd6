// SPDX-License-Identifier: Apache-2.0
//! Pools and addresses in the agent's status.

use crate::{Allocator, PoolUsage};
use rest::{IpamStatus, StatusResponse};
use statedb::Reader;

pub(crate) fn fill(allocator: Allocator, pools: Reader<PoolUsage>) -> impl Fn(&mut StatusResponse) {
    move |status| {
        let owners = allocator.owners();
        let of = |v4: bool| owners.keys().filter(|ip| ip.is_ipv4() == v4).map(ToString::to_string).collect();
        let pools: Vec<String> = pools.snapshot().iter().map(|pool| describe(pool)).collect();
        status.ipam = Some(IpamStatus {
            allocations: owners.iter().map(|(ip, owner)| (ip.to_string(), owner.clone())).collect(),
            ipv4: of(true),
            ipv6: of(false),
            status: pools.join(", "),
        });
    }
}

fn describe(pool: &PoolUsage) -> String {
    let family = if pool.prefix.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    format!("{family}: {}/{} allocated from {}", pool.used, pool.capacity, pool.prefix)
}
