// SPDX-License-Identifier: Apache-2.0
//! `/healthz` for the kubelet's probes and `/metrics` for Prometheus.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::progress::Progress;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use statedb::Tasks;
use tokio::net::TcpListener;

/// Opens the sockets and serves them.
///
/// An operator that makes no progress is unhealthy. One that is waiting for the lease is healthy.
pub(crate) async fn start(
    config: &Config,
    metrics: &Metrics,
    progress: &Progress,
    tasks: &Tasks,
) -> std::io::Result<()> {
    let progress = progress.clone();
    let healthz = move || async move {
        progress.stuck().map_or((StatusCode::OK, "ok".to_owned()), |what| (StatusCode::SERVICE_UNAVAILABLE, what))
    };
    let health = Router::new().route("/healthz", get(healthz));
    serve("api", surface::listen(config.api_address).await?, health, tasks);
    if let Some(address) = config.metrics_address {
        let metrics = metrics.clone();
        serve("metrics", surface::listen(address).await?, surface::metrics_page(move || metrics.render()), tasks);
    }
    Ok(())
}

fn serve(name: &'static str, listener: TcpListener, router: Router, tasks: &Tasks) {
    tasks.spawn(name, async move { match surface::serve_pages(listener, router).await {} });
}
