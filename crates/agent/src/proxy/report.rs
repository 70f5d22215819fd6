// SPDX-License-Identifier: Apache-2.0
//! Tells the operator what the node's proxies have in force, in a ConfigMap.

use super::Proxy;
use gateway::InForce;
use k8s::k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s::kube::Error;
use k8s::kube::api::{ListParams, Patch, PatchParams};
use statedb::{Backoff, Reader, Retries};
use std::time::Duration;

const FIELD_MANAGER: &str = "cilium-agent";
/// Waits between attempts that fail.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

pub(super) struct Report {
    pub(super) client: k8s::Client,
    /// Name of this node.
    pub(super) node: String,
    pub(super) namespace: String,
}

impl Report {
    /// Keeps the ConfigMap equal to what is in force. Not before all proxies have said so: those that have yet to say may have more.
    pub(super) async fn keep(self, proxies: Reader<Proxy>) {
        proxies.initialized().await;
        let mut changes = proxies.subscribe();
        let mut retries = Retries::new(RETRY);
        let (mut written, mut due) = (None, None);
        loop {
            tokio::select! {
                _ = changes.next() => {}
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
            }
            let in_force = newest(&proxies);
            if written.as_ref() == Some(&in_force) {
                continue;
            }
            match self.write(&in_force).await {
                Ok(()) => {
                    retries.succeeded();
                    (written, due) = (Some(in_force), None);
                }
                Err(error) => {
                    if due.is_none() {
                        tracing::warn!(error = k8s::chain(&error), "cannot tell what the proxy has in force");
                    }
                    due = Some(retries.failed());
                }
            }
        }
    }

    async fn write(&self, in_force: &InForce) -> Result<(), Error> {
        let named = ListParams::default().fields(&format!("metadata.name={}", self.node));
        // Without the node there is nobody to report for; its removal takes the report along.
        let Some(node) = self.client.all::<Node>().list(&named).await?.items.pop() else { return Ok(()) };
        let report = gateway::report_object(&node, &self.namespace, in_force);
        let name = report.metadata.name.clone().unwrap_or_default();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.client.namespaced::<ConfigMap>(&self.namespace);
        api.patch(&name, &params, &Patch::Apply(report)).await.map(drop)
    }
}

/// Of each Gateway and ListenerSet, the newest generation that any proxy of this node has in force. A port is closed if nobody has it who
/// stays.
fn newest(proxies: &Reader<Proxy>) -> InForce {
    let proxies = proxies.snapshot();
    let mut newest = InForce::default();
    for proxy in proxies.iter() {
        for (object, generation) in &proxy.in_force.generations {
            let present = newest.generations.entry(object.clone()).or_insert(*generation);
            *present = (*present).max(*generation);
        }
    }
    let stay = proxies.iter().filter(|proxy| !proxy.leaving).map(|proxy| proxy.in_force.closed.clone());
    newest.closed = stay.reduce(|some, others| &some & &others).unwrap_or_default();
    newest
}
