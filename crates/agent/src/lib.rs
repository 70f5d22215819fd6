// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod addresses;
mod announcing;
mod api;
mod build;
mod config;
mod connectivity;
mod dropped;
mod events;
mod flow_table;
mod healthz;
mod kernel;
mod metrics;
pub mod mount;
mod proxy;
mod running;
mod serve;
mod sources;
mod status;
mod uninstall;

pub use build::build;
pub use config::{Config, command, keys};
pub use metrics::example_metrics;
pub use running::Agent;

use crate::uninstall::Uninstall;
use anyhow::Context;
use statedb::Tasks;
use std::ffi::OsString;
use std::io;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Runs the agent until a signal stops it, or one of its tasks fails.
///
/// # Errors
///
/// The configuration is invalid, the kernel rejects something, or a task failed.
pub fn main<I: IntoIterator<Item = OsString>>(arguments: I) -> anyhow::Result<()> {
    let config = Config::load(&config::arguments(arguments))?;
    surface::init_logs(config.debug, &config.log_options);
    let (uninstall, result) = {
        let runtime = runtime()?;
        let ended = runtime.block_on(run(&config))?;
        // Blocking work does not end with the task that waits for it.
        runtime.shutdown_timeout(LAST_WORK);
        ended
    };
    runtime()?.block_on(uninstall.finish(&config));
    result
}

/// How long blocking work may continue after all tasks have ended.
const LAST_WORK: Duration = Duration::from_secs(5);

fn runtime() -> io::Result<Runtime> {
    // Two threads: an agent is nearly always idle, and each thread costs memory.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// Returns the outcome, and what is left to do after it.
async fn run(config: &Config) -> anyhow::Result<(Uninstall, anyhow::Result<()>)> {
    let token = CancellationToken::new();
    surface::stop_on_signal(token.clone()).context("receive signals")?;
    let tasks = Tasks::new(token);
    let uninstall = serve::start(config, &tasks).await?;
    let ended = tasks.run_until_failure().await;
    Ok((uninstall, ended.map_err(|failure| anyhow::anyhow!("task {}: {}", failure.task, failure.message))))
}
