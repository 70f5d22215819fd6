// SPDX-License-Identifier: Apache-2.0
//! Backends: which endpoint takes a request, and the connections to it.

mod connect;
mod endpoint;
mod load;
mod pool;
mod tls;

pub(crate) use connect::{ConnectError, Link, WINDOW, dial};
pub(crate) use endpoint::Endpoint;
pub(crate) use pool::{Checkout, Sent, Speak};
pub(crate) use tls::ClientTls;

#[cfg(test)]
mod tests;

use crate::worker::Counted;
use endpoint::{choose, of_client};
use http::StatusCode;
use l7::{Cluster, EndpointState, Endpoints};
use load::Load;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Copies of requests that a cluster has under way, each with what of a body waits for it.
const COPIES: u32 = 256;

/// How the endpoints of a cluster are spoken to; with each change of the cluster there is a new one, and new connections with it.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) tls: Option<ClientTls>,
    load: Load,
}

/// A cluster with its endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) settings: Arc<Settings>,
    /// Those that serve.
    endpoints: HashMap<SocketAddr, Arc<Endpoint>>,
    /// Those that get new requests.
    usable: Arc<[Arc<Endpoint>]>,
}

impl Upstream {
    /// A cluster that nothing is known of but its settings; `before` is what it was, whose load goes on being counted.
    pub(crate) fn new(cluster: Arc<Cluster>, tls: Option<ClientTls>, before: Option<&Self>) -> Self {
        let load = before.map(|before| before.settings.load.clone()).unwrap_or_default();
        let settings = Arc::new(Settings { cluster, tls, load });
        Self { settings, endpoints: HashMap::new(), usable: Arc::new([]) }
    }

    /// The same with these endpoints. Those that stay keep their connections.
    pub(crate) fn with(&self, endpoints: Option<&Endpoints>, workers: usize) -> Self {
        let listed = endpoints.map_or(&[][..], |endpoints| &endpoints.endpoints);
        let mut all = HashMap::with_capacity(listed.len());
        for one in listed.iter().filter(|one| one.state != EndpointState::Unready) {
            let kept = self.endpoints.get(&one.address).filter(|kept| kept.identity == one.identity).cloned();
            let endpoint = kept.unwrap_or_else(|| Arc::new(Endpoint::new(one, Arc::clone(&self.settings), workers)));
            all.insert(one.address, endpoint);
        }
        let in_state =
            |state: EndpointState| -> Vec<&l7::Endpoint> { listed.iter().filter(|one| one.state == state).collect() };
        let mut usable = in_state(EndpointState::Ready);
        if usable.is_empty() {
            usable = in_state(EndpointState::Terminating);
        }
        let zone = endpoints.and_then(|endpoints| endpoints.prefer_zone.as_ref());
        if let Some(zone) = zone.filter(|zone| usable.iter().any(|one| one.zone.as_ref() == Some(zone))) {
            usable.retain(|one| one.zone.as_ref() == Some(zone));
        }
        let usable = usable.iter().filter_map(|one| all.get(&one.address).cloned()).collect();
        Self { settings: Arc::clone(&self.settings), endpoints: all, usable }
    }

    /// The status with which the cluster is configured to answer.
    pub(crate) fn refusal(&self) -> Option<StatusCode> {
        self.settings.cluster.refuse.and_then(|code| StatusCode::from_u16(code).ok())
    }

    /// Counts a request as long as the value lives; none if the cluster has as many as it may.
    pub(crate) fn begin(&self) -> Option<Counted> {
        Counted::within(&self.settings.load.requests, self.settings.cluster.limits.requests)
    }

    /// Counts a request that is sent again as long as the value lives; none if the cluster has as many as it may.
    pub(crate) fn begin_retry(&self) -> Option<Counted> {
        Counted::within(&self.settings.load.retries, self.settings.cluster.limits.retries.unwrap_or(u32::MAX))
    }

    /// Counts a copy of a request as long as the value lives; none if there are as many as may be: a mirror that hangs holds all of them.
    pub(crate) fn begin_copy(&self) -> Option<Counted> {
        Counted::within(&self.settings.load.copies, COPIES)
    }

    /// Counts a request that waits for a connection as long as the value lives; none if as many wait as may.
    pub(crate) fn begin_wait(&self) -> Option<Counted> {
        Counted::within(&self.settings.load.waiting, self.settings.cluster.limits.waiting)
    }

    /// Waits until a connection can be had, perhaps. One that nobody uses is ended, since it may be another worker's.
    pub(crate) async fn freed(&self) {
        if let Some(unused) = self.endpoints.values().find_map(|endpoint| endpoint.take_unused()) {
            drop(unused);
        }
        self.settings.load.freed.notified().await;
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.settings.load.requests.load(Relaxed)
    }

    /// Endpoints that serve, and whether each gets new requests.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&Arc<Endpoint>, bool)> {
        let chosen = |endpoint: &Arc<Endpoint>| self.usable.iter().any(|one| Arc::ptr_eq(one, endpoint));
        self.endpoints.values().map(move |endpoint| (endpoint, chosen(endpoint)))
    }

    /// An endpoint for a request, other than those in `avoid` if there is one.
    pub(crate) fn choose(&self, avoid: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        choose(&self.usable, avoid)
    }

    /// The same for what comes from an address, which may be led to one endpoint alone.
    pub(crate) fn choose_for(&self, client: IpAddr, avoid: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        if self.settings.cluster.by_client { of_client(&self.usable, client, avoid) } else { self.choose(avoid) }
    }

    /// The endpoint that a client has been to. Terminating ones serve those who were there before.
    pub(crate) fn returning(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        self.endpoints.get(&address).filter(|endpoint| endpoint.healthy()).cloned()
    }
}
