// SPDX-License-Identifier: Apache-2.0
//! One endpoint, and which of several gets the next request.

use super::pool::{Http1, Pool};
use super::{ConnectError, Settings};
use crate::worker::{self, Counted};
use parking_lot::Mutex;
use rand::Rng;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// How long an endpoint that could not be reached gets no requests, if there are others.
const PENALTY: Duration = Duration::from_secs(5);

/// An endpoint of a cluster.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) identity: u32,
    pub(crate) settings: Arc<Settings>,
    requests: Arc<AtomicUsize>,
    failed: Mutex<Option<Instant>>,
    /// Connections by worker, so that none waits for another.
    pools: Box<[Mutex<Pool>]>,
}

impl Endpoint {
    pub(super) fn new(endpoint: &l7::Endpoint, settings: Arc<Settings>, workers: usize) -> Self {
        Self {
            address: endpoint.address,
            identity: endpoint.identity,
            settings,
            requests: Arc::default(),
            failed: Mutex::new(None),
            pools: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts a request as long as the value lives.
    pub(crate) fn begin(&self) -> Counted {
        Counted::new(&self.requests)
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// Connections of this worker.
    pub(super) fn pool(&self) -> Option<&Mutex<Pool>> {
        self.pools.get(worker::index()).or(self.pools.first())
    }

    /// A connection of any worker that no request is on.
    pub(super) fn take_unused(&self) -> Option<Http1> {
        // Whoever holds one of them uses it.
        self.pools.iter().find_map(|pool| pool.try_lock()?.idle.pop())
    }

    /// Takes note of what kept a request from it. What says nothing of the endpoint itself leaves it as it is.
    pub(crate) fn unreached(&self, error: &ConnectError) {
        match error {
            ConnectError::Io(_) | ConnectError::TimedOut | ConnectError::Http(_) => {
                *self.failed.lock() = Some(Instant::now());
            }
            ConnectError::JustFailed | ConnectError::NotHttp2 | ConnectError::Limit => {}
        }
    }

    /// Whether it could not be reached at that time or later.
    pub(super) fn failed_since(&self, time: Instant) -> bool {
        self.failed.lock().is_some_and(|at| at >= time)
    }

    pub(crate) fn healthy(&self) -> bool {
        // Nearly always it has not failed.
        let failed = *self.failed.lock();
        failed.is_none_or(|at| at.elapsed() > PENALTY)
    }
}

/// The same one for all that comes from an address, on whatever node. Of other addresses, few change theirs when an endpoint comes or goes
/// (rendezvous hashing). Those to avoid and those that could not be reached are chosen only if there is no other.
pub(super) fn of_client(all: &[Arc<Endpoint>], client: IpAddr, avoid: &[SocketAddr]) -> Option<Arc<Endpoint>> {
    let rank = |endpoint: &&Arc<Endpoint>| {
        let mut hasher = DefaultHasher::new();
        (client.to_canonical(), endpoint.address).hash(&mut hasher);
        (!avoid.contains(&endpoint.address), endpoint.healthy(), hasher.finish())
    };
    all.iter().max_by_key(rank).cloned()
}

/// The one with fewer requests of two at random, which keeps slow ones from piling up. Those to avoid and those that
/// could not be reached are chosen only if there is no other.
pub(super) fn choose(all: &[Arc<Endpoint>], avoid: &[SocketAddr]) -> Option<Arc<Endpoint>> {
    let good = |endpoint: &&Arc<Endpoint>| !avoid.contains(&endpoint.address) && endpoint.healthy();
    let at_random = || all.get(rand::rng().random_range(0..all.len()));
    let chosen = match all {
        [] => return None,
        [one] => one,
        _ => match (at_random().filter(good), at_random().filter(good)) {
            (Some(a), Some(b)) if b.requests.load(Relaxed) < a.requests.load(Relaxed) => b,
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => {
                let from = rand::rng().random_range(0..all.len());
                let (behind, before) = all.split_at(from);
                let mut turn = before.iter().chain(behind);
                let unavoided = |endpoint: &&Arc<Endpoint>| !avoid.contains(&endpoint.address);
                turn.clone().find(good).or_else(|| turn.clone().find(unavoided)).or_else(|| turn.next())?
            }
        },
    };
    Some(Arc::clone(chosen))
}
