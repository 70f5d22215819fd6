// SPDX-License-Identifier: Apache-2.0
//! `/healthz` of the node's service proxy.

use super::http::{self, Answer};
use hyper::StatusCode;
use k8s::k8s_openapi::jiff::Timestamp;
use model::Frontend;
use serde_json::json;
use statedb::StatusReader;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::warn;

/// How long to wait for somebody else to leave the port.
const RETRY: Duration = Duration::from_secs(5);

/// Serves it there. Whoever has the port, such as a kube-proxy that is still running, is waited for.
pub(crate) async fn serve(address: SocketAddr, status: StatusReader<Frontend>) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if told => drop(error),
            Err(error) => warn!(%address, %error, "kube-proxy-replacement-healthz-bind-address cannot be used yet"),
        }
        told = true;
        sleep(RETRY).await;
    };
    let started = Timestamp::now();
    let answer = move |path: &str| {
        let summary = status.summary();
        let healthy = summary.pruned && summary.prune_error.is_none();
        matches!(path, "/healthz" | "/livez").then(|| answer(healthy, started, Timestamp::now()))
    };
    http::serve(listener, answer).await;
}

/// Healthy is a node whose maps have held all that is known.
fn answer(healthy: bool, started: Timestamp, now: Timestamp) -> Answer {
    let updated = if healthy { now } else { started };
    Answer {
        status: if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        body: json!({"lastUpdated": updated.to_string(), "currentTime": now.to_string(), "nodeEligible": true}),
        weight: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_node_is_healthy_once_its_maps_have_held_everything() {
        let [started, now]: [Timestamp; 2] =
            ["2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"].map(|time| time.parse().unwrap());
        let (before, after) = (answer(false, started, now), answer(true, started, now));
        assert_eq!((before.status, after.status), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
        assert_eq!(before.body["lastUpdated"], "2026-01-01T00:00:00Z");
        assert_eq!(after.body["lastUpdated"], after.body["currentTime"]);
    }
}
