// SPDX-License-Identifier: Apache-2.0
//! The metrics of the operator, under Cilium's names.

use lbipam::{Counts, Totals};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

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

/// Label of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LbPool {
    pool: String,
}

/// Of addresses of Services.
#[derive(Clone, Debug, Default)]
struct LbIpam {
    conflicting_pools: Gauge,
    available: Family<LbPool, Gauge<f64, AtomicU64>>,
    used: Family<LbPool, Gauge>,
    matching: Gauge,
    unsatisfied: Gauge,
}

impl LbIpam {
    fn register(&self, registry: &mut Registry) {
        registry.register("lbipam_conflicting_pools", "Pools that overlap others", self.conflicting_pools.clone());
        registry.register("lbipam_ips_available", "Addresses of a pool that are free", Family::clone(&self.available));
        registry.register("lbipam_ips_used", "Addresses of a pool that Services have", Family::clone(&self.used));
        registry.register("lbipam_services_matching", "Services that ask for addresses", self.matching.clone());
        registry.register("lbipam_services_unsatisfied", "Services that lack an address", self.unsatisfied.clone());
    }
}

/// The metrics. Clones share their counts.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    runs: Family<Run, Counter>,
    nodes: Family<NodeCategory, Gauge>,
    lb_ipam: LbIpam,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cilium_operator");
        let (runs, nodes) = (Family::default(), Family::default());
        registry.register("controllers_group_runs", "Runs of each group of controllers", Family::clone(&runs));
        registry.register("ipam_nodes", "Nodes by whether they have their pod CIDRs", Family::clone(&nodes));
        let lb_ipam = LbIpam::default();
        lb_ipam.register(&mut registry);
        Self { registry: Arc::new(Mutex::new(registry)), runs, nodes, lb_ipam }
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
            self.nodes.get_or_create(&NodeCategory { category }).set(gauge(count));
        }
    }

    /// How many addresses of a pool are in use and how many are free.
    pub(crate) fn lb_pool(&self, pool: &str, Counts { used, available }: Counts) {
        let label = LbPool { pool: pool.to_owned() };
        self.lb_ipam.used.get_or_create(&label).set(gauge(used));
        #[expect(clippy::cast_precision_loss, reason = "what has more digits is not counted to the last one")]
        self.lb_ipam.available.get_or_create(&label).set(available as f64);
    }

    /// Removes a pool.
    pub(crate) fn forget_lb_pool(&self, pool: &str) {
        let label = LbPool { pool: pool.to_owned() };
        self.lb_ipam.used.remove(&label);
        self.lb_ipam.available.remove(&label);
    }

    /// How many pools and Services there are.
    pub(crate) fn lb_totals(&self, totals: Totals) {
        self.lb_ipam.conflicting_pools.set(gauge(totals.conflicting_pools));
        self.lb_ipam.matching.set(gauge(totals.services));
        self.lb_ipam.unsatisfied.set(gauge(totals.unsatisfied));
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

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// All metrics with a sample of each, since one with labels is otherwise absent. The reference is generated from it.
#[must_use]
pub fn example_metrics() -> String {
    let metrics = Metrics::default();
    let Metrics { registry: _, runs, nodes, lb_ipam: _ } = &metrics;
    drop(runs.get_or_create(&Run { status: "success", group_name: "" }));
    drop(nodes.get_or_create(&NodeCategory { category: "total" }));
    metrics.lb_pool("", Counts { used: 0, available: 0 });
    metrics.render()
}

#[cfg(test)]
mod tests {
    use super::{Counts, Metrics, Totals};

    #[test]
    fn metrics_have_the_names_that_dashboards_ask_for() {
        let metrics = Metrics::default();
        metrics.ran("endpoint-gc", true);
        metrics.ipam_nodes(3, 1);
        metrics.lb_pool("gone", Counts { used: 1, available: 1 });
        metrics.forget_lb_pool("gone");
        metrics.lb_pool("blue", Counts { used: 2, available: 250 });
        metrics.lb_totals(Totals { conflicting_pools: 1, services: 5, unsatisfied: 3 });
        let text = metrics.render();
        for line in [
            r#"cilium_operator_controllers_group_runs_total{status="success",group_name="endpoint-gc"} 1"#,
            r#"cilium_operator_ipam_nodes{category="in-deficit"} 1"#,
            "cilium_operator_lbipam_conflicting_pools 1",
            r#"cilium_operator_lbipam_ips_available{pool="blue"} 250.0"#,
            r#"cilium_operator_lbipam_ips_used{pool="blue"} 2"#,
            "cilium_operator_lbipam_services_matching 5",
            "cilium_operator_lbipam_services_unsatisfied 3",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("gone"), "{text}");
    }
}
