// SPDX-License-Identifier: Apache-2.0
//! Events of Kubernetes about dropped packets, as who has a pod sees them.

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};

use crate::PATIENCE;

/// Nobody but `nobody` may ask `echo`.
pub(crate) const CLOSED: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: { name: closed, namespace: net }\n\
    spec:\n  endpointSelector: { matchLabels: { app: echo } }\n  \
    ingress: [{ fromEndpoints: [{ matchLabels: { app: nobody } }] }]\n";

/// The pod that is kept from an answer, and nobody else, has an Event that names who asked.
pub(crate) fn told(cluster: &Cluster) -> Result<()> {
    let near = cluster.pod_addresses("net", "near")?[0];
    cluster.apply(CLOSED)?;
    let told = eventually(PATIENCE, "an Event about the dropped packet", || {
        let refused =
            cluster.exec("net", "client", &["curl", "-fsS", "-m", "1", &format!("http://{near}:8080/hostname")]);
        ensure!(refused.is_err(), "it is let in");
        let list = cluster.get(&["events", "--namespace=net", "--field-selector=reason=PacketDrop"])?;
        let events = list["items"].as_array().context("no list")?;
        let names = |event: &&serde_json::Value| {
            let note = event["message"].as_str().unwrap_or_default();
            note.starts_with("An incoming packet was dropped (policy_denied): TCP port 8080 from net/client")
        };
        let event = events.iter().find(names).with_context(|| list.to_string())?;
        ensure!(event["involvedObject"]["name"] == "near" && event["type"] == "Warning", "{event}");
        ensure!(!events.iter().any(|event| event["involvedObject"]["name"] == "client"), "{list}");
        Ok(())
    });
    cluster.kubectl(&["delete", "--namespace=net", "ciliumnetworkpolicy", "closed"])?;
    told
}
