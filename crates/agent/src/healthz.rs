// SPDX-License-Identifier: Apache-2.0
//! `GET /healthz` on the loopback address, for Kubernetes' probes.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use std::sync::Arc;

/// Says whether the agent is healthy; the error is what is wrong.
pub(crate) trait Probe: Send + Sync + 'static {
    /// `kubernetes` says whether a lost connection to the API server counts.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn check(&self, kubernetes: bool) -> Result<(), String>;
}

/// The route.
pub(crate) fn router(probe: Arc<dyn Probe>) -> Router {
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
