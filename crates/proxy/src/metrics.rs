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
use std::collections::{BTreeSet, HashMap};
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
    series: Mutex<HashMap<Name, Series>>,
    pub(crate) retried: Counter,
    pub(crate) mirrored: Counter,
    pub(crate) mirrors_lost: Counter,
    pub(crate) unreached: Counter,
    pub(crate) overloaded: Counter,
    pub(crate) log_lost: Counter,
    pub(crate) untold: Counter,
    pub(crate) accept_failed: Counter,
    pub(crate) unread: Gauge,
    pub(crate) version: Gauge,
    pub(crate) faults: Gauge,
    pub(crate) routes: Gauge,
    pub(crate) applied: Histogram,
}

/// What there is of a listener.
#[derive(Debug, Default)]
struct Series {
    /// Who counts: each state of the listener for as long as it has connections.
    holders: usize,
    reasons: BTreeSet<String>,
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
            series: Mutex::default(),
            retried: add(&mut registry, "retries", "Further attempts at a request."),
            mirrored: add(&mut registry, "mirrored", "Copies of requests."),
            mirrors_lost: add(
                &mut registry,
                "mirrors_lost",
                "Copies of requests that no mirror has taken and answered in time.",
            ),
            unreached: add(&mut registry, "endpoints_unreached", "Endpoints that could not be reached."),
            overloaded: add(&mut registry, "clusters_overloaded", "Requests above the limits of their cluster."),
            log_lost: add(&mut registry, "access_log_lost", "Lines of the access log that were lost."),
            untold: add(&mut registry, "requests_untold", "Requests that the agent could not be told of, for Hubble."),
            accept_failed: add(&mut registry, "accept_failures", "Connections that the kernel could not hand over."),
            unread: add(
                &mut registry,
                "unread_bytes",
                "Bytes of answers that may be waiting for clients to read them.",
            ),
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

    /// Those of a listener, which are there until the last connection of its last state ends.
    pub(crate) fn listener(self: &Arc<Self>, name: &Name) -> ListenerMetrics {
        self.series.lock().entry(name.clone()).or_default().holders += 1;
        let label = Listener { listener: name.to_string() };
        let class = |index: usize| self.requests.get_or_create(&class(name, index)).clone();
        ListenerMetrics {
            name: name.clone(),
            all: Arc::clone(self),
            connections: self.connections.get_or_create(&label).clone(),
            active: self.active.get_or_create(&label).clone(),
            requests: std::array::from_fn(class),
            durations: self.durations.get_or_create(&label).clone(),
        }
    }

    /// Another refusal of a listener, of whose metrics there is a holder.
    fn refusal(&self, name: &Name, reason: &str) {
        if let Some(series) = self.series.lock().get_mut(name) {
            series.reasons.insert(reason.to_owned());
        }
        let reason = Reason { listener: name.to_string(), reason: reason.to_owned() };
        self.refused.get_or_create(&reason).inc();
    }

    /// A holder is gone. Of a listener that nobody counts for, nothing is left: listeners come and go for as long as the process runs.
    fn release(&self, name: &Name) {
        let mut all = self.series.lock();
        let Some(series) = all.get_mut(name) else { return };
        series.holders -= 1;
        if series.holders > 0 {
            return;
        }
        let reasons = all.remove(name).map(|series| series.reasons).unwrap_or_default();
        let label = Listener { listener: name.to_string() };
        self.connections.remove(&label);
        self.active.remove(&label);
        self.durations.remove(&label);
        for index in 0..CLASSES {
            self.requests.remove(&class(name, index));
        }
        for reason in reasons {
            self.refused.remove(&Reason { listener: name.to_string(), reason });
        }
    }
}

/// Classes of statuses, from 1xx on.
const CLASSES: usize = 5;

fn class(listener: &Name, index: usize) -> Class {
    Class { listener: listener.to_string(), code: format!("{}xx", index + 1) }
}

/// Metrics of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    name: Name,
    all: Arc<Metrics>,
    connections: Counter,
    active: Gauge,
    requests: [Counter; CLASSES],
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
        self.all.refusal(&self.name, reason);
    }
}

impl Drop for ListenerMetrics {
    fn drop(&mut self) {
        self.all.release(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_listener_are_there_until_its_last_connection_ends_and_not_longer() {
        let metrics = Arc::new(Metrics::default());
        let (gone, stays): (Name, Name) = ("gateway/shop/gone/80/tcp".into(), "gateway/shop/stays/80/tcp".into());
        let empty = metrics.render();
        let of = |name: &Name| metrics.render().lines().filter(|line| line.contains(&**name)).count();
        let (old, other) = (metrics.listener(&gone), metrics.listener(&stays));
        other.refused("slow");
        old.opened();
        let all = of(&gone);
        let new = metrics.listener(&gone);
        drop(new);
        // A connection of the state before still counts.
        old.refused("no-backend");
        old.answered(200);
        old.closed();
        assert_eq!(of(&gone), all + 1);
        drop(old);
        assert_eq!(of(&gone), 0);
        assert_eq!(of(&stays), all + 1);
        drop(other);
        assert_eq!(metrics.render(), empty);
    }
}
