// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

pub mod config;
mod controllers;
mod crds;
pub mod election;
mod gateways;
mod http;
mod metrics;
mod progress;

pub use metrics::example_metrics;

use anyhow::Context;
use config::{Arguments, Config};
use election::{Elector, Timing};
use k8s::k8s_openapi::api::coordination::v1::Lease;
use metrics::Metrics;
use progress::Progress;
use statedb::Tasks;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Name of the Lease for leader election.
pub const LEASE: &str = "cilium-operator-resource-lock";

/// Runs `cilium-operator` until a signal stops it or something fails. The first argument is the name of the program.
pub fn main<I: IntoIterator<Item = OsString>>(arguments: I) -> ExitCode {
    let arguments = match Arguments::parse(config::command(), arguments) {
        Ok(arguments) => arguments,
        Err(text) => {
            // Help and version are not errors.
            let _ = text.print();
            return ExitCode::from(u8::try_from(text.exit_code()).unwrap_or(2));
        }
    };
    let config = match Config::load(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("cilium-operator: {error:#}");
            return ExitCode::from(2);
        }
    };
    surface::init_logs(config.debug);
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cilium-operator stopped");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async move {
        let stop = CancellationToken::new();
        surface::stop_on_signal(stop.clone()).context("receive signals")?;
        run(config, stop).await
    })
}

/// Runs the operator until `stop` is cancelled or something fails. On success the lease has been released.
///
/// # Errors
///
/// The sockets are in use, the client's configuration is invalid, the lease was lost, or a task failed.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    for key in &config.unknown {
        tracing::warn!(key, "ignoring unknown configuration key");
    }
    let client = k8s::Client::connect(&config.client).await?;
    let namespace = config.namespace.clone().unwrap_or_else(|| client.own_namespace());
    let metrics = Metrics::default();
    let tasks = Tasks::new(stop);
    let progress = Progress::new(client.clone());
    http::start(&config, &metrics, &progress, &tasks)
        .await
        .context("operator-api-serve-addr, operator-prometheus-serve-addr")?;

    let lost = Arc::new(AtomicBool::new(false));
    let leader = Leader { client, namespace, config: Arc::new(config), metrics, progress, lost: lost.clone() };
    let all = tasks.clone();
    tasks.spawn("lead", async move { leader.lead(all).await });
    tasks.run_until_failure().await?;
    anyhow::ensure!(
        !lost.load(Ordering::Relaxed),
        "the lease {LEASE} was lost to another operator, could not be renewed, or was of no use"
    );
    Ok(())
}

/// Runs before and after this operator becomes the leader.
struct Leader {
    client: k8s::Client,
    namespace: String,
    config: Arc<Config>,
    metrics: Metrics,
    progress: Progress,
    lost: Arc<AtomicBool>,
}

impl Leader {
    async fn lead(self, tasks: Tasks) {
        // Agents wait for these, so do not wait for an election. One that cannot be registered keeps nobody from the rest of the work.
        if !self.config.skip_crd_creation {
            let (client, (done, registered)) = (self.client.clone(), oneshot::channel());
            tasks.spawn("custom-resource-definitions", async move {
                crds::register(&client).await;
                let _ = done.send(());
            });
            let _ = tokio::time::timeout(crds::PATIENCE, registered).await;
        }
        let api = self.client.namespaced::<Lease>(&self.namespace);
        let elector = Elector::new(api, LEASE, election::identity(), Timing::default());
        let (elected, became_leader) = oneshot::channel();
        let (all, lost, progress) = (tasks.token(), self.lost.clone(), self.progress.clone());
        // Before the tasks that depend on it, so that it ends after them.
        tasks.spawn_draining("lease", move |stop| hold_lease(elector, elected, progress, stop, all, lost));
        if became_leader.await.is_ok() {
            tracing::info!(lease = LEASE, "this operator is the leader");
            let running = controllers::Running { metrics: self.metrics, progress: self.progress, tasks };
            controllers::start(&self.client, &self.namespace, &self.config, &running);
        }
    }
}

async fn hold_lease(
    mut elector: Elector,
    elected: oneshot::Sender<()>,
    progress: Progress,
    stop: CancellationToken,
    all: CancellationToken,
    lost: Arc<AtomicBool>,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = elector.acquire() => {}
    }
    let _ = elected.send(());
    tokio::select! {
        () = stop.cancelled() => elector.release().await,
        what = progress.until_stuck() => {
            tracing::error!(what, "giving up leadership: no progress");
            elector.release().await;
            lost.store(true, Ordering::Relaxed);
            all.cancel();
        }
        () = elector.hold() => {
            lost.store(true, Ordering::Relaxed);
            all.cancel();
        }
    }
}
