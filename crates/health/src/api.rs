// SPDX-License-Identifier: Apache-2.0
//! The API on the unix socket: what was found, and a request to look again.

use crate::retry;
use crate::run::Request;
use axum::extract::State;
use axum::routing::{get, put};
use axum::{Json, Router};
use model::config::duration_text;
use rest::{HealthResponse, HealthStatusResponse, LoadResponse, StatusResponse, listen};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

#[cfg(test)]
mod tests;

/// How long a request for fresh results may take before it gets the current ones.
const PROBE: Duration = Duration::from_secs(60);

/// What the handlers read.
pub(crate) struct Shared {
    /// What the last probes found.
    pub(crate) status: watch::Receiver<Arc<HealthStatusResponse>>,
    /// The prober.
    pub(crate) probe: mpsc::Sender<Request>,
    /// The agent's status.
    pub(crate) agent: Arc<dyn Fn() -> StatusResponse + Send + Sync>,
    /// Since when health is probed.
    pub(crate) since: Instant,
}

/// Serves for ever; retries a socket that cannot be opened.
pub(crate) async fn serve(socket: impl AsRef<Path>, shared: Shared) -> io::Result<()> {
    let socket = socket.as_ref();
    let listener =
        retry::open(&format!("health API on {}", socket.display()), || listen(socket).and_then(UnixListener::from_std))
            .await;
    axum::serve(listener, router(Arc::new(shared))).await
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1beta/healthz", get(healthz))
        .route("/v1beta/status", get(status))
        .route("/v1beta/status/probe", put(probe))
        .with_state(shared)
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Json<HealthResponse> {
    let load = tokio::fs::read_to_string("/proc/loadavg").await.ok().and_then(|text| load(&text));
    Json(HealthResponse {
        cilium: Some((shared.agent)()),
        uptime: duration_text(shared.since.elapsed()),
        system_load: load,
    })
}

fn load(text: &str) -> Option<LoadResponse> {
    let mut words = text.split_whitespace().map(str::to_owned);
    Some(LoadResponse { last1min: words.next()?, last5min: words.next()?, last15min: words.next()? })
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Arc<HealthStatusResponse>> {
    Json(Arc::clone(&shared.status.borrow()))
}

async fn probe(State(shared): State<Arc<Shared>>) -> Json<Arc<HealthStatusResponse>> {
    let ask = async {
        let (request, report) = oneshot::channel();
        shared.probe.send(request).await.ok()?;
        report.await.ok()
    };
    let fresh = timeout(PROBE, ask).await.ok().flatten();
    Json(fresh.unwrap_or_else(|| Arc::clone(&shared.status.borrow())))
}
