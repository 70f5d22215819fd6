// SPDX-License-Identifier: Apache-2.0
//! `/healthz` of the node's service proxy.

use super::http::{self, Answer};
use crate::ingest::OwnNode;
use hyper::StatusCode;
use k8s::k8s_openapi::jiff::Timestamp;
use model::Frontend;
use serde_json::json;
use statedb::{Reader, StatusReader};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tracing::warn;

/// How long to wait for somebody else to leave the port.
const RETRY: Duration = Duration::from_secs(5);

/// Whether the maps have held all that is known.
pub(crate) fn is_healthy(status: &StatusReader<Frontend>) -> bool {
    let summary = status.summary();
    summary.pruned && summary.prune_error.is_none()
}

/// Serves it there. Whoever has the port, such as a kube-proxy that is still running, is waited for.
pub(crate) async fn serve(address: SocketAddr, status: StatusReader<Frontend>, own_node: Reader<OwnNode>) {
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
        let eligible = match path {
            "/healthz" => Some(!own_node.snapshot().iter().any(|node| node.leaving)),
            "/livez" => None,
            _ => return None,
        };
        Some(answer(is_healthy(&status), eligible, started, Timestamp::now()))
    };
    http::serve(listener, answer).await;
}

/// To who asks for health, a node that is about to go is not eligible; to who asks for life, that says nothing.
fn answer(healthy: bool, eligible: Option<bool>, started: Timestamp, now: Timestamp) -> Answer {
    let updated = if healthy { now } else { started };
    let mut body = json!({"lastUpdated": updated.to_string(), "currentTime": now.to_string()});
    if let (Some(body), Some(eligible)) = (body.as_object_mut(), eligible) {
        body.insert("nodeEligible".to_owned(), eligible.into());
    }
    let ok = healthy && eligible != Some(false);
    Answer { status: if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body, weight: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_node_is_healthy_once_its_maps_have_held_everything() {
        let [started, now]: [Timestamp; 2] =
            ["2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"].map(|time| time.parse().unwrap());
        let (before, after) = (answer(false, None, started, now), answer(true, None, started, now));
        assert_eq!((before.status, after.status), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
        assert_eq!(before.body["lastUpdated"], "2026-01-01T00:00:00Z");
        assert_eq!(after.body["lastUpdated"], after.body["currentTime"]);
        assert_eq!(after.body.get("nodeEligible"), None);
    }

    #[test]
    fn a_node_that_is_about_to_go_lives_and_is_not_eligible() {
        let now = "2026-01-01T00:00:09Z".parse().unwrap();
        for (healthy, eligible, status) in [(true, true, 200), (true, false, 503), (false, true, 503)] {
            let answer = answer(healthy, Some(eligible), now, now);
            assert_eq!((answer.status.as_u16(), &answer.body["nodeEligible"]), (status, &eligible.into()));
        }
    }
}
