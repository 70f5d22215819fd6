// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: pools, and Services that may get addresses. Not part of the product.

use crate::{Config, Hosts, NodePlace, NodeService, Pool, Service};
use k8s::k8s_openapi::jiff::Timestamp;
use std::fmt::Debug;

const CONFIG: Config = Config { default_class: true, ipv4: true, ipv6: true };

/// An object in JSON after a byte that names its kind: whatever it asks for, it can be decided on.
pub fn object(data: &[u8]) {
    match data.split_first() {
        Some((b'P', json)) => {
            if let Some(pool) = row(k8s::fuzz::object(json), Pool::ingest) {
                decide(&[pool], &[]);
            }
        }
        Some((b'v', json)) => {
            drop(row(k8s::fuzz::object(json), |object| NodeService::ingest(CONFIG, object)));
            if let Some(service) = row(k8s::fuzz::object(json), |object| Service::ingest(CONFIG, object)) {
                decide(&[], &[service]);
            }
        }
        Some((b'l', json)) => drop(row(k8s::fuzz::object(json), Hosts::ingest)),
        Some((b'k', json)) => drop(row(k8s::fuzz::object(json), NodePlace::ingest)),
        _ => {}
    }
}

fn row<T, R: PartialEq + Debug>(object: Option<T>, ingest: impl Fn(&T) -> Option<R>) -> Option<R> {
    let object = object?;
    let row = ingest(&object);
    assert_eq!(row, ingest(&object));
    row
}

/// Nothing is left to decide after the first time.
fn decide(pools: &[Pool], services: &[Service]) {
    let mut allocator = crate::Allocator::default();
    pools.iter().cloned().for_each(|pool| allocator.set_pool(pool));
    services.iter().cloned().for_each(|service| allocator.set_service(service));
    let settled = allocator.settle();
    for name in &settled.pools {
        drop(allocator.pool_update(name, Timestamp::UNIX_EPOCH));
    }
    for name in &settled.services {
        drop(allocator.service_update(name, Timestamp::UNIX_EPOCH));
    }
    assert_eq!(allocator.settle().considered, 0);
}
