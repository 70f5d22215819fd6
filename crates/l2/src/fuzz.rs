// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: announcement policies, and the Services that they select. Not part of the product.

use crate::policy::ingest_policy;
use crate::service::ingest_service;
use k8s::k8s_openapi::jiff::Timestamp;

/// An object in JSON after a byte that names its kind: the same object gives the same row.
pub fn object(data: &[u8]) {
    match data.split_first() {
        Some((b'L', json)) => {
            if let Some(object) = k8s::fuzz::object(json) {
                let policy = ingest_policy(&object);
                assert_eq!(policy, ingest_policy(&object));
                drop(policy.map(|policy| policy.corrected_conditions(Timestamp::UNIX_EPOCH)));
            }
        }
        Some((b'v', json)) => {
            if let Some(object) = k8s::fuzz::object(json) {
                assert_eq!(ingest_service(&object), ingest_service(&object));
            }
        }
        _ => {}
    }
}
