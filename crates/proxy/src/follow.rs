// SPDX-License-Identifier: Apache-2.0
//! What the agent sends comes into force, and the agent is told. Without an agent, everything stays as it is.

use crate::listen::Listeners;
use crate::serving::Shared;
use crate::store::Store;
use l7::link::{Fault, LinkError, Received, Status, greet};
use l7::{Key, Kind, Snapshot, Version};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Between attempts to reach the agent, and to open sockets that could not be opened.
const RETRY: Duration = Duration::from_secs(1);

/// Puts updates into force.
#[derive(Debug)]
pub(crate) struct Applier {
    store: Option<Store>,
    listeners: Listeners,
    shared: Arc<Shared>,
    kept: watch::Sender<Snapshot>,
    /// Listeners whose sockets cannot be opened.
    closed: Vec<Fault>,
}

impl Applier {
    pub(crate) fn new(store: Store, listeners: Listeners, shared: Arc<Shared>, kept: watch::Sender<Snapshot>) -> Self {
        Self { store: Some(store), listeners, shared, kept, closed: Vec::new() }
    }

    /// Starts from a snapshot that was in force before.
    pub(crate) async fn start_from(&mut self, snapshot: Snapshot) {
        let update = Snapshot::default().difference(&snapshot);
        drop(snapshot);
        self.apply(Received { version: Version(0), complete: true, update }).await;
    }

    /// Waits until no connection is accepted any more, once the process is to end.
    pub(crate) async fn ended(self) {
        self.listeners.ended().await;
    }

    /// Puts an update into force.
    pub(crate) async fn apply(&mut self, received: Received) -> Status {
        let begun = Instant::now();
        // Hundreds of thousands of objects take their time, in which others are served.
        if let Some(mut store) = self.store.take() {
            let work = move || {
                store.apply(received);
                store
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(store) => self.store = Some(store),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        if let Some(store) = &self.store {
            self.shared.serving.store(Arc::new(store.serving().clone()));
            self.kept.send_replace(store.good().clone());
        }
        self.open().await;
        self.shared.metrics.applied.observe(begun.elapsed().as_secs_f64());
        self.status()
    }

    /// Opens what could not be opened before; whether anything is otherwise now.
    async fn open(&mut self) -> bool {
        let fault = |(name, error): (l7::Name, std::io::Error)| Fault {
            object: Key { kind: Kind::Listener, name },
            reason: format!("address: {error}"),
            partial: false,
        };
        let mut closed: Vec<Fault> = self.listeners.reconcile().await.into_iter().map(fault).collect();
        closed.sort();
        let changed = closed != self.closed;
        if changed {
            for fault in &closed {
                tracing::warn!(listener = %fault.object.name, reason = fault.reason, "a listener cannot be opened");
            }
        }
        self.closed = closed;
        changed
    }

    fn status(&self) -> Status {
        let mut status = self.store.as_ref().map(Store::status).unwrap_or_default();
        status.faults.extend(self.closed.iter().cloned());
        status
    }
}

/// How the agent is followed.
pub(crate) struct Following<'a, F> {
    pub(crate) socket: &'a Path,
    /// The pod that the process is in.
    pub(crate) pod: &'a str,
    /// Is told when a configuration is in force.
    pub(crate) in_force: F,
    /// Cancelled when clients are to go elsewhere.
    pub(crate) leaving: CancellationToken,
}

/// Follows the agent for as long as the process runs. When clients are to go elsewhere, that ends with the agent's end of the link.
pub(crate) async fn follow(following: &Following<'_, impl Fn()>, applier: &mut Applier) {
    let socket = following.socket;
    let mut told = String::new();
    loop {
        let result = match UnixStream::connect(socket).await {
            Ok(stream) => session(stream, following, applier).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            let text = match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            if text != told {
                tracing::warn!(socket = %socket.display(), error = text, "lost the agent, keeping the current configuration");
                told = text;
            }
        }
        applier.open().await;
        if following.leaving.run_until_cancelled(sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

async fn session(
    stream: UnixStream,
    following: &Following<'_, impl Fn()>,
    applier: &mut Applier,
) -> Result<(), LinkError> {
    let (reader, writer) = stream.into_split();
    let (mut updates, mut reports) = greet(BufReader::new(reader), BufWriter::new(writer), following.pod).await?;
    let mut leaving = false;
    // Reading is a task of its own, since a frame must not be given up half-way.
    let (sender, mut received) = mpsc::channel(1);
    let reading = tokio::spawn(async move {
        loop {
            let next = updates.next().await;
            let end = next.is_err();
            if sender.send(next).await.is_err() || end {
                break;
            }
        }
    });
    let result = loop {
        tokio::select! {
            next = received.recv() => match next {
                Some(Ok(update)) => {
                    let status = applier.apply(update).await;
                    (following.in_force)();
                    if let Err(error) = reports.send(status).await {
                        break Err(error);
                    }
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
            () = following.leaving.cancelled(), if !leaving => {
                leaving = true;
                if let Err(error) = reports.leave().await {
                    break Err(error);
                }
            }
            () = sleep(RETRY), if !applier.closed.is_empty() => {
                if applier.open().await && let Err(error) = reports.send(applier.status()).await {
                    break Err(error);
                }
            }
        }
    };
    reading.abort();
    result
}
