// SPDX-License-Identifier: Apache-2.0
//! What the manager does by itself: finds its endpoints again after a restart, and notices what went without a word.

use super::Manager;
use crate::queue::Queue;
use crate::reference::EndpointRef;
use model::Endpoint;
use model::rest::EndpointState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks for leases that are over, queued deletions and interfaces that are gone.
const SWEEP: Duration = Duration::from_secs(30);

/// Which interfaces the host has. A seam for tests.
pub(crate) trait HostLinks: Send + Sync + 'static {
    /// Why it cannot be told.
    type Error: std::error::Error + Send;

    /// Name and index of all interfaces.
    fn list(&self) -> impl Future<Output = Result<BTreeMap<String, u32>, Self::Error>> + Send;
}

impl Manager {
    /// Brings back the endpoints of the process before, but for those that were deleted meanwhile or whose interface is
    /// gone. Then the table is complete, and the API serves.
    pub(crate) async fn restore<L: HostLinks>(&self, links: &L) {
        let saved = self.state.load().unwrap_or_else(|error| {
            tracing::error!(%error, "endpoints cannot be restored");
            Vec::new()
        });
        let deleted = self.queued();
        let present = eventually(links).await;
        let mut writer = self.writer.lock();
        for endpoint in saved {
            let why = if deleted.contains(&endpoint.container_id) {
                Some("it was deleted while the agent was away")
            } else if present.get(&endpoint.host_interface) != Some(&endpoint.host_ifindex) {
                Some("its interface is gone")
            } else {
                None
            };
            match why {
                None => {
                    self.reclaim(&endpoint);
                    self.journal.note(endpoint.id, EndpointState::Restoring, "restored");
                    writer.insert(endpoint);
                }
                Some(why) => {
                    tracing::info!(endpoint = %endpoint.id, owner = endpoint.owner(), why, "endpoint not restored");
                    if let Err(error) = self.state.remove(endpoint.id) {
                        tracing::warn!(endpoint = %endpoint.id, %error, "state of a removed endpoint stays on disk");
                    }
                }
            }
        }
        writer.mark_initialized();
    }

    /// Looks after what nobody tells of, until dropped.
    pub(crate) async fn sweep<L: HostLinks>(self: Arc<Self>, links: L) {
        let mut tick = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.endpoints.initialized().await;
        loop {
            tick.tick().await;
            for (ip, owner) in self.leases.expired() {
                tracing::info!(address = %ip, pod = owner, "address released: its endpoint never came");
                let _ = self.release(ip);
            }
            for container in self.queued() {
                self.remove(&EndpointRef::Container(container)).await;
            }
            self.remove_vanished(&links).await;
        }
    }

    /// Lets endpoints go whose interface went with its namespace, without a DEL.
    async fn remove_vanished<L: HostLinks>(self: &Arc<Self>, links: &L) {
        let before = self.endpoints.snapshot();
        let Ok(present) = links.list().await else { return };
        for endpoint in before.iter() {
            if present.get(&endpoint.host_interface) != Some(&endpoint.host_ifindex) {
                tracing::info!(endpoint = %endpoint.id, owner = endpoint.owner(), "endpoint removed: its interface is gone");
                self.remove(&EndpointRef::Local(endpoint.id)).await;
            }
        }
    }

    fn queued(&self) -> BTreeSet<String> {
        let drained = Queue::lock(&self.config.queue()).and_then(|queue| queue.drain());
        let ids = drained.unwrap_or_else(|error| {
            tracing::warn!(%error, "queued deletions cannot be read");
            Vec::new()
        });
        ids.into_iter().collect()
    }

    /// Traffic goes before book-keeping: an endpoint stays even if its address cannot be claimed.
    fn reclaim(&self, endpoint: &Endpoint) {
        for ip in endpoint.addresses() {
            if let Err(error) = self.addresses.claim(&endpoint.owner(), ip) {
                tracing::warn!(endpoint = %endpoint.id, owner = endpoint.owner(), %error, "address of a restored endpoint");
            }
        }
    }
}

async fn eventually<L: HostLinks>(links: &L) -> BTreeMap<String, u32> {
    let mut wait = Duration::from_millis(100);
    loop {
        match links.list().await {
            Ok(present) => return present,
            Err(error) => tracing::warn!(error = statedb::with_causes(&error), "interfaces cannot be listed"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
