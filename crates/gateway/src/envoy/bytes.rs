// SPDX-License-Identifier: Apache-2.0
//! TCP proxies: connections go to clusters as they come.

use super::action;
use super::fields::{Fields, Result};
use l7::{Backend, Filters};
use std::time::Duration;

pub(super) const PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// How long nothing may happen on a connection if nothing is said of it; Envoy's own.
const IDLE: Duration = Duration::from_secs(3600);
/// The same if there is to be no end of it.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What is done with connections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Connections {
    /// Targets are Envoy's names of clusters. None: connections are closed at once.
    pub(crate) backends: Vec<Backend>,
    /// How long nothing may happen on one.
    pub(crate) idle: Duration,
}

impl Connections {
    /// None is let in.
    pub(super) fn refusing() -> Self {
        Self { backends: Vec::new(), idle: IDLE }
    }
}

/// A `TcpProxy`, without its type.
pub(super) fn resolve(mut fields: Fields<'_>) -> Result<Connections> {
    fields.skip(&["stat_prefix"]);
    fields.ignore(&[
        "access_log",
        "access_log_flush_interval",
        "access_log_options",
        "backoff_options",
        "downstream_idle_timeout",
        "flush_access_log_on_connected",
        "hash_policy",
        "max_connect_attempts",
        "max_downstream_connection_duration",
        "upstream_idle_timeout",
    ]);
    let backends = action::backends(&mut fields, |_| Ok(Filters::default()))?;
    let idle = fields.duration("idle_timeout")?.unwrap_or(IDLE);
    fields.end()?;
    Ok(Connections { backends, idle: if idle.is_zero() { FOR_EVER } else { idle } })
}
