// SPDX-License-Identifier: Apache-2.0
//! Tells the operator what the node's proxies have in force, in a ConfigMap.

use super::Proxy;
use gateway::{InForce, Unserved};
use k8s::k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s::kube::Error;
use k8s::kube::api::{ListParams, Patch, PatchParams};
use statedb::{Backoff, Change, Reader, Retries};
use std::collections::BTreeMap;
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

/// What has been written.
#[derive(Default)]
struct Written {
    /// All of this.
    whole: Option<InForce>,
    /// By name.
    parts: BTreeMap<String, ConfigMap>,
}

impl Report {
    /// Keeps the ConfigMaps equal to what is in force. Not before all proxies have said so: those that have yet to say may have more.
    pub(super) async fn keep(self, proxies: Reader<Proxy>, unserved: Reader<Unserved>) {
        proxies.initialized().await;
        let (mut changes, mut others) = (proxies.subscribe(), unserved.subscribe());
        let mut retries = Retries::new(RETRY);
        let (mut written, mut due) = (Written::default(), None);
        loop {
            tokio::select! {
                _ = changes.next() => {}
                batch = others.next() => tell(&batch.changes),
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
            }
            match self.write(newest(&proxies, &unserved), &mut written).await {
                Ok(()) => {
                    retries.succeeded();
                    due = None;
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

    /// Writes what has changed. One part that is refused keeps no other from being written.
    async fn write(&self, in_force: InForce, written: &mut Written) -> Result<(), Error> {
        if written.whole.as_ref() == Some(&in_force) {
            return Ok(());
        }
        written.whole = None;
        let named = ListParams::default().fields(&format!("metadata.name={}", self.node));
        // Without the node there is nobody to report for; its removal takes the report along.
        let Some(node) = self.client.all::<Node>().list(&named).await?.items.pop() else { return Ok(()) };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.client.namespaced::<ConfigMap>(&self.namespace);
        let mut refused = None;
        for part in gateway::report_objects(&node, &self.namespace, &in_force) {
            let name = part.metadata.name.clone().unwrap_or_default();
            if written.parts.get(&name) == Some(&part) {
                continue;
            }
            match api.patch(&name, &params, &Patch::Apply(&part)).await {
                Ok(_) => drop(written.parts.insert(name, part)),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        written.whole = Some(in_force);
        Ok(())
    }
}

/// Of what is for Services nothing is told but this.
fn tell(changes: &[Change<Unserved>]) {
    for change in changes {
        if let Change::Upsert(row) = change {
            tracing::warn!(listener = row.listener, error = Unserved::REASON, "cannot serve a listener");
        }
    }
}

/// Of each Gateway and ListenerSet, the newest generation that any proxy of this node has in force. A port is closed if nobody has it who
/// stays, or no proxy was told of it.
fn newest(proxies: &Reader<Proxy>, unserved: &Reader<Unserved>) -> InForce {
    let proxies = proxies.snapshot();
    let mut newest = InForce::default();
    for proxy in proxies.iter() {
        newest.serves |= proxy.in_force.serves;
        for (object, generation) in &proxy.in_force.generations {
            let present = newest.generations.entry(object.clone()).or_insert(*generation);
            *present = (*present).max(*generation);
        }
    }
    let stay = proxies.iter().filter(|proxy| !proxy.leaving).map(|proxy| proxy.in_force.closed.clone());
    newest.closed = stay.reduce(|some, others| &some & &others).unwrap_or_default();
    newest.closed.extend(unserved.snapshot().iter().flat_map(|row| row.port.clone()));
    newest
}

#[cfg(test)]
mod tests;
