// SPDX-License-Identifier: Apache-2.0
//! The process from its start to its end.

use crate::access::AccessLog;
use crate::admin::Admin;
use crate::config::Config;
use crate::exchange::{Backlog, Room};
use crate::follow::{Applier, Following, follow};
use crate::hand_over::{self, HandOver, Predecessor};
use crate::keeper::Keeper;
use crate::listen::Listeners;
use crate::loops::Opened;
use crate::metrics::Metrics;
use crate::node_sockets::NodeSockets;
use crate::observe::{self, Observer};
use crate::serving::{Serving, Shared};
use crate::socket::Sockets;
use crate::store::Store;
use crate::worker::Workers;
use crate::{disk, tls};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the last connection has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A thread or a runtime.
    #[error("cannot start worker threads")]
    Threads(#[source] io::Error),
    /// What tells it to stop.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    /// The access log.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] io::Error),
    /// The folder of the sockets and the state.
    #[error("the folder of the hand-over socket cannot be used")]
    Folder(#[source] io::Error),
}

/// Runs until the token that `stop` makes inside the runtime is cancelled, or until another process has taken over; then lets connections
/// end.
///
/// # Errors
///
/// Nothing could be started. What fails later is retried and told of.
pub fn run(config: &Config, stop: impl FnOnce() -> io::Result<CancellationToken>) -> Result<(), RunError> {
    // Whoever has installed one already has the same.
    let _ = Arc::unwrap_or_clone(tls::provider()).install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Threads)?;
    let end = CancellationToken::new();
    let workers = Workers::start(config.threads(), &end).map_err(RunError::Threads)?;
    let metrics = Arc::new(Metrics::default());
    let log = config.access_log.as_deref().map(|path| AccessLog::open(path, metrics.log_lost.clone()));
    let (observer, observed) = Observer::new(metrics.untold.clone());
    let observer = Arc::new(observer);
    let shared = Arc::new(Shared {
        serving: ArcSwap::from_pointee(Serving::default()),
        metrics,
        access: log.transpose().map_err(RunError::AccessLog)?,
        observer: Arc::clone(&observer),
        workers,
        udp_listeners: Arc::default(),
        backlog: Backlog::new(config.unread_bytes),
        copies: Room::default(),
        opened: Opened::default(),
        drain: CancellationToken::new(),
        drain_time: config.drain_time,
    });
    let result = runtime.block_on(async {
        let stop = stop().map_err(RunError::Signals)?;
        tokio::spawn(observe::tell(config.agent_socket.with_file_name(l7::link::REQUESTS), observer, observed));
        serve(config, &shared, &stop).await
    });
    end.cancel();
    // A thread that waits for a next process must not hold this one up.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config, shared: &Arc<Shared>, stop: &CancellationToken) -> Result<(), RunError> {
    for path in [&config.hand_over_socket, &config.state_file] {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(RunError::Folder)?;
        }
    }
    let (predecessor, sockets) = inherit(config);
    let (kept, snapshots) = watch::channel(disk::load(&config.state_file).unwrap_or_default());
    let store = Store::new(Arc::clone(&shared.metrics), shared.workers.count());
    let listeners = Listeners::new(Arc::clone(shared), sockets.clone());
    let mut applier = Applier::new(store, listeners, Arc::clone(shared), kept);
    let succession = Succession {
        serving: Arc::new(AtomicBool::new(false)),
        predecessor: Mutex::new(predecessor),
        replaced: CancellationToken::new(),
        sockets,
    };
    let last = snapshots.borrow().clone();
    if last.iter().next().is_some() {
        applier.start_from(last).await;
        succession.begin(&config.hand_over_socket);
    }
    tokio::spawn(disk::keep(config.state_file.clone(), snapshots));
    let admin = Admin { shared: Arc::clone(shared), serving: Arc::clone(&succession.serving) };
    let explained = tokio::spawn(admin.clone().explain(config.agent_socket.with_file_name(l7::explain::ADMIN)));
    let admin =
        [config.metrics_address, config.health_address].map(|address| tokio::spawn(admin.clone().serve(address)));
    let leaving = CancellationToken::new();
    let following = Following {
        socket: &config.agent_socket,
        pod: &config.pod,
        in_force: || succession.begin(&config.hand_over_socket),
        leaving: leaving.clone(),
    };
    tokio::select! {
        () = follow(&following, &mut applier) => {}
        () = linger(stop, &leaving, config.linger_time) => {}
        () = succession.replaced.cancelled() => tracing::info!("another process has taken over"),
    }
    if succession.replaced.is_cancelled() {
        // Its answers are those that count.
        admin.iter().chain([&explained]).for_each(tokio::task::JoinHandle::abort);
    }
    shared.drain.cancel();
    applier.ended().await;
    // Whoever connects from now on is another process's, or is to be refused rather than left alone.
    succession.sockets.close_unserved(|_| false);
    if timeout(config.drain_time, drained(shared)).await.is_err() {
        tracing::warn!(connections = shared.workers.connections(), "ended before its connections");
    }
    Ok(())
}

/// Until the process is to stop taking connections. Nobody waits for an agent that is away.
async fn linger(stop: &CancellationToken, leaving: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    if !time.is_zero() {
        leaving.cancel();
        sleep(time).await;
    }
}

/// The sockets to begin with, and the process before if it still serves. Without either, this process opens its own.
fn inherit(config: &Config) -> (Option<Predecessor>, Sockets) {
    let (keeper, held) = match config.kept.then(Keeper::meet) {
        Some(Ok((keeper, held))) => (Some(keeper), held),
        Some(Err(error)) => {
            tracing::warn!(%error, "cannot reach the supervisor");
            (None, Vec::new())
        }
        None => (None, Vec::new()),
    };
    let sockets = |held| Sockets::inherited(held, NodeSockets::of(&config.agent_socket), keeper);
    // Who was killed while it served has left all of its sockets.
    if !held.is_empty() {
        return (None, sockets(held));
    }
    match hand_over::take(&config.hand_over_socket) {
        Ok(Some((predecessor, taken))) => {
            tracing::info!(sockets = taken.len(), "taking over");
            (Some(predecessor), sockets(taken))
        }
        Ok(None) => (None, sockets(Vec::new())),
        Err(error) => {
            tracing::warn!(%error, "hand-over from the previous process failed");
            (None, sockets(Vec::new()))
        }
    }
}

/// Who was before, and who is next.
struct Succession {
    serving: Arc<AtomicBool>,
    predecessor: Mutex<Option<Predecessor>>,
    replaced: CancellationToken,
    sockets: Sockets,
}

impl Succession {
    /// A configuration is in force: the process before may end, and another may follow.
    fn begin(&self, path: &Path) {
        if self.serving.swap(true, Relaxed) {
            return;
        }
        if let Some(predecessor) = self.predecessor.lock().take()
            && let Err(error) = predecessor.ready()
        {
            tracing::warn!(%error, "the process before is gone");
        }
        let hand_over = match HandOver::open(path) {
            Ok(hand_over) => hand_over,
            Err(error) => return tracing::error!(%error, "no other process will be able to take over"),
        };
        let (replaced, sockets) = (self.replaced.clone(), self.sockets.clone());
        tokio::task::spawn_blocking(move || match hand_over.wait(&sockets) {
            Ok(()) => replaced.cancel(),
            Err(error) => tracing::error!(%error, "no other process will be able to take over"),
        });
    }
}

async fn drained(shared: &Shared) {
    while shared.workers.connections() > 0 {
        sleep(LOOK).await;
    }
}
