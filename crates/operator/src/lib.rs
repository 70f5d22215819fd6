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
    surface::init_logs(config.debug, &config.log_options);
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
    let still_ours = tokio::select! {
        () = stop.cancelled() => true,
        what = progress.until_stuck() => {
            tracing::error!(what, "giving up leadership: no progress");
            lost.store(true, Ordering::Relaxed);
            true
        }
        () = elector.hold() => {
            lost.store(true, Ordering::Relaxed);
            false
        }
    };
    all.cancel();
    if still_ours {
        // The next one begins at once: by then nobody may be at work here.
        stop.cancelled().await;
        elector.release().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use election::server::Server;
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    #[derive(Clone, Debug, PartialEq)]
    struct Nothing;

    impl statedb::Row for Nothing {
        type Key = ();
        fn key(&self) {}
    }

    /// A leader with one controller, which is never done.
    struct Office {
        tasks: Tasks,
        /// When that was seen at work for the last time.
        worked: Arc<parking_lot::Mutex<Instant>>,
        lost: Arc<AtomicBool>,
    }

    async fn lead(server: &Server, name: &str) -> Office {
        let client: k8s::Client = server.client(name);
        let (tasks, lost) = (Tasks::new(CancellationToken::new()), Arc::default());
        let elector = Elector::new(client.namespaced::<Lease>("x"), LEASE, name.to_owned(), Timing::default());
        let (elected, became_leader) = oneshot::channel();
        let (progress, all, noted) = (Progress::new(client.clone()), tasks.token(), Arc::clone(&lost));
        tasks.spawn_draining("lease", move |stop| hold_lease(elector, elected, progress, stop, all, noted));
        became_leader.await.unwrap();
        let (writer, _) = statedb::table("followed");
        tasks.spawn("follow", client.reflect(client.all::<Lease>(), writer, |_| Some(Nothing)));
        let worked = Arc::new(parking_lot::Mutex::new(Instant::now()));
        let seen = Arc::clone(&worked);
        tasks.spawn("controller", async move {
            loop {
                *seen.lock() = Instant::now();
                sleep(Duration::from_millis(10)).await;
            }
        });
        Office { tasks, worked, lost }
    }

    /// When the next one may begin, which waits from now on.
    async fn next(server: &Server) -> Instant {
        let api = server.client("next").namespaced::<Lease>("x");
        Elector::new(api, LEASE, "next".to_owned(), Timing::default()).acquire().await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_server_hangs_is_not_at_work_any_more_when_the_next_begins() {
        let server = Server::default();
        let office = lead(&server, "first").await;
        sleep(Duration::from_secs(33)).await;
        server.hang("first");
        let ended = tokio::spawn(office.tasks.run_until_failure());
        let began = next(&server).await;
        assert!(ended.is_finished(), "nothing runs any more");
        assert!(office.lost.load(Ordering::Relaxed));
        let apart = began.duration_since(*office.worked.lock());
        assert!(apart >= Duration::from_secs(3), "{apart:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_makes_no_progress_gives_the_lease_back_when_its_controllers_have_ended() {
        let server = Server::default();
        let office = lead(&server, "first").await;
        // Leases can still be renewed, and that is all.
        server.withhold_lists("first");
        let ended = tokio::spawn(office.tasks.run_until_failure());
        let began = next(&server).await;
        ended.await.unwrap().unwrap();
        assert!(office.lost.load(Ordering::Relaxed));
        assert!(began > *office.worked.lock());
        assert!(server.released(), "the next one need not wait for it to expire");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_stopped_gives_the_lease_back_and_has_lost_nothing() {
        let server = Server::default();
        let office = lead(&server, "first").await;
        office.tasks.token().cancel();
        office.tasks.run_until_failure().await.unwrap();
        assert!(server.released() && !office.lost.load(Ordering::Relaxed));
    }
}
