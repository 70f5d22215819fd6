// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod assets;
mod config;
mod follow;
mod guard;
mod http;
mod name;
mod relay;
mod scene;
mod scenes;
mod serve;
mod view;

pub use config::{Config, command};

use anyhow::Context;
use relay::Relay;
use scenes::Scenes;
use statedb::Tasks;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Runs `hubble-ui` until a signal stops it or something fails. The first argument is the name of the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let config = match Config::load(arguments) {
        Ok(config) => config,
        Err(error) => {
            // Help and version are not errors.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    surface::init_logs(config.debug, &[]);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "hubble-ui stopped");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let stop = CancellationToken::new();
        surface::stop_on_signal(stop.clone()).context("receive signals")?;
        let tasks = Tasks::new(stop);
        start(config, &tasks).await?;
        Ok(tasks.run_until_failure().await?)
    })
}

/// Starts serving; returns where.
///
/// # Errors
///
/// The address cannot be listened on.
pub async fn start(config: Config, tasks: &Tasks) -> anyhow::Result<SocketAddr> {
    let listen = config.listen;
    let listener: TcpListener = surface::listen(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr()?;
    let relay = Relay::new(&config);
    let scenes = Scenes::new(relay.clone());
    tasks.spawn("sweep", Arc::clone(&scenes).sweep());
    let router = http::router(scenes, relay, config.hosts);
    tasks.spawn("server", serve::serve(listener, router));
    tracing::info!(%address, relay = config.server, "serving flows to browsers");
    Ok(address)
}
