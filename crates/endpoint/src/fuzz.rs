// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: calls of the plugin, pods, and what the agent reads from disk and from its socket. Not part of the
//! product.

#![allow(clippy::expect_used, reason = "a wrong answer is to be loud")]

pub use crate::cni::fuzz::call;

use crate::ingest_pod;
use crate::reference::EndpointRef;
use crate::rest::{EndpointBatchDeleteRequest, EndpointChangeRequest};
use model::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A pod in JSON after the byte `p`: the same object gives the same row.
pub fn object(data: &[u8]) {
    if let Some((b'p', json)) = data.split_first()
        && let Ok(pod) = serde_json::from_slice(json)
    {
        assert_eq!(ingest_pod(&pod), ingest_pod(&pod));
    }
}

/// The content of a file or of a request, after a byte that says which.
pub fn document(data: &[u8]) {
    match data.split_first() {
        Some((b's', json)) => kept::<Endpoint>(json),
        Some((b'q', json)) => kept::<EndpointBatchDeleteRequest>(json),
        Some((b'c', json)) => kept::<EndpointChangeRequest>(json),
        Some((b'n', name)) => drop(String::from_utf8_lossy(name).parse::<EndpointRef>()),
        _ => {}
    }
}

/// What can be read survives writing and reading again.
fn kept<T: DeserializeOwned + Serialize + PartialEq + Debug>(json: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(json) {
        let written = serde_json::to_vec(&value).expect("what was read can be written");
        let again: T = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, value);
    }
}
