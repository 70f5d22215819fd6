// SPDX-License-Identifier: Apache-2.0
//! Fuzz target: objects written by users and other agents. Not part of the product.

use crate::rules::Policy;
use crate::{
    Context, ingest_api_servers, ingest_cidr_group, ingest_cilium_policy, ingest_clusterwide_policy, ingest_endpoint,
    ingest_identity, ingest_namespace, ingest_network_policy,
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::LazyLock;

static CONTEXT: LazyLock<Context> =
    LazyLock::new(|| Context { cluster: "blue".into(), default_local_cluster: true, sctp: true });

/// An object in JSON after a byte that names its kind.
pub fn object(data: &[u8]) {
    let Some((kind, json)) = data.split_first() else { return };
    match kind {
        b'n' => policy(json, |object| ingest_network_policy(&CONTEXT, object)),
        b'c' => policy(json, |object| ingest_cilium_policy(&CONTEXT, object)),
        b'w' => policy(json, |object| ingest_clusterwide_policy(&CONTEXT, object)),
        b'g' => drop(row(json, ingest_cidr_group)),
        b'i' => drop(row(json, ingest_identity)),
        b'e' => drop(row(json, |object| ingest_endpoint(&"default".into(), object))),
        b's' => drop(row(json, ingest_namespace)),
        b'a' => drop(row(json, ingest_api_servers)),
        _ => {}
    }
}

/// The row of an object; the same object gives the same row.
fn row<T: DeserializeOwned, R: PartialEq + Debug>(json: &[u8], ingest: impl Fn(&T) -> R) -> Option<R> {
    let object = serde_json::from_slice(json).ok()?;
    let row = ingest(&object);
    assert_eq!(row, ingest(&object));
    Some(row)
}

/// An invalid policy has no rules and says why.
fn policy<T: DeserializeOwned>(json: &[u8], ingest: impl Fn(&T) -> Option<Policy>) {
    if let Some(policy) = row(json, ingest).flatten() {
        assert!(policy.valid || (policy.rules.is_empty() && !policy.problems.is_empty()), "{policy:?}");
        assert!(policy.problems.iter().all(|problem| !problem.field.is_empty() && !problem.reason.is_empty()));
    }
}
