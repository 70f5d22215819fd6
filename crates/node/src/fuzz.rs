// SPDX-License-Identifier: Apache-2.0
//! Fuzz target: Nodes and CiliumNodes. Not part of the product.

use crate::ingest::{ingest_kube_node, ingest_node};
use k8s::Ingested;

/// An object in JSON after a byte that names its kind: no other node passes for this one.
pub fn object(data: &[u8]) {
    match data.split_first() {
        Some((b'o', json)) => {
            if let Ok(object) = serde_json::from_slice(json)
                && let Ingested::Row(node) | Ingested::Part(node, _) = ingest_node("blue", "here", &object)
            {
                assert_eq!(node.local, &*node.name == "here", "{node:?}");
            }
        }
        Some((b'k', json)) => {
            if let Ok(object) = serde_json::from_slice(json) {
                drop(ingest_kube_node(&object));
            }
        }
        _ => {}
    }
}
