// SPDX-License-Identifier: Apache-2.0
//! `/healthz` for the kubelet's probes and `/metrics` for Prometheus.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::progress::Progress;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use statedb::Tasks;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    serve("api", bind(config.api_address).await?, health, tasks);
    if let Some(address) = config.metrics_address {
        let metrics = metrics.clone();
        let render = move || async move { ([(CONTENT_TYPE, OPENMETRICS)], metrics.render()) };
        serve("metrics", bind(address).await?, Router::new().route("/metrics", get(render)), tasks);
    }
    Ok(())
}

/// All addresses of both families, or only IPv4 where there is no IPv6.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

fn serve(name: &'static str, listener: TcpListener, router: Router, tasks: &Tasks) {
    tasks.spawn_fallible(name, async move { axum::serve(listener, router).await });
}
