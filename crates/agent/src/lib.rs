// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod addresses;
mod api;
mod build;
mod config;
mod connectivity;
mod events;
mod flow_table;
mod healthz;
mod kernel;
mod metrics;
pub mod mount;
mod running;
mod serve;
mod sources;
mod status;
mod uninstall;

pub use build::build;
pub use config::{Config, command, keys};
pub use metrics::example_metrics;
pub use running::Agent;

use anyhow::Context;
use statedb::Tasks;
use std::ffi::OsString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Runs the agent until it is told to end, or until one of its tasks fails.
///
/// # Errors
///
/// The configuration cannot be used, the kernel refuses, or a task failed.
pub fn main<I: IntoIterator<Item = OsString>>(arguments: I) -> anyhow::Result<()> {
    let config = Config::load(&config::arguments(arguments))?;
    log(config.debug);
    // Two threads: an agent is idle nearly always, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let token = CancellationToken::new();
    end_on_signal(token.clone())?;
    let tasks = Tasks::new(token);
    serve::start(&config, &tasks).await?;
    tasks.run_until_failure().await.map_err(|failure| anyhow::anyhow!("task {}: {}", failure.task, failure.message))
}

fn end_on_signal(token: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end; what is in the kernel stays");
        token.cancel();
    });
    Ok(())
}

fn log(debug: bool) {
    let default = if debug { "debug,h2=info,hyper=info,tower=info,kube=info,rustls=info" } else { "info,kube=warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false).init();
}
