// SPDX-License-Identifier: Apache-2.0
//! Every metric of the operator (contracts J).

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Labels of a controller's runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Run {
    status: &'static str,
    group_name: &'static str,
}

/// Label of a group of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeCategory {
    category: &'static str,
}

/// The metrics. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    runs: Family<Run, Counter>,
    nodes: Family<NodeCategory, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cilium_operator");
        let (runs, nodes) = (Family::default(), Family::default());
        registry.register("controllers_group_runs", "Runs of each group of controllers", Family::clone(&runs));
        registry.register("ipam_nodes", "Nodes by whether they have their pod CIDRs", Family::clone(&nodes));
        Self { registry: Arc::new(Mutex::new(registry)), runs, nodes }
    }
}

impl Metrics {
    /// Counts a run of a controller.
    pub(crate) fn ran(&self, group_name: &'static str, ok: bool) {
        self.runs.get_or_create(&Run { status: if ok { "success" } else { "failure" }, group_name }).inc();
    }

    /// How many nodes there are, and how many of them get no pod CIDRs.
    pub(crate) fn ipam_nodes(&self, total: usize, in_deficit: usize) {
        for (category, count) in [("total", total), ("in-deficit", in_deficit)] {
            self.nodes.get_or_create(&NodeCategory { category }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// As Prometheus reads them.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}

/// The page with a sample of each metric, without which one with labels is not there. The reference is made of it.
#[must_use]
pub fn example_metrics() -> String {
    let metrics = Metrics::default();
    let Metrics { registry: _, runs, nodes } = &metrics;
    drop(runs.get_or_create(&Run { status: "success", group_name: "" }));
    drop(nodes.get_or_create(&NodeCategory { category: "total" }));
    metrics.render()
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn metrics_have_the_names_that_dashboards_ask_for() {
        let metrics = Metrics::default();
        metrics.ran("endpoint-gc", true);
        metrics.ipam_nodes(3, 1);
        let text = metrics.render();
        for line in [
            r#"cilium_operator_controllers_group_runs_total{status="success",group_name="endpoint-gc"} 1"#,
            r#"cilium_operator_ipam_nodes{category="in-deficit"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
