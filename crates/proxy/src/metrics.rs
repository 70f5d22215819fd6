// SPDX-License-Identifier: Apache-2.0
//! What is counted. On the way of a request there are only additions: who has a label is looked up when a connection begins.

use l7::Name;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    listener: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    listener: String,
    reason: String,
}

/// All metrics of the proxy.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    connections: Family<Listener, Counter>,
    active: Family<Listener, Gauge>,
    requests: Family<Class, Counter>,
    durations: Family<Listener, Histogram>,
    refused: Family<Reason, Counter>,
    pub(crate) retried: Counter,
    pub(crate) mirrored: Counter,
    pub(crate) unreached: Counter,
    pub(crate) overloaded: Counter,
    pub(crate) log_lost: Counter,
    pub(crate) untold: Counter,
    pub(crate) accept_failed: Counter,
    pub(crate) version: Gauge,
    pub(crate) faults: Gauge,
    pub(crate) routes: Gauge,
    pub(crate) applied: Histogram,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Buckets for durations in seconds, from half a millisecond to a minute.
fn seconds() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cilium_proxy");
        Self {
            connections: add(&mut registry, "connections", "Connections of clients."),
            active: add(&mut registry, "connections_active", "Connections of clients that are open."),
            requests: add(&mut registry, "requests", "Answers to clients, by the class of their status."),
            durations: {
                let family = Family::new_with_constructor(seconds as fn() -> Histogram);
                registry.register(
                    "request_duration_seconds",
                    "From a request's head to the end of its answer.",
                    family.clone(),
                );
                family
            },
            refused: add(
                &mut registry,
                "refused",
                "Requests and connections that the proxy refused or answered itself.",
            ),
            retried: add(&mut registry, "retries", "Further attempts at a request."),
            mirrored: add(&mut registry, "mirrored", "Copies of requests."),
            unreached: add(&mut registry, "endpoints_unreached", "Endpoints that could not be reached."),
            overloaded: add(&mut registry, "clusters_overloaded", "Requests above the limits of their cluster."),
            log_lost: add(&mut registry, "access_log_lost", "Lines of the access log that were lost."),
            untold: add(&mut registry, "requests_untold", "Requests that the agent could not be told of, for Hubble."),
            accept_failed: add(&mut registry, "accept_failures", "Connections that the kernel could not hand over."),
            version: add(&mut registry, "snapshot_version", "Version of the snapshot in force."),
            faults: add(&mut registry, "snapshot_faults", "Objects of the snapshot that are not in force."),
            routes: add(&mut registry, "routes", "Routes in force."),
            applied: {
                let histogram = seconds();
                registry.register("snapshot_apply_seconds", "From an update to its being in force.", histogram.clone());
                histogram
            },
            registry: Mutex::new(registry),
        }
    }
}

fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    /// In the text format.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry.lock());
        text
    }

    /// Those of a listener.
    pub(crate) fn listener(self: &Arc<Self>, name: &Name) -> ListenerMetrics {
        let label = Listener { listener: name.to_string() };
        let class = |class: usize| {
            let code = format!("{}xx", class + 1);
            self.requests.get_or_create(&Class { listener: name.to_string(), code }).clone()
        };
        ListenerMetrics {
            name: name.clone(),
            all: Arc::clone(self),
            connections: self.connections.get_or_create(&label).clone(),
            active: self.active.get_or_create(&label).clone(),
            requests: std::array::from_fn(class),
            durations: self.durations.get_or_create(&label).clone(),
        }
    }
}

/// Metrics of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    name: Name,
    all: Arc<Metrics>,
    connections: Counter,
    active: Gauge,
    requests: [Counter; 5],
    durations: Histogram,
}

impl ListenerMetrics {
    pub(crate) fn opened(&self) {
        self.connections.inc();
        self.active.inc();
    }

    pub(crate) fn closed(&self) {
        self.active.dec();
    }

    pub(crate) fn answered(&self, status: u16) {
        if let Some(counter) = self.requests.get(usize::from(status / 100).wrapping_sub(1)) {
            counter.inc();
        }
    }

    pub(crate) fn duration(&self, duration: Duration) {
        self.durations.observe(duration.as_secs_f64());
    }

    /// A request or a connection was not served, or not by a backend.
    pub(crate) fn refused(&self, reason: &str) {
        let reason = Reason { listener: self.name.to_string(), reason: reason.to_owned() };
        self.all.refused.get_or_create(&reason).inc();
    }
}
