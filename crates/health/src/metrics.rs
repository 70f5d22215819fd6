// SPDX-License-Identifier: Apache-2.0
//! The metrics of this feature, under Cilium's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rest::{Connectivity, HealthStatusResponse, PathStatus};
use std::time::Duration;

/// The metrics; clones share their counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    unreachable_nodes: Gauge,
    unreachable_endpoints: Gauge,
    status: Family<Status, Gauge>,
    latency: Family<Latency, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    r#type: &'static str,
    status: &'static str,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Latency {
    /// [`NODE`] or [`ENDPOINT`].
    pub(crate) r#type: &'static str,
    /// `primary` or `secondary`.
    pub(crate) address_type: &'static str,
    /// `icmp` or `http`.
    pub(crate) protocol: &'static str,
}

/// A node's own addresses.
pub(crate) const NODE: &str = "node";
/// Those of its health endpoint.
pub(crate) const ENDPOINT: &str = "endpoint";

impl Default for Metrics {
    fn default() -> Self {
        Self {
            unreachable_nodes: Gauge::default(),
            unreachable_endpoints: Gauge::default(),
            status: Family::default(),
            latency: Family::new_with_constructor(seconds),
        }
    }
}

fn seconds() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Metrics {
    /// Registers them; the registry's prefix is prepended to their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("unreachable_nodes", "Nodes that cannot be reached", self.unreachable_nodes.clone());
        registry.register(
            "unreachable_health_endpoints",
            "Health endpoints that cannot be reached",
            self.unreachable_endpoints.clone(),
        );
        registry.register(
            "node_health_connectivity_status",
            "Addresses of nodes and of health endpoints, by the outcome of the last probe over ICMP and HTTP",
            self.status.clone(),
        );
        registry.register(
            "node_health_connectivity_latency_seconds",
            "Round trips of answered probes in seconds",
            self.latency.clone(),
        );
    }

    /// Creates a sample of each, since one with labels is otherwise absent. The reference is generated from this.
    pub fn sample(&self) {
        self.show(&HealthStatusResponse::default());
        drop(self.latency.get_or_create(&Latency { r#type: NODE, address_type: "primary", protocol: "icmp" }));
    }

    /// A probe was answered.
    pub(crate) fn answered(&self, what: Latency, latency: Duration) {
        self.latency.get_or_create(&what).observe(latency.as_secs_f64());
    }

    /// Sets the gauges from the current results.
    pub(crate) fn show(&self, status: &HealthStatusResponse) {
        let nodes = Count::of(status.nodes.iter().map(|node| node.host_paths()));
        let endpoints = Count::of(status.nodes.iter().map(|node| node.endpoint_paths()));
        self.unreachable_nodes.set(nodes.primary);
        self.unreachable_endpoints.set(endpoints.primary);
        for (r#type, count) in [(NODE, nodes), (ENDPOINT, endpoints)] {
            for (status, value) in count.addresses {
                self.status.get_or_create(&Status { r#type, status: status.as_str() }).set(value);
            }
        }
    }
}

/// Addresses by result.
struct Count {
    /// Unreachable primary addresses.
    primary: i64,
    /// All addresses.
    addresses: [(Connectivity, i64); 3],
}

impl Count {
    fn of<'a, P: Iterator<Item = &'a PathStatus>>(nodes: impl Iterator<Item = P>) -> Self {
        let all = [Connectivity::Reachable, Connectivity::Unreachable, Connectivity::Unknown];
        let mut count = Self { primary: 0, addresses: all.map(|kind| (kind, 0)) };
        for paths in nodes {
            for (index, path) in paths.enumerate() {
                let found = path.connectivity();
                count.primary += i64::from(index == 0 && found == Connectivity::Unreachable);
                for (kind, value) in &mut count.addresses {
                    *value += i64::from(*kind == found);
                }
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rest::{ConnectivityStatus, HealthEndpointStatus, HostStatus, NodeStatus};

    fn path(status: Option<&str>) -> PathStatus {
        let probe = status.map(|why| ConnectivityStatus { status: why.to_owned(), ..ConnectivityStatus::default() });
        PathStatus { ip: String::new(), icmp: probe.clone(), http: probe }
    }

    #[test]
    fn a_node_is_counted_once_and_each_of_its_addresses_by_its_state() {
        let host = HostStatus {
            primary_address: Some(path(Some("timed out"))),
            secondary_addresses: vec![path(Some("timed out")), path(None)],
        };
        let endpoint = HealthEndpointStatus { primary_address: Some(path(Some(""))), secondary_addresses: Vec::new() };
        let node = NodeStatus { host: Some(host), health_endpoint: Some(endpoint), ..NodeStatus::default() };
        let metrics = Metrics::default();
        metrics.show(&HealthStatusResponse { nodes: vec![node], ..HealthStatusResponse::default() });
        metrics.answered(Latency { r#type: NODE, address_type: "primary", protocol: "icmp" }, Duration::from_millis(2));
        let mut registry = Registry::with_prefix("cilium");
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            "cilium_unreachable_nodes 1",
            "cilium_unreachable_health_endpoints 0",
            "cilium_node_health_connectivity_status{type=\"node\",status=\"unreachable\"} 2",
            "cilium_node_health_connectivity_status{type=\"node\",status=\"unknown\"} 1",
            "cilium_node_health_connectivity_status{type=\"endpoint\",status=\"reachable\"} 1",
            "cilium_node_health_connectivity_latency_seconds_bucket{le=\"0.0025\",type=\"node\",address_type=\"primary\",protocol=\"icmp\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
    }
}
