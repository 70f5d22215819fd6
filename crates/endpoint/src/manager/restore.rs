// SPDX-License-Identifier: Apache-2.0
//! What the manager does on its own: restores endpoints after a restart, and notices those that vanish without a DEL.

use super::Manager;
use super::recover::orphans;
use crate::queue::Queue;
use crate::reconcile::Maps;
use crate::reference::EndpointRef;
use crate::state::StateError;
use model::Endpoint;
use rest::EndpointState;
use statedb::{Backoff, Retries};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it checks for expired leases, queued deletions and vanished interfaces.
const SWEEP: Duration = Duration::from_secs(30);
/// Back-off between attempts to list interfaces.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Lists the host's interfaces. A seam for tests.
pub(crate) trait HostLinks: Send + Sync + 'static {
    /// Why they cannot be listed.
    type Error: std::error::Error + Send;

    /// Name and index of all interfaces.
    fn list(&self) -> impl Future<Output = Result<BTreeMap<String, u32>, Self::Error>> + Send;
}

/// It is unknown which endpoints exist. Continuing would disconnect running pods.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the kernel's map of endpoints cannot be read")]
    Kernel(#[from] datapath::Error),
}

impl Manager {
    /// Restores the previous process's endpoints, except those deleted meanwhile or whose interface is gone. Then the API is served.
    /// Endpoints in the kernel whose state on disk is lost are recovered once the API server has reported this node's pods. Only then is the
    /// table complete: until it is, nothing of them is pruned.
    ///
    /// # Errors
    ///
    /// The folder of endpoints or the kernel's map cannot be read; nothing has been changed.
    pub(crate) async fn restore<L: HostLinks>(&self, links: &L, maps: &Maps) -> Result<(), RestoreError> {
        let state = self.state.clone();
        let saved = statedb::blocking(move || state.load()).await?;
        let mut problem = None;
        let deleted = self.queued(&mut problem).await;
        let present = eventually(links).await;
        let known = saved.iter().map(|endpoint| endpoint.id).collect();
        let orphans = orphans(maps.endpoints()?, &known, &present);
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for endpoint in saved {
            let why = if deleted.iter().any(|container| is_of(container, &endpoint)) {
                Some("it was deleted while the agent was away")
            } else if present.get(&endpoint.host_interface) != Some(&endpoint.host_ifindex) {
                Some("its interface is gone")
            } else {
                None
            };
            match why {
                None => kept.push(endpoint),
                Some(why) => {
                    tracing::info!(endpoint = %endpoint.id, owner = endpoint.owner(), why, "endpoint not restored");
                    gone.push(endpoint.id);
                }
            }
        }
        for endpoint in &kept {
            self.reclaim(endpoint);
            self.journal.note(endpoint.id, EndpointState::Restoring, "restored");
        }
        self.reserve(&orphans);
        self.remove_state(gone).await;
        self.carried_out(deleted).await;
        self.roster.lock().begin(kept, orphans.iter().map(|orphan| orphan.id).collect());
        self.restored.send_replace(true);
        let recovered = self.recover(orphans).await;
        for endpoint in &recovered {
            self.reclaim(endpoint);
            let how = "recovered from the kernel: its state on disk was lost";
            self.journal.note(endpoint.id, EndpointState::Restoring, how);
        }
        self.roster.lock().complete(recovered);
        Ok(())
    }

    /// Housekeeping, until dropped.
    pub(crate) async fn sweep<L: HostLinks>(self: Arc<Self>, links: L) {
        let mut tick = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.endpoints.initialized().await;
        let mut problem = None;
        loop {
            tick.tick().await;
            for (ip, owner) in self.leases.expired() {
                tracing::info!(address = %ip, pod = owner, "released address: its endpoint was never created");
                let _ = self.release(Some(&owner), ip);
            }
            let deleted = self.queued(&mut problem).await;
            self.remove_all(|endpoint| deleted.iter().any(|container| is_of(container, endpoint))).await;
            self.carried_out(deleted).await;
            self.remove_vanished(&links).await;
        }
    }

    /// Removes endpoints whose interface vanished with its namespace, without a DEL.
    async fn remove_vanished<L: HostLinks>(self: &Arc<Self>, links: &L) {
        let before = self.endpoints.snapshot();
        let Ok(present) = links.list().await else { return };
        let has_gone = |e: &Endpoint| present.get(&e.host_interface) != Some(&e.host_ifindex);
        let gone: Vec<_> = before.iter().filter(|endpoint| has_gone(endpoint)).collect();
        for endpoint in &gone {
            tracing::info!(endpoint = %endpoint.id, owner = endpoint.owner(), "endpoint removed: its interface is gone");
        }
        self.remove_all(|endpoint| gone.iter().any(|gone| ***gone == *endpoint)).await;
    }

    /// Containers with a queued deletion; none while the queue cannot be read, which is logged once: pods then stay
    /// connected.
    async fn queued(&self, problem: &mut Option<String>) -> Vec<String> {
        let read = Queue::new(&self.config.queue()).pending().await;
        let now = read.as_ref().err().map(|error| statedb::with_causes(error));
        if let Some(error) = now.as_ref().filter(|now| problem.as_ref() != Some(now)) {
            tracing::warn!(error, "cannot read queued deletions, retrying");
        }
        *problem = now;
        read.unwrap_or_default()
    }

    async fn carried_out(&self, containers: Vec<String>) {
        let queue = Queue::new(&self.config.queue());
        for container in containers {
            if let Err(error) = queue.remove(&container).await {
                let error = statedb::with_causes(&error);
                tracing::warn!(container, error, "cannot dequeue a completed deletion");
            }
        }
    }

    /// Traffic comes before bookkeeping: an endpoint stays even if its address cannot be claimed.
    fn reclaim(&self, endpoint: &Endpoint) {
        for ip in endpoint.addresses() {
            if let Err(error) = self.addresses.claim(&endpoint.owner(), ip) {
                tracing::warn!(endpoint = %endpoint.id, owner = endpoint.owner(), %error, "cannot reclaim the address of a restored endpoint");
            }
        }
    }
}

fn is_of(container: &str, endpoint: &Endpoint) -> bool {
    EndpointRef::Container(container.to_owned()).matches(endpoint)
}

async fn eventually<L: HostLinks>(links: &L) -> BTreeMap<String, u32> {
    let mut retries = Retries::new(RETRY);
    loop {
        match links.list().await {
            Ok(present) => return present,
            Err(error) => tracing::warn!(error = statedb::with_causes(&error), "cannot list interfaces"),
        }
        tokio::time::sleep(retries.failed()).await;
    }
}
