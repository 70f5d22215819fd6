// SPDX-License-Identifier: Apache-2.0
//! What a stream goes by may be withdrawn while it is open: its listener, its route, or what policy lets its client reach. Such a stream
//! has as long to end as those of a process that ends; what policy refuses ends at once.

use crate::exchange::Client;
use crate::serving::{Serving, Shared};
use crate::upstream::Endpoint;
use l7::{Name, Target};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often streams in which nothing happens are looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// What of a configuration a stream goes by.
pub(crate) trait Terms {
    fn standing(&self, serving: &Serving) -> Standing;
}

/// Whether it is still so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Holds,
    Withdrawn,
    Denied,
}

/// A stream's right to go on.
#[derive(Debug)]
pub(crate) struct Lease<T> {
    shared: Arc<Shared>,
    terms: T,
    /// The configuration that was looked at.
    seen: u64,
    /// When it ends, if it was withdrawn.
    ends: Option<Instant>,
}

impl<T: Terms> Lease<T> {
    /// One that held by the configuration of this number, or by none that is known (0).
    pub(crate) fn new(shared: &Arc<Shared>, seen: u64, terms: T) -> Self {
        Self { shared: Arc::clone(shared), terms, seen, ends: None }
    }

    /// Whether the stream may go on.
    pub(crate) fn holds(&mut self) -> bool {
        let serving = self.shared.serving.load();
        if serving.number != self.seen {
            self.seen = serving.number;
            self.ends = match self.terms.standing(&serving) {
                Standing::Holds => None,
                Standing::Withdrawn => self.ends.or_else(|| Some(Instant::now() + self.shared.drain_time)),
                Standing::Denied => Some(Instant::now()),
            };
        }
        self.ends.is_none_or(|end| Instant::now() < end)
    }
}

/// Of an answer, or of what a connection has become by one.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) client: Arc<Client>,
    pub(crate) route: Name,
    pub(crate) judged: Option<Judged>,
}

/// A pod, and the endpoint that policy has let it reach.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) client: IpAddr,
    pub(crate) endpoint: Arc<Endpoint>,
}

impl Judged {
    fn is_denied(&self, serving: &Serving) -> bool {
        serving.callers.refuses(self.client, self.endpoint.identity, self.endpoint.address)
    }
}

impl Terms for Routed {
    fn standing(&self, serving: &Serving) -> Standing {
        if self.judged.as_ref().is_some_and(|judged| judged.is_denied(serving)) {
            return Standing::Denied;
        }
        let there = serving.listeners.contains_key(&self.client.listener) && serving.tables.has(&self.route);
        if there { Standing::Holds } else { Standing::Withdrawn }
    }
}

/// Of bytes and datagrams.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) listener: Name,
    /// The name in the hello, if it was read.
    pub(crate) server_name: String,
    pub(crate) cluster: Name,
    pub(crate) judged: Option<Judged>,
}

impl Terms for Joined {
    fn standing(&self, serving: &Serving) -> Standing {
        if self.judged.as_ref().is_some_and(|judged| judged.is_denied(serving)) {
            return Standing::Denied;
        }
        let listening = serving.listeners.get(&self.listener);
        let forward = listening.and_then(|listening| listening.forward(&self.server_name));
        // One whose share has become nothing serves those who were there before.
        let to = |target: &Target| matches!(target, Target::Cluster(name) if *name == self.cluster);
        let there = forward.is_some_and(|forward| forward.backends.iter().any(|backend| to(&backend.target)));
        if there { Standing::Holds } else { Standing::Withdrawn }
    }
}
