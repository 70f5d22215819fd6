// SPDX-License-Identifier: Apache-2.0
//! A running agent: what it serves, and when it is ready.

use axum::Router;
use model::LocalNode;
use statedb::{Reader, Tasks};
use tokio::sync::{oneshot, watch};
use tracing::info;

/// A running agent and what it serves.
#[derive(Debug)]
pub struct Agent {
    /// The REST API. Serve it once [`restored`](Self::restored) returns: until then the plugin finds nobody listening,
    /// and queues or waits.
    pub api: Router,
    /// `/healthz`, for the probes of Kubernetes.
    pub healthz: Router,
    /// `/metrics`.
    pub metrics: Router,
    pub(crate) restored: watch::Receiver<bool>,
    pub(crate) serving: oneshot::Sender<()>,
}

impl Agent {
    /// Returns once the previous process's endpoints are restored, as far as they are on disk, and queued deletions are carried out.
    pub async fn restored(&self) {
        // If the sender is gone, the agent has ended.
        if self.restored.clone().wait_for(|restored| *restored).await.is_err() {
            std::future::pending().await
        }
    }

    /// Call this once the API is served. Pods can then be attached as soon as the node is ready.
    pub fn serving(self) {
        // The receiver may be gone.
        let _ = self.serving.send(());
    }
}

/// Announces that pods can be attached, once the node is ready and the returned sender signals that the API is served.
pub(crate) fn when_served(node: Reader<LocalNode>, ready: watch::Sender<bool>, tasks: &Tasks) -> oneshot::Sender<()> {
    let (serving, served) = oneshot::channel();
    tasks.spawn("ready", async move {
        node.initialized().await;
        if served.await.is_err() {
            return;
        }
        info!("ready: pods can be attached");
        ready.send_replace(true);
        // The receivers live as long as the agent.
        ready.closed().await;
    });
    serving
}
