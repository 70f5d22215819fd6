// SPDX-License-Identifier: Apache-2.0
//! An agent that has been built: what it serves, and when it is ready.

use axum::Router;
use model::{Endpoint, LocalNode};
use statedb::{Reader, Tasks};
use tokio::sync::{oneshot, watch};
use tracing::info;

/// An agent whose tasks run, and what it serves.
#[derive(Debug)]
pub struct Agent {
    /// The REST API. It is to be served once [`restored`](Self::restored) returns: a plugin that comes earlier finds nobody,
    /// and queues or waits on its side.
    pub api: Router,
    /// `/healthz`, for the probes of Kubernetes.
    pub healthz: Router,
    /// `/metrics`.
    pub metrics: Router,
    pub(crate) endpoints: Reader<Endpoint>,
    pub(crate) serving: oneshot::Sender<()>,
}

impl Agent {
    /// Returns when the endpoints of the process before are restored and queued deletions are carried out.
    pub async fn restored(&self) {
        self.endpoints.initialized().await;
    }

    /// The API is served. Once the node is ready, pods can be attached.
    pub fn serving(self) {
        // Who waits for it may have ended.
        let _ = self.serving.send(());
    }
}

/// Announces that pods can be attached, once the node is ready and the returned end says that the API is served.
pub(crate) fn when_served(node: Reader<LocalNode>, ready: watch::Sender<bool>, tasks: &Tasks) -> oneshot::Sender<()> {
    let (serving, served) = oneshot::channel();
    tasks.spawn("ready", async move {
        node.initialized().await;
        if served.await.is_err() {
            return;
        }
        info!("ready: pods can be attached");
        ready.send_replace(true);
        // Its receivers live as long as the agent.
        ready.closed().await;
    });
    serving
}
