// SPDX-License-Identifier: Apache-2.0
//! The ipcache in the agent's REST API: `GET /v1/ip`.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use model::{IpEntry, IpSource};
use rest::{IpListEntry, IpListEntryMetadata};
use statedb::Reader;

pub(crate) fn routes(entries: Reader<IpEntry>) -> Router {
    Router::new().route("/v1/ip", get(list)).with_state(entries)
}

async fn list(State(entries): State<Reader<IpEntry>>) -> Json<Vec<IpListEntry>> {
    Json(entries.snapshot().iter().map(|row| render(row)).collect())
}

fn render(row: &IpEntry) -> IpListEntry {
    let source = match row.source {
        IpSource::Generated => "generated",
        IpSource::CustomResource => "custom-resource",
        IpSource::KubeApiserver => "kube-apiserver",
        IpSource::Local => "local",
    };
    let pod = row.pod.as_ref().map(|pod| &pod.pod);
    IpListEntry {
        cidr: row.prefix.to_string(),
        identity: row.identity.0,
        host_ip: row.host.map(|ip| ip.to_string()).unwrap_or_default(),
        encrypt_key: 0,
        metadata: Some(IpListEntryMetadata {
            source: source.to_owned(),
            namespace: pod.map(|p| p.namespace.to_string()).unwrap_or_default(),
            name: pod.map(|p| p.name.to_string()).unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests;
