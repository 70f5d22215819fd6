// SPDX-License-Identifier: Apache-2.0
//! The metrics of this feature, under Cilium's names, read from the pools.

use crate::PoolUsage;
use prometheus_client::registry::Registry;
use statedb::Reader;
use std::collections::BTreeMap;
use surface::{Families, Family};

pub fn register_metrics(pools: Reader<PoolUsage>, registry: &mut Registry) {
    registry.register_collector(Families::read(move || {
        let pools = pools.snapshot();
        let sums = |name, help, value: fn(&PoolUsage) -> u128| {
            let mut sums = BTreeMap::new();
            for pool in pools.iter() {
                let family = if pool.prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" };
                let sum: &mut u64 = sums.entry(family).or_default();
                *sum = sum.saturating_add(u64::try_from(value(pool)).unwrap_or(u64::MAX));
            }
            sums.into_iter().fold(Family::gauge(name, help), |all, (family, sum)| all.with(&[("family", family)], sum))
        };
        vec![
            sums("ip_addresses", "Addresses that pods have", |pool| pool.used),
            sums("ipam_capacity", "Addresses that pods can have", |pool| pool.capacity),
        ]
    }));
}
