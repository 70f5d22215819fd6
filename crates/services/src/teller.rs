// SPDX-License-Identifier: Apache-2.0
//! Tells authors of Services and pods what this node does not do for them, once that has lasted: what heals by itself is not told.

use crate::ingest::Service;
use crate::problems;
use k8s::{Warning, Warnings, pod_reference};
use model::{Pod, PodName, ServiceName};
use statedb::Reader;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a failure must last.
const WHILE: Duration = Duration::from_secs(5);

/// Knows whom to tell.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) services: Reader<Service>,
    pub(crate) pods: Reader<Pod>,
    pub(crate) node: Arc<str>,
    pub(crate) warnings: Warnings,
}

impl Teller {
    /// Tells the author of a Service, if it is one: what pods ask of their node, and policies, are none.
    pub(crate) fn service(&self, service: &ServiceName, reason: &'static str, says: &str) {
        if let Some(row) = self.services.snapshot().get(service) {
            self.warn(problems::reference(&row.name, &row.uid), reason, says);
        }
    }

    /// Tells the author of a pod of this node.
    pub(crate) fn pod(&self, pod: &PodName, reason: &'static str, says: &str) {
        if let Some(row) = self.pods.snapshot().get(pod) {
            self.warn(pod_reference(&row.name.namespace, &row.name.name, &row.uid), reason, says);
        }
    }

    fn warn(&self, about: k8s::k8s_openapi::api::core::v1::ObjectReference, reason: &'static str, says: &str) {
        let note = format!("Node {} {says}", self.node);
        self.warnings.warn(Warning { about, reason, action: "Serve", note });
    }
}

/// What fails, and since when.
#[derive(Debug)]
pub(crate) struct Failing<K>(BTreeMap<K, Instant>);

impl<K> Default for Failing<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Failing<K> {
    /// It fails once more. Whether it has done so for a while.
    pub(crate) fn has_lasted(&mut self, key: &K) -> bool {
        self.0.entry(key.clone()).or_insert_with(Instant::now).elapsed() >= WHILE
    }

    pub(crate) fn end(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}
