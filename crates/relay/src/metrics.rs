// SPDX-License-Identifier: Apache-2.0
//! Metrics, read off the pool when somebody asks.

use crate::pool::Nodes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

/// As Prometheus reads them.
pub(crate) fn render(nodes: &Nodes) -> String {
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
