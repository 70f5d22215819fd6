// SPDX-License-Identifier: Apache-2.0
//! What is in force: everything that a connection or a request needs to know, as one value that is swapped as a whole.

use crate::access::AccessLog;
use crate::callers::{Caller, Callers};
use crate::crowd::{Crowd, Member};
use crate::exchange::{Backlog, Room};
use crate::limiter::Limiter;
use crate::loops::{Opened, Places};
use crate::metrics::{ListenerMetrics, Metrics};
use crate::observe::Observer;
use crate::route::{HostMap, Table, Tables};
use crate::tls::Verification;
use crate::upstream::Upstream;
use crate::worker::{Counted, Workers};
use arc_swap::ArcSwap;
use imbl::HashMap;
use l7::{Forward, Listener, Name};
use rustls::ServerConfig;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) serving: ArcSwap<Serving>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: Option<AccessLog>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) workers: Workers,
    /// Connections for bytes, by which a loop is told.
    pub(crate) opened: Opened,
    /// Listeners of datagrams.
    pub(crate) udp_listeners: Arc<AtomicUsize>,
    /// What waits for clients that do not read.
    pub(crate) backlog: Arc<Backlog>,
    /// Where parts of bodies wait for mirrors.
    pub(crate) copies: Room,
    /// Connections are to end with the request that is under way.
    pub(crate) drain: CancellationToken,
    /// How long they have for that.
    pub(crate) drain_time: Duration,
}

/// One state of everything. A clone shares what does not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    /// Which state it is: another has another number. The first has 1.
    pub(crate) number: u64,
    pub(crate) tables: Tables,
    pub(crate) upstreams: HashMap<Name, Arc<Upstream>>,
    pub(crate) callers: Callers,
    pub(crate) limiters: HashMap<Name, Arc<Limiter>>,
    pub(crate) listeners: HashMap<Name, Arc<Listening>>,
    pub(crate) places: Places,
}

/// A listener as it is served.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) spec: Arc<Listener>,
    pub(crate) served: Served,
    /// Beside TLS, for clients that begin without it.
    pub(crate) clear: Option<Arc<HttpSite>>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Open connections; it outlives changes of the listener.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Who they are from; the same.
    pub(crate) crowd: Arc<Crowd>,
}

/// What is spoken at a socket.
#[derive(Debug)]
pub(crate) enum Served {
    Http(Arc<HttpSite>),
    Tls(HostMap<Arc<TlsSite>>),
    Tcp(Forward),
    Udp(Forward),
    /// Bytes of pods, or requests of those whose namespaces have routes of their own.
    Service(Forward, Option<Arc<HttpSite>>),
}

/// Tables by host.
#[derive(Debug)]
pub(crate) struct HttpSite {
    pub(crate) tables: HostMap<Name>,
    pub(crate) trusted_hops: u32,
    pub(crate) mesh: Option<MeshSite>,
}

/// Tables of a Service by the namespace of the pod that asks.
#[derive(Debug)]
pub(crate) struct MeshSite {
    pub(crate) by_consumer: std::collections::HashMap<Name, Name>,
    /// Pods of other namespaces have the site's tables; otherwise none.
    pub(crate) produces: bool,
}

/// What is done with TLS connections for some names.
#[derive(Debug)]
pub(crate) enum TlsSite {
    Passthrough(Forward),
    Tcp(Arc<ServerConfig>, Forward),
    Http(Arc<ServerConfig>, Arc<HttpSite>, Option<Verification>),
    /// Nobody is let in: there is nothing to verify clients with.
    Refused,
}

impl Serving {
    /// The routes that a site has for a host, asked for by a pod if it is a Service's.
    pub(crate) fn table(&self, site: &HttpSite, host: &str, caller: Option<&Caller>) -> Option<&Table> {
        let own = site.mesh.as_ref().and_then(|mesh| match mesh.by_consumer.get(&caller?.namespace) {
            None if mesh.produces => None,
            table => Some(table),
        });
        let table = own.unwrap_or_else(|| site.tables.candidates(host).next());
        table.and_then(|name| self.tables.get(name))
    }
}

impl Listening {
    /// Room for one more of a client. Where there is none, whoever has the most makes some.
    pub(crate) fn room_for(&self, client: IpAddr) -> Option<(Counted, Member)> {
        let room = Counted::within(&self.connections, self.spec.limits.connections);
        let more = || self.crowd.make_room(client).then(|| Counted::new(&self.connections));
        let counted = room.or_else(more)?;
        Some((counted, self.crowd.enter(client)))
    }

    /// What is served to clients in clear.
    pub(crate) fn http_site(&self) -> Option<&Arc<HttpSite>> {
        match &self.served {
            Served::Http(site) => Some(site),
            Served::Tls(_) => self.clear.as_ref(),
            Served::Service(_, consumers) => consumers.as_ref(),
            Served::Tcp(_) | Served::Udp(_) => None,
        }
    }

    /// Where bytes go, of clients of TLS by the name of the server.
    pub(crate) fn forward(&self, server_name: &str) -> Option<&Forward> {
        match &self.served {
            Served::Tcp(forward) | Served::Udp(forward) | Served::Service(forward, _) => Some(forward),
            Served::Tls(_) => match &**self.tls_site(server_name)? {
                TlsSite::Passthrough(forward) | TlsSite::Tcp(_, forward) => Some(forward),
                TlsSite::Http(..) | TlsSite::Refused => None,
            },
            Served::Http(_) => None,
        }
    }

    /// Whether the namespace of a pod has routes of its own, where others send bytes.
    pub(crate) fn has_routes_of(&self, caller: &Caller) -> bool {
        let Served::Service(_, Some(site)) = &self.served else { return false };
        site.mesh.as_ref().is_some_and(|mesh| mesh.by_consumer.contains_key(&caller.namespace))
    }

    /// What is done with TLS connections for this name, which is in lower case and may be empty.
    pub(crate) fn tls_site(&self, name: &str) -> Option<&Arc<TlsSite>> {
        match &self.served {
            Served::Tls(sites) => sites.candidates(name).next(),
            Served::Http(_) | Served::Tcp(_) | Served::Udp(_) | Served::Service(..) => None,
        }
    }
}

impl TlsSite {
    pub(crate) fn http_site(&self) -> Option<&Arc<HttpSite>> {
        match self {
            Self::Http(_, site, _) => Some(site),
            Self::Passthrough(_) | Self::Tcp(..) | Self::Refused => None,
        }
    }

    /// How clients are verified whose requests are served.
    pub(crate) fn verifies(&self) -> Option<&Verification> {
        match self {
            Self::Http(_, _, verification) => verification.as_ref(),
            Self::Passthrough(_) | Self::Tcp(..) | Self::Refused => None,
        }
    }
}
