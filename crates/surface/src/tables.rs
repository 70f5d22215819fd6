// SPDX-License-Identifier: Apache-2.0
//! The tables and reconcilers open to inspection: `cilium-dbg statedb dump`, and the overall health.

use serde::Serialize;
use statedb::{Reader, Row, StatusReader};
use std::collections::BTreeMap;
use std::sync::Arc;

type Dump = Arc<dyn Fn() -> Vec<String> + Send + Sync>;
type Health = Arc<dyn Fn() -> ReconcilerHealth + Send + Sync>;

/// Everything open to inspection. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Tables {
    tables: BTreeMap<&'static str, Table>,
    reconcilers: Vec<Health>,
}

#[derive(Clone)]
struct Table {
    rows: Arc<dyn Fn() -> TableInfo + Send + Sync>,
    dump: Dump,
}

/// Summary of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TableInfo {
    /// Name.
    pub name: &'static str,
    /// Number of rows.
    pub rows: usize,
    /// The last commit.
    pub revision: u64,
    /// Whether its sources have been read completely.
    pub initialized: bool,
}

/// Summary of a reconciler.
#[derive(Clone, Debug, Serialize)]
pub struct ReconcilerHealth {
    /// Name.
    pub name: &'static str,
    /// Operations that succeeded.
    pub successes: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Keys that are failing, or 1 if the last full sync failed.
    pub failing: usize,
    /// The first failure, with its key.
    pub message: String,
}

impl Tables {
    /// Adds a table.
    pub(crate) fn show<R: Row>(&mut self, reader: &Reader<R>) {
        let (info, rows) = (reader.clone(), reader.clone());
        let table = Table {
            rows: Arc::new(move || {
                let snapshot = info.snapshot();
                TableInfo {
                    name: info.name(),
                    rows: snapshot.len(),
                    revision: snapshot.revision().0,
                    initialized: snapshot.initialized(),
                }
            }),
            dump: Arc::new(move || rows.snapshot().iter().map(|row| format!("{row:?}")).collect()),
        };
        self.tables.insert(reader.name(), table);
    }

    /// Adds a reconciler.
    pub(crate) fn watch<R: Row>(&mut self, status: &StatusReader<R>) {
        let status = status.clone();
        self.reconcilers.push(Arc::new(move || {
            let summary = status.summary();
            let first = status.failing().into_iter().next();
            let message = match (&summary.prune_error, first) {
                (_, Some((key, status))) => format!("{key:?}: {:?}", status.state),
                (Some(error), None) => error.clone(),
                (None, None) => String::new(),
            };
            ReconcilerHealth {
                name: summary.name,
                successes: summary.counters.updates + summary.counters.deletes + summary.counters.prunes,
                failures: summary.counters.errors,
                failing: summary.failing + usize::from(summary.prune_error.is_some()),
                message,
            }
        }));
    }

    /// Adds everything from another.
    pub(crate) fn add(&mut self, others: Self) {
        self.tables.extend(others.tables);
        self.reconcilers.extend(others.reconcilers);
    }

    /// All tables.
    pub(crate) fn list(&self) -> Vec<TableInfo> {
        self.tables.values().map(|table| (table.rows)()).collect()
    }

    /// The rows of one, as text; `None` when there is no such table.
    pub(crate) fn dump(&self, name: &str) -> Option<Vec<String>> {
        self.tables.get(name).map(|table| (table.dump)())
    }

    /// All reconcilers.
    pub(crate) fn reconcilers(&self) -> Vec<ReconcilerHealth> {
        self.reconcilers.iter().map(|health| health()).collect()
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tables.keys()).finish()
    }
}
