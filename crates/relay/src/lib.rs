// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod config;
#[cfg(test)]
mod fixture;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guests;
mod merge;
mod metrics;
mod nodes;
mod observer;
mod peers;
mod pool;
#[cfg(test)]
mod tests;

pub use config::command;

use anyhow::Context;
use config::Config;
use hubble::client::HEALTH_SERVICE;
use hubble::proto::observer::observer_server::{self, ObserverServer};
use hubble::server::{Listeners, with_reflection};
use observer::Relay;
use pool::{Dial, Nodes, Pool};
use statedb::Tasks;
use std::ffi::OsString;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::server::HealthReporter;

/// Runs `hubble-relay` until a signal stops it or something fails. The first argument is the name of the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let config = match Config::load(arguments) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    surface::init_logs(config.debug || config.log_level == "debug", &config.log_options);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "hubble-relay stopped");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        // Help and version are not errors.
        let _ = usage.print();
        return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
    }
    eprintln!("hubble-relay: {error:#}");
    ExitCode::from(2)
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let stop = CancellationToken::new();
        surface::stop_on_signal(stop.clone()).context("receive signals")?;
        let tasks = Tasks::new(stop);
        start(config, &tasks).await;
        Ok(tasks.run_until_failure().await?)
    })
}

/// Starts following the nodes and serving their flows.
async fn start(config: Config, tasks: &Tasks) {
    let Config { listen, health_listen, metrics_listen, .. } = config;
    let tls = config.server_tls();
    let Served { all, health, nodes } = follow(config, pool::network(), tasks).await;
    if let Some(address) = health_listen {
        tasks.spawn("health-server", Listeners::new(health).serve_network(address, None));
    }
    if let Some(address) = metrics_listen {
        tasks.spawn("metrics", surface::serve_metrics(address, move || metrics::render(&nodes)));
    }
    if let Some(address) = listen {
        tasks.spawn("server", Listeners::new(all).serve_network(address, tls));
    }
}

/// What there is to serve.
struct Served {
    all: Routes,
    /// For the kubelet.
    health: Routes,
    nodes: Nodes,
}

/// Starts following the nodes.
async fn follow(config: Config, dial: Dial, tasks: &Tasks) -> Served {
    let pool = Pool::new(&config, Dial::clone(&dial));
    let nodes = pool.nodes();
    let relay = ObserverServer::new(Relay::new(&config, nodes.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    set_health(&health, false).await;
    tasks.spawn("health", report_health(health, nodes.clone()));
    tasks.spawn("peers", peers::follow(config, dial, pool));
    let all = Routes::new(health_service.clone()).add_service(relay);
    let all = with_reflection(all, &[observer_server::SERVICE_NAME, health_server::SERVICE_NAME]);
    Served { all, health: Routes::new(health_service), nodes }
}

/// Reports health: whether any node is connected.
async fn report_health(health: HealthReporter, mut nodes: Nodes) {
    loop {
        let connected = nodes.borrow_and_update().values().any(|node| node.channel().is_some());
        set_health(&health, connected).await;
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

async fn set_health(health: &HealthReporter, connected: bool) {
    let status = if connected { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in [HEALTH_SERVICE, observer_server::SERVICE_NAME] {
        health.set_service_status(name, status).await;
    }
}
