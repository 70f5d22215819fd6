// SPDX-License-Identifier: Apache-2.0
//! What the proxy is given.

mod callers;
mod listeners;
mod mesh;
mod parts;
mod ports;
mod routes;
mod socket;
mod unserved;

pub use mesh::{Intercepted, intercepted};
pub(crate) use parts::{shown, trusted};
pub use socket::{ClosedPort, Edition, InForce, Taken, in_force, taken};
pub use unserved::Unserved;

use crate::cluster::ClusterName;
use crate::envoy::{self, EnvoyProblems};
use crate::name::{ObjectName, RouteName};
use crate::objects::Objects;
use crate::resolve::{Resolved, resolve};
use crate::source::TokenKey;
use futures::FutureExt;
use l7::link::Published;
use l7::{ClusterLimits, Limits, Version};
use model::config::Label;
use model::{IdentityId, IpEntry, Node, Permission, Pod, Proxied};
use statedb::{Batch, Change, Changes, Derived, Reader, Tasks};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// For how long a snapshot may be held back while Gateways or routes go on changing.
const HOLD_BACK: Duration = Duration::from_millis(50);

/// What a part of the snapshot is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartName {
    Edge(ObjectName),
    Route(RouteName),
    Cluster(ClusterName),
    KeyPair(ObjectName),
    Anchors(ObjectName),
    /// What pods send to a Service.
    Service(ObjectName),
    /// What counts requests, of a CiliumEnvoyConfig.
    RateLimits(ObjectName),
    /// A pod that sends to Services.
    Client(IpAddr),
    /// What pods of an identity may reach.
    Permission(IdentityId),
}

/// Objects of the snapshot that come and go together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) name: PartName,
    pub(crate) objects: Vec<l7::Object>,
    /// Names of listeners for which there is no port.
    pub(crate) refused: Vec<String>,
}

impl statedb::Row for Part {
    type Key = PartName;
    fn key(&self) -> PartName {
        self.name.clone()
    }
}

/// How Gateways are served on a node.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// Gateways are reached at the own addresses and ports of the nodes with these labels; otherwise at those of a Service.
    pub gateways_at: Option<Vec<Label>>,
    /// The same of Ingresses.
    pub ingresses_at: Option<Vec<Label>>,
    /// IPv4 is on.
    pub ipv4: bool,
    /// IPv6 is on.
    pub ipv6: bool,
    /// Connections to Gateways begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Connections to Ingresses do.
    pub ingress_proxy_protocol: bool,
    /// Proxies before this one that are believed what they say of clients.
    pub trusted_hops: u32,
    /// HTTP/2 is offered in TLS of Gateways; in that of Ingresses it always is.
    pub alpn: bool,
    /// Which HTTP a backend speaks is told by its Service.
    pub app_protocol: bool,
    /// Hints of endpoints count.
    pub topology: bool,
    /// What clients may take.
    pub limits: Limits,
    /// What the proxy may take of backends.
    pub cluster_limits: ClusterLimits,
}

/// What the proxy is to serve. The first snapshot has number 1: before, not all objects are known.
pub type Snapshots = watch::Receiver<Published>;

/// Who is who, and who may reach whom.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Pods of this node.
    pub pods: Reader<Pod>,
    /// Nodes, of which this one's labels count.
    pub nodes: Reader<Node>,
    /// Who has each address.
    pub addresses: Reader<IpEntry>,
    /// What policy says of [`Serves::proxied`].
    pub permissions: Reader<Permission>,
    /// The key of session persistence.
    pub token_keys: Reader<TokenKey>,
}

/// What follows from objects for a node.
#[derive(Clone, Debug)]
pub struct Serves {
    /// For its proxy.
    pub snapshots: Snapshots,
    /// For policy, which says who may be sent where.
    pub proxied: Reader<Proxied>,
    /// What of CiliumEnvoyConfigs is not honoured.
    pub problems: Reader<EnvoyProblems>,
    /// For whoever asks why a listener is not served.
    pub unserved: Reader<Unserved>,
}

/// Keeps what the proxy is to serve as it follows from objects.
pub fn serve(tasks: &Tasks, objects: &Objects, peers: &Peers, serving: &Serving) -> Serves {
    let resolved = resolve(tasks, objects);
    let parts = parts::derive(tasks, &resolved, peers, serving);
    let proxied = mesh::proxied(tasks, &resolved, &parts.rows);
    let callers = callers::derive(tasks, peers);
    let unserved = unserved::derive(tasks, &parts.rows);
    let together = statedb::merge(tasks, "gateway-all-parts", [parts.rows.clone(), callers.rows.clone()]);
    let problems = envoy::problems(tasks, &resolved.placed, Some(&peers.addresses));
    let (sender, snapshots) = watch::channel(Published::default());
    tasks.spawn("gateway-snapshot", Assembly { resolved, parts, callers, together }.run(sender));
    Serves { snapshots, proxied, problems, unserved }
}

/// Puts the parts together. A snapshot is of one moment: no listener is in it without its routes, and no route without its clusters.
struct Assembly {
    resolved: Resolved,
    parts: Derived<Part>,
    callers: Derived<Part>,
    /// The parts of both.
    together: Derived<Part>,
}

impl Assembly {
    async fn run(self, sender: watch::Sender<Published>) {
        self.together.rows.initialized().await;
        let mut changes = self.together.rows.subscribe();
        let mut published = Published::default();
        loop {
            follow(&mut published, &mut changes).await;
            let settled = async { while !self.settled(&mut published, &mut changes).await {} };
            let _held_back_enough = tokio::time::timeout(HOLD_BACK, settled).await;
            published.version = Version(published.version.0 + 1);
            sender.send_replace(published.clone());
        }
    }

    /// Lets everything catch up; whether Gateways and routes stood still meanwhile.
    async fn settled(&self, published: &mut Published, changes: &mut Changes<Part>) -> bool {
        let Resolved { edges, routes, .. } = &self.resolved;
        let revisions = || (edges.rows.snapshot().revision(), routes.rows.snapshot().revision());
        let before = revisions();
        self.resolved.caught_up().await;
        self.parts.caught_up().await;
        self.callers.caught_up().await;
        self.together.caught_up().await;
        let _ = follow(published, changes).now_or_never();
        before == revisions()
    }
}

/// Takes over what has changed.
async fn follow(published: &mut Published, changes: &mut Changes<Part>) {
    let before = changes.snapshot().clone();
    let Batch { changes, .. } = changes.next().await;
    let snapshot = Arc::make_mut(&mut published.snapshot);
    for change in changes {
        let (Change::Upsert(part) | Change::Delete(part)) = &change;
        for object in before.get(&part.name).iter().flat_map(|part| &part.objects) {
            snapshot.remove(&object.key());
        }
        if let Change::Upsert(part) = &change {
            part.objects.iter().for_each(|object| snapshot.set(object.clone()));
        }
    }
}
