// SPDX-License-Identifier: Apache-2.0
//! Prometheus metrics of the agent (contracts J), read from tables and maps when somebody asks.

mod example;

pub use example::example_metrics;

use crate::tables::Tables;
use abi::maps::Metrics as Counters;
use abi::{DropReason, metrics::reason_and_direction};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use datapath::PerCpuMap;
use ipam::PoolUsage;
use model::{Endpoint, EndpointPolicy, Identity, Provenance};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use statedb::Reader;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the metrics are read from.
pub(crate) struct Sources {
    /// Packet counters of the kernel.
    pub(crate) counters: PerCpuMap<Counters>,
    /// Flows in the table, as the last collection counted them.
    pub(crate) flows: Arc<AtomicUsize>,
    /// Capacity of the flow table.
    pub(crate) flow_capacity: u32,
    /// Endpoints.
    pub(crate) endpoints: Reader<Endpoint>,
    /// Endpoints that policy has let in.
    pub(crate) policies: Reader<EndpointPolicy>,
    /// Identities.
    pub(crate) identities: Reader<Identity>,
    /// Rules.
    pub(crate) provenance: Reader<Provenance>,
    /// Pools.
    pub(crate) pools: Reader<PoolUsage>,
    /// Reconcilers.
    pub(crate) tables: Tables,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// One family of samples: name without prefix, help, and each sample's labels and value.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Vec<(&'static str, String)>, u64)>,
    counter: bool,
}

impl Family {
    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, samples: Vec::new(), counter: false }
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self { counter: true, ..Self::gauge(name, help) }
    }

    fn with(mut self, labels: &[(&'static str, &str)], value: u64) -> Self {
        self.push(labels, value);
        self
    }

    fn push(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.samples.push((labels.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(), value));
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = ConstGauge::new(0i64);
        let counter = ConstCounter::new(0u64);
        let kind = if self.counter { counter.metric_type() } else { gauge.metric_type() };
        let mut descriptor = encoder.encode_descriptor(self.name, self.help, None::<&Unit>, kind)?;
        for (labels, value) in &self.samples {
            let family = descriptor.encode_family(labels)?;
            if self.counter {
                ConstCounter::new(*value).encode(family)?;
            } else {
                ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX)).encode(family)?;
            }
        }
        Ok(())
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in self.packets().into_iter().chain(self.state()) {
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}

impl Sources {
    /// What the kernel counted. A map that cannot be read gives no samples rather than zeros.
    fn packets(&self) -> [Family; 4] {
        let mut families = [
            Family::counter("drop_count", "Packets dropped, by reason and direction"),
            Family::counter("drop_bytes", "Bytes dropped, by reason and direction"),
            Family::counter("forward_count", "Packets forwarded, by direction"),
            Family::counter("forward_bytes", "Bytes forwarded, by direction"),
        ];
        let [drops, drop_bytes, forwards, forward_bytes] = &mut families;
        for (slot, value) in self.counters.entries().unwrap_or_default() {
            if value.packets == 0 {
                continue;
            }
            let (reason, direction) = reason_and_direction(slot);
            let direction = direction_name(direction);
            if reason == 0 {
                forwards.push(&[("direction", direction)], value.packets);
                forward_bytes.push(&[("direction", direction)], value.bytes);
            } else {
                let text = DropReason::from_code(reason).map_or("Unknown", DropReason::text);
                drops.push(&[("reason", text), ("direction", direction)], value.packets);
                drop_bytes.push(&[("reason", text), ("direction", direction)], value.bytes);
            }
        }
        families
    }

    /// What tables hold.
    fn state(&self) -> Vec<Family> {
        let (endpoints, ready) = (self.endpoints.snapshot().len() as u64, self.policies.snapshot().len() as u64);
        let waiting = endpoints.saturating_sub(ready);
        let reconcilers = self.tables.reconcilers();
        let failing = reconcilers.iter().filter(|r| r.failing > 0).count() as u64;
        vec![
            Family::gauge("endpoint", "Pods of this node").with(&[], endpoints),
            Family::gauge("endpoint_state", "Pods of this node by state")
                .with(&[("state", "ready")], ready.min(endpoints))
                .with(&[("state", "waiting-for-identity")], waiting),
            self.identity_family(),
            Family::gauge("policy", "Rules in force").with(&[], self.provenance.snapshot().len() as u64),
            Family::gauge("controllers_failing", "Reconcilers that fail now").with(&[], failing),
            Family::counter("controllers_runs", "Operations of reconcilers")
                .with(&[("status", "success")], reconcilers.iter().map(|r| r.successes).sum())
                .with(&[("status", "failure")], reconcilers.iter().map(|r| r.failures).sum()),
            self.pool_family("ip_addresses", "Addresses that pods have", |pool| pool.used),
            self.pool_family("ipam_capacity", "Addresses that pods can have", |pool| pool.capacity),
            Family::gauge("bpf_map_capacity", "Capacity of maps")
                .with(&[("map_group", "ct")], u64::from(self.flow_capacity)),
            Family::gauge("datapath_conntrack_gc_entries", "Flows after the last collection")
                .with(&[("family", "all")], self.flows.load(Ordering::Relaxed) as u64),
        ]
    }

    fn identity_family(&self) -> Family {
        let mut kinds: BTreeMap<&'static str, u64> = BTreeMap::new();
        for identity in self.identities.snapshot().iter() {
            let kind = match identity.id {
                id if id.is_reserved() => "reserved",
                id if id.is_node_local() => "node_local",
                _ => "cluster_local",
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds.into_iter().fold(Family::gauge("identity", "Identities by type"), |family, (kind, count)| {
            family.with(&[("type", kind)], count)
        })
    }

    fn pool_family(&self, name: &'static str, help: &'static str, value: impl Fn(&PoolUsage) -> u128) -> Family {
        let mut sums = BTreeMap::new();
        for pool in self.pools.snapshot().iter() {
            let family = if pool.prefix.addr().is_ipv4() { "ipv4" } else { "ipv6" };
            let sum: &mut u64 = sums.entry(family).or_default();
            *sum = sum.saturating_add(u64::try_from(value(pool)).unwrap_or(u64::MAX));
        }
        sums.into_iter().fold(Family::gauge(name, help), |all, (family, sum)| all.with(&[("family", family)], sum))
    }
}

const fn direction_name(direction: u8) -> &'static str {
    match direction {
        abi::policy::INGRESS => "INGRESS",
        abi::policy::EGRESS => "EGRESS",
        _ => "UNKNOWN",
    }
}

/// Everything that is on the page.
pub(crate) fn registry(sources: Sources, services: &services::Metrics, health: &health::Metrics) -> Registry {
    let mut registry = Registry::with_prefix("cilium");
    services.register(&mut registry);
    health.register(&mut registry);
    registry.register_collector(Box::new(sources));
    registry
}

/// The page of metrics, below `/metrics`.
pub(crate) fn router(registry: Registry) -> Router {
    let registry = Arc::new(Mutex::new(registry));
    let page = move || async move {
        ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], render(&registry.lock()))
    };
    Router::new().route("/metrics", get(page))
}

fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail; what a collector cannot tell is left out.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}
