// SPDX-License-Identifier: Apache-2.0
//! Metrics of the exporters that a file lists.

use crate::store::now;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

const SECOND: i64 = 1_000_000_000;

/// Clones share what they count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    exporters: Family<[(&'static str, &'static str); 1], Gauge>,
    up: Family<[(&'static str, String); 1], Gauge>,
    changes: Family<[(&'static str, &'static str); 1], Counter>,
    hash: Gauge,
    applied: Gauge,
}

/// What a file meant for an exporter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Add,
    Update,
    Remove,
    /// It could not be used.
    Failure,
}

impl Counts {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Exporters that the file of flow logs lists, by whether they have ended";
        registry.register("dynamic_exporter_exporters_total", help, self.exporters.clone());
        registry.register("dynamic_exporter_up", "Whether an exporter of that file runs", self.up.clone());
        let help = "Changes of the exporters by that file";
        registry.register("dynamic_exporter_reconfigurations", help, self.changes.clone());
        let help = "A hash of that file as it was applied last";
        registry.register("dynamic_exporter_config_hash", help, self.hash.clone());
        let help = "When that was, in seconds since 1970";
        registry.register("dynamic_exporter_config_last_applied", help, self.applied.clone());
    }

    /// One of each, for the reference.
    pub(crate) fn example() -> Self {
        let counts = Self::default();
        counts.running([("all", true)].into_iter());
        counts.change(Change::Add);
        counts
    }

    pub(super) fn change(&self, change: Change) {
        let op = match change {
            Change::Add => "add",
            Change::Update => "update",
            Change::Remove => "remove",
            Change::Failure => "failure",
        };
        self.changes.get_or_create(&[("op", op)]).inc();
    }

    /// The file is in force.
    pub(super) fn applied(&self, hash: u32) {
        self.hash.set(hash.into());
        self.applied.set(now() / SECOND);
    }

    /// These there are, and whether they have not ended.
    pub(super) fn running<'a>(&self, all: impl Iterator<Item = (&'a str, bool)>) {
        self.up.clear();
        let (mut active, mut inactive) = (0, 0);
        for (name, up) in all {
            self.up.get_or_create(&[("name", name.to_owned())]).set(up.into());
            if up {
                active += 1;
            } else {
                inactive += 1;
            }
        }
        self.exporters.get_or_create(&[("status", "active")]).set(active);
        self.exporters.get_or_create(&[("status", "inactive")]).set(inactive);
    }
}
