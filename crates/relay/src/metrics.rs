// SPDX-License-Identifier: Apache-2.0
//! Metrics, read off the pool when somebody asks.

use crate::pool::Nodes;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Between attempts to listen.
const PACE: Duration = Duration::from_secs(5);

/// Serves `/metrics` for ever; tries again while the port is taken.
pub(crate) async fn serve(address: SocketAddr, nodes: Nodes) {
    let render = move || async move { ([(CONTENT_TYPE, OPENMETRICS)], render(&nodes)) };
    let router = Router::new().route("/metrics", get(render));
    loop {
        let served = match TcpListener::bind(address).await {
            Ok(listener) => axum::serve(listener, router.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::warn!(%address, %error, "metrics are not served");
        }
        tokio::time::sleep(PACE).await;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

fn render(nodes: &Nodes) -> String {
    let mut registry = Registry::with_prefix("hubble_relay");
    let connections = Family::<Status, Gauge>::default();
    registry.register("pool_peer_connection_status", "Nodes by the state of their connection", connections.clone());
    let (mut ready, mut failed) = (0, 0);
    for node in nodes.borrow().values() {
        *if node.channel().is_some() { &mut ready } else { &mut failed } += 1;
    }
    connections.get_or_create(&Status { status: "READY" }).set(ready);
    connections.get_or_create(&Status { status: "TRANSIENT_FAILURE" }).set(failed);
    let mut text = String::new();
    // Writing to a text does not fail.
    let _ = encode(&mut text, &registry);
    text
}
