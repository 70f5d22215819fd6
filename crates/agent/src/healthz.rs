// SPDX-License-Identifier: Apache-2.0
//! `GET /healthz` on the loopback address, for the probes of Kubernetes (contracts G: probes).

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Answers whether the agent is well: an error is what is wrong.
pub(crate) trait Probe: Send + Sync + 'static {
    /// `kubernetes` tells whether a lost connection to the API server counts.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn check(&self, kubernetes: bool) -> Result<(), String>;
}

/// Opens the socket; it is served by [`serve`].
///
/// # Errors
///
/// The port is in use.
pub(crate) async fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

/// Serves the probes.
///
/// # Errors
///
/// The socket fails.
pub(crate) async fn serve(listener: TcpListener, probe: Arc<dyn Probe>) -> std::io::Result<()> {
    axum::serve(listener, router(probe)).await
}

fn router(probe: Arc<dyn Probe>) -> Router {
    Router::new().route("/healthz", get(healthz)).with_state(probe)
}

async fn healthz(State(probe): State<Arc<dyn Probe>>, headers: HeaderMap) -> (StatusCode, String) {
    let kubernetes = headers.get("require-k8s-connectivity").is_none_or(|v| v != "false");
    match probe.check(kubernetes) {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    struct Disconnected;

    impl Probe for Disconnected {
        fn check(&self, kubernetes: bool) -> Result<(), String> {
            if kubernetes { Err("the API server does not answer".to_owned()) } else { Ok(()) }
        }
    }

    async fn ask(header: &str) -> StatusCode {
        let request = Request::get("/healthz").header("require-k8s-connectivity", header).body(Body::empty()).unwrap();
        router(Arc::new(Disconnected)).oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_lost_api_server_fails_readiness_but_not_liveness() {
        assert_eq!(ask("true").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("false").await, StatusCode::OK);
    }
}
