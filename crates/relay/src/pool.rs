// SPDX-License-Identifier: Apache-2.0
//! A connection to each known node. A broken one is re-established with exponential back-off.

use crate::config::{ClientTls, Config};
use crate::peers::SILENCE;
use futures::FutureExt;
use futures::future::BoxFuture;
use hubble::client::Server;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// No cluster has more nodes than this; a peer service that claims more is broken.
const MOST: usize = 10_000;
/// Nor are names and addresses longer, in bytes.
const LONGEST: usize = 512;
/// Shortest time between two attempts to connect to a node.
const FIRST: Duration = Duration::from_secs(1);

/// How servers are connected to; the error says why one is not.
pub(crate) type Dial = Arc<dyn Fn(Server) -> BoxFuture<'static, Result<Channel, String>> + Send + Sync>;

/// Over the network.
pub(crate) fn network() -> Dial {
    Arc::new(|server| async move { server.connect().await.map_err(|error| error.to_string()) }.boxed())
}

/// Where a node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Address and port.
    pub(crate) address: String,
    /// The name in its certificate; none without TLS.
    pub(crate) server_name: Option<String>,
}

/// A node and its state.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) link: Link,
}

#[derive(Clone, Debug)]
pub(crate) enum Link {
    Connected(Channel),
    /// Why there is no connection.
    Away(String),
}

impl Node {
    pub(crate) fn channel(&self) -> Option<&Channel> {
        match &self.link {
            Link::Connected(channel) => Some(channel),
            Link::Away(_) => None,
        }
    }
}

/// The current nodes by name.
pub(crate) type Nodes = watch::Receiver<BTreeMap<String, Node>>;

/// Keeps the connections.
pub(crate) struct Pool {
    nodes: Arc<watch::Sender<BTreeMap<String, Node>>>,
    connecting: BTreeMap<String, AbortOnDropHandle<()>>,
    rules: Rules,
}

/// How nodes are connected to.
#[derive(Clone)]
struct Rules {
    dial: Dial,
    tls: Option<ClientTls>,
    dial_timeout: Duration,
    retry_timeout: Duration,
}

impl Pool {
    pub(crate) fn new(config: &Config, dial: Dial) -> Self {
        let &Config { dial_timeout, retry_timeout, .. } = config;
        let rules = Rules { dial, tls: config.client_tls(), dial_timeout, retry_timeout };
        Self { nodes: Arc::new(watch::Sender::default()), connecting: BTreeMap::new(), rules }
    }

    pub(crate) fn nodes(&self) -> Nodes {
        self.nodes.subscribe()
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.connecting.keys().cloned().collect()
    }

    /// Connects to a node, anew if it has moved.
    pub(crate) fn insert(&mut self, name: String, peer: Peer) {
        if self.nodes.borrow().get(&name).is_some_and(|node| node.peer == peer) {
            return;
        }
        let lengths = [name.len(), peer.address.len(), peer.server_name.as_ref().map_or(0, String::len)];
        if lengths.iter().any(|length| *length > LONGEST) {
            tracing::warn!(bytes = lengths.iter().sum::<usize>(), "ignoring a node: its name or address is too long");
            return;
        }
        if self.connecting.len() >= MOST && !self.connecting.contains_key(&name) {
            tracing::warn!(node = name, "ignoring a node: there are {MOST} already");
            return;
        }
        // The previous one, if any, must no longer report.
        self.connecting.remove(&name);
        let node = Node { peer: peer.clone(), link: Link::Away("not connected yet".to_owned()) };
        self.nodes.send_modify(|nodes| drop(nodes.insert(name.clone(), node)));
        let (nodes, rules, of) = (Arc::clone(&self.nodes), self.rules.clone(), name.clone());
        let task = tokio::spawn(async move { rules.keep_connected(&of, &peer, &nodes).await });
        self.connecting.insert(name, AbortOnDropHandle::new(task));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if self.connecting.remove(name).is_some() {
            self.nodes.send_modify(|nodes| drop(nodes.remove(name)));
        }
    }
}

impl Rules {
    async fn keep_connected(&self, name: &str, peer: &Peer, nodes: &watch::Sender<BTreeMap<String, Node>>) {
        let tell = |link: Link| {
            nodes.send_modify(|nodes| {
                if let Some(node) = nodes.get_mut(name).filter(|node| node.peer == *peer) {
                    node.link = link;
                }
            });
        };
        let mut backoff = Backoff::new(self.retry_timeout);
        loop {
            let reason = match self.connect(peer).await {
                Ok((channel, health)) => {
                    tracing::debug!(node = name, address = peer.address, "connected");
                    tell(Link::Connected(channel));
                    backoff = Backoff::new(self.retry_timeout);
                    gone(health).await
                }
                Err(reason) => reason,
            };
            if backoff.is_new() {
                tracing::info!(node = name, address = peer.address, reason, "not connected");
            }
            tell(Link::Away(reason));
            sleep(backoff.next()).await;
        }
    }

    /// A connection on which the node has reported itself healthy, and will report when it is not.
    async fn connect(&self, peer: &Peer) -> Result<(Channel, Streaming<HealthCheckResponse>), String> {
        let tls = match (&self.tls, &peer.server_name) {
            (Some(files), Some(name)) => Some(files.read(name.clone()).await?),
            (Some(_), None) => return Err("it serves without TLS, and disable-client-tls is not set".to_owned()),
            (None, Some(_)) => return Err("it serves with TLS, and disable-client-tls is set".to_owned()),
            (None, None) => None,
        };
        let address = peer.address.clone();
        let server = Server { address, tls, timeout: Some(self.dial_timeout), keepalive: Some(SILENCE) };
        let greeted = timeout(self.dial_timeout, async {
            let channel = (self.dial)(server).await?;
            let said = |status: tonic::Status| status.message().to_owned();
            let health = HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await;
            let mut health = health.map_err(said)?.into_inner();
            let first = health.message().await.map_err(said)?;
            if serves(first.as_ref()) { Ok((channel, health)) } else { Err("it says that it is not well".to_owned()) }
        });
        greeted.await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

fn serves(health: Option<&HealthCheckResponse>) -> bool {
    health.is_some_and(|health| health.status() == ServingStatus::Serving)
}

/// Waits until the connection breaks or the node is unhealthy; returns why.
async fn gone(mut health: Streaming<HealthCheckResponse>) -> String {
    loop {
        match health.message().await {
            Ok(Some(said)) if serves(Some(&said)) => {}
            Ok(Some(_)) => return "it says that it is not well".to_owned(),
            Ok(None) => return "it has closed the connection".to_owned(),
            Err(status) => return format!("the connection is lost: {}", status.message()),
        }
    }
}

/// Delays between attempts: doubling up to a maximum, with up to half of each taken off at random.
pub(crate) struct Backoff {
    failed: u32,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { failed: 0, longest }
    }

    /// Whether no attempt has failed yet.
    pub(crate) fn is_new(&self) -> bool {
        self.failed == 0
    }

    pub(crate) fn next(&mut self) -> Duration {
        let time = FIRST.saturating_mul(1 << self.failed.min(16)).min(self.longest);
        self.failed = self.failed.saturating_add(1);
        time.mul_f64(1.0 - rand::random::<f64>() / 2.0)
    }
}
