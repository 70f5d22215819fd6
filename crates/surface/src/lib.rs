// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod connections;
mod daemon;
mod families;
mod tables;

pub use axum::Router;
pub use connections::Connections;
pub use daemon::{
    init_logs, listen, log_option, metrics_page, negotiated_page, serve_at, serve_connection, serve_metrics,
    serve_pages, stop_on_signal,
};
pub use families::{Families, Family};
pub use model::config::LogOption;
pub use tables::{ReconcilerHealth, TableInfo};

use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use rest::StatusResponse;
use statedb::{Reader, Row, StatusReader};
use std::fmt;
use std::sync::Arc;
use tables::Tables;

type Part = Arc<dyn Fn(&mut StatusResponse) + Send + Sync>;

/// What a feature, or a whole daemon, exposes about itself. Clones share it.
#[derive(Clone, Default)]
pub struct Surface {
    tables: Tables,
    metrics: Vec<Arc<Registry>>,
    routes: Router,
    status: Vec<Part>,
}

impl Surface {
    /// Exposes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Exposes a table.
    #[must_use]
    pub fn table<R: Row>(mut self, reader: &Reader<R>) -> Self {
        self.tables.show(reader);
        self
    }

    /// Exposes a reconciler's status.
    #[must_use]
    pub fn reconciler<R: Row>(mut self, status: &StatusReader<R>) -> Self {
        self.tables.watch(status);
        self
    }

    /// Registers metrics. Their names get the prefix `cilium_`.
    #[must_use]
    pub fn metrics(mut self, register: impl FnOnce(&mut Registry)) -> Self {
        let mut registry = Registry::with_prefix("cilium");
        register(&mut registry);
        self.metrics.push(Arc::new(registry));
        self
    }

    /// Serves routes.
    ///
    /// # Panics
    ///
    /// Two features serve one path.
    #[must_use]
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Fills in fields of the status whenever it is requested.
    #[must_use]
    pub fn status(mut self, fill: impl Fn(&mut StatusResponse) + Send + Sync + 'static) -> Self {
        self.status.push(Arc::new(fill));
        self
    }

    /// Adds everything from another surface.
    pub fn add(&mut self, other: Self) {
        self.tables.add(other.tables);
        self.metrics.extend(other.metrics);
        self.routes = std::mem::take(&mut self.routes).merge(other.routes);
        self.status.extend(other.status);
    }

    /// All routes.
    pub fn router(&self) -> Router {
        self.routes.clone()
    }

    /// All tables.
    #[must_use]
    pub fn tables(&self) -> Vec<TableInfo> {
        self.tables.list()
    }

    /// The rows of a table as text; `None` if there is no such table.
    #[must_use]
    pub fn dump(&self, table: &str) -> Option<Vec<String>> {
        self.tables.dump(table)
    }

    /// The status of all reconcilers.
    #[must_use]
    pub fn reconcilers(&self) -> Vec<ReconcilerHealth> {
        self.tables.reconcilers()
    }

    /// The current status.
    #[must_use]
    pub fn status_now(&self) -> StatusResponse {
        let mut status = StatusResponse::default();
        self.status.iter().for_each(|fill| fill(&mut status));
        status
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn metrics_page(&self) -> String {
        let mut page = String::new();
        for registry in &self.metrics {
            // Writing to a string cannot fail; what a collector cannot read is left out.
            let _ = encode_registry(&mut page, registry);
        }
        let _ = encode_eof(&mut page);
        page
    }

    /// Serves the metrics at `/metrics`.
    pub fn metrics_router(&self) -> Router {
        let surface = self.clone();
        let page = move || async move {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], surface.metrics_page())
        };
        Router::new().route("/metrics", get(page))
    }
}

impl fmt::Debug for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surface").field("tables", &self.tables).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
