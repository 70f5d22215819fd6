// SPDX-License-Identifier: Apache-2.0
//! An agent on its node: the real kernel, the configured API server, and the sockets it serves.

use crate::build::build;
use crate::config::Config;
use crate::kernel;
use crate::running::Agent;
use crate::uninstall::{self, Uninstall};
use anyhow::Context;
use statedb::Tasks;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tokio::net::{TcpListener, UnixListener};
use tracing::warn;

/// Starts an agent and serves it. The returned value is for after all tasks have ended.
///
/// # Errors
///
/// The kernel rejects a program, a map or a link, or a socket cannot be opened.
pub(crate) async fn start(config: &Config, tasks: &Tasks) -> anyhow::Result<Uninstall> {
    report_unknown(config);
    // Opened first, so that a second agent fails here without disturbing anything.
    let healthz = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, config.health_port)))
        .await
        .with_context(|| format!("health server on port {}", config.health_port))?;
    let client = k8s::Client::connect(&config.client()).await.context("connection to the API server")?;
    let uninstall = uninstall::watch(config, &client.own_namespace(), &client, tasks);
    let host = kernel::open(config)?;
    let agent = build(config, &node::name(), host, &client, tasks)?;

    let (probes, metrics) = (agent.healthz.clone(), agent.metrics.clone());
    tasks.spawn("healthz", async move { match surface::serve_pages(healthz, probes).await {} });
    if let Some(address) = config.metrics {
        let listener = TcpListener::bind(address).await.with_context(|| format!("metrics server on {address}"))?;
        tasks.spawn("metrics", async move { match surface::serve_pages(listener, metrics).await {} });
    }
    tasks.spawn_fallible("api", serve_api(agent, config.endpoint.runtime.join("cilium.sock")));
    Ok(uninstall)
}

async fn serve_api(agent: Agent, socket: PathBuf) -> Result<(), String> {
    agent.restored().await;
    let listener = rest::listen(&socket).and_then(UnixListener::from_std);
    let listener = listener.map_err(|error| format!("API socket {}: {error}", socket.display()))?;
    let routes = agent.api.clone();
    agent.serving();
    axum::serve(listener, routes).await.map_err(|error| error.to_string())
}

fn report_unknown(config: &Config) {
    if !config.unknown().is_empty() {
        warn!(keys = config.unknown().join(", "), "ignoring unknown configuration keys");
    }
    if !config.unknown_values.is_empty() {
        warn!(values = config.unknown_values.join(", "), "ignoring unknown chart values");
    }
}
