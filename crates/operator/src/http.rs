// SPDX-License-Identifier: Apache-2.0
//! `/healthz` for the kubelet's probes and `/metrics` for Prometheus.

use crate::config::Config;
use crate::metrics::Metrics;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use statedb::Tasks;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Opens the sockets and serves them.
///
/// A restart does not bring an API server back, so the operator is healthy as long as it answers.
pub(crate) async fn start(config: &Config, metrics: &Metrics, tasks: &Tasks) -> std::io::Result<()> {
    let health = Router::new().route("/healthz", get(|| async { "ok" }));
    serve("api", bind(config.api_address).await?, health, tasks);
    if let Some(address) = config.metrics_address {
        let metrics = metrics.clone();
        let render = move || async move { ([(CONTENT_TYPE, OPENMETRICS)], metrics.render()) };
        serve("metrics", bind(address).await?, Router::new().route("/metrics", get(render)), tasks);
    }
    Ok(())
}

/// All addresses of both families, or of IPv4 where there is no IPv6.
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
