// SPDX-License-Identifier: Apache-2.0
//! A proxy and its agent.

use l7::link::{NodeSockets, Published, SOCKETS, State, Status, accept};
use l7::{Object, Snapshot, Version};
use proxy::Config;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// An address on loopback that nobody has.
pub(crate) fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports::free()).into()
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) proxy: Process,
    agent: Option<AbortHandle>,
    published: watch::Sender<Published>,
    state: watch::Receiver<State>,
    told: watch::Sender<State>,
}

/// A proxy: a process of its own in life, a thread here.
pub(crate) struct Process {
    pub(crate) stop: CancellationToken,
    pub(crate) config: Config,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            agent_socket: folder.join("agent.sock"),
            state_file: folder.join("state.json"),
            hand_over_socket: folder.join("hand-over.sock"),
            metrics_address: free(),
            health_address: free(),
            workers: 2,
            drain_time: Duration::from_secs(5),
            access_log: Some(folder.join("access.log")),
            log_opt: Vec::new(),
            unread_bytes: 0,
            debug: false,
            kept: false,
            linger_time: Duration::ZERO,
            pod: String::new(),
        };
        change(&mut config);
        let stop = CancellationToken::new();
        let (own, given) = (stop.clone(), config.clone());
        let thread = Some(std::thread::spawn(move || proxy::run(&given, || Ok(own)).unwrap()));
        Self { stop, config, thread }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) {
        let thread = self.thread.take().unwrap();
        timeout(DEADLINE, tokio::task::spawn_blocking(move || thread.join().unwrap())).await.unwrap().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// A proxy that serves these objects.
    pub(crate) async fn of(objects: Vec<Object>) -> Self {
        let mut world = Self::empty().await;
        let status = world.publish(objects).await;
        assert_eq!(status.faults, []);
        world
    }

    pub(crate) async fn empty() -> Self {
        Self::configured(|_| {}).await
    }

    pub(crate) async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (published, _) = watch::channel(Published::default());
        let (told, state) = watch::channel(State::default());
        let mut world =
            Self { proxy: Process::start(folder.path(), change), folder, agent: None, published, state, told };
        world.start_agent();
        world
    }

    pub(crate) fn start_agent(&mut self) {
        let path = self.folder.path().join("agent.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let (snapshots, told) = (self.published.subscribe(), self.told.clone());
        let sockets = NodeSockets::open(&self.folder.path().join(SOCKETS), self.published.subscribe()).unwrap();
        let agent = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            let mut of_node = tokio::task::JoinSet::new();
            of_node.spawn(sockets.serve());
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (snapshots, told) = (snapshots.clone(), told.clone());
                sessions.spawn(async move { accept(stream).await?.publish(snapshots, &told).await });
            }
        });
        self.agent = Some(agent.abort_handle());
    }

    pub(crate) fn stop_agent(&mut self) {
        self.agent.take().unwrap().abort();
        std::fs::remove_file(self.folder.path().join("agent.sock")).unwrap();
    }

    /// Publishes exactly these objects, and waits until they are in force.
    pub(crate) async fn publish(&mut self, objects: Vec<Object>) -> Status {
        let snapshot: Arc<Snapshot> = Arc::new(objects.into_iter().collect());
        let version = Version(self.published.borrow().version.0 + 1);
        self.published.send_replace(Published { version, snapshot });
        self.status_when(|status| status.version == version).await
    }

    pub(crate) async fn status_when(&mut self, is: impl Fn(&Status) -> bool) -> Status {
        let state = self.state_when(|state| state.status.as_ref().is_some_and(&is)).await;
        state.status.unwrap()
    }

    pub(crate) async fn state_when(&mut self, is: impl Fn(&State) -> bool) -> State {
        let wait = self.state.wait_for(is);
        timeout(DEADLINE, wait).await.expect("told in time").unwrap().clone()
    }

    pub(crate) async fn metrics(&self) -> String {
        let request = "GET /metrics HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
        crate::client::text(self.proxy.config.metrics_address, request).await
    }

    /// Waits until the metrics say something.
    pub(crate) async fn metric_is(&self, line: &str) {
        let look = async {
            while !self.metrics().await.lines().any(|l| l == line) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(DEADLINE, look).await.is_err() {
            panic!("no {line} in\n{}", self.metrics().await);
        }
    }
}
