// SPDX-License-Identifier: Apache-2.0
//! Bytes from clients to backends: plain TCP, TLS that passes through, what was in TLS that ended here, and what pods send to Services.

use crate::callers::Denied;
use crate::lease::{Joined, Judged, Lease};
use crate::loops::Transport;
use crate::proxy_protocol::Peer;
use crate::rewind::Rewind;
use crate::route::pick;
use crate::serving::{Listening, Served, Shared};
use crate::stream::join;
use crate::upstream::{ConnectError, Endpoint, Link, Upstream, dial};
use crate::worker::Counted;
use l7::{Forward, Target};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Endpoints that are tried before a connection is given up.
const ATTEMPTS: usize = 3;

/// A connection of a client.
pub(crate) struct Client<T> {
    pub(crate) stream: Rewind<T>,
    /// Who it is from, as far as is told.
    pub(crate) peer: Peer,
    /// The two ends of the connection itself.
    pub(crate) ends: Peer,
}

/// Joins a client's connection with one to a backend.
pub(crate) async fn forward<T: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    listening: &Listening,
    server_name: String,
    client: Client<T>,
) {
    let Client { stream, peer, ends } = client;
    let is_own = || shared.opened.have(Transport::Tcp, ends.client, ends.local);
    let opened = if is_own() { Err("loop") } else { open(shared, listening, &server_name, peer).await };
    // Whoever has opened this one may have been about to say so.
    let opened = opened.and_then(|opened| if is_own() { Err("loop") } else { Ok(opened) });
    let Opened { mut link, endpoint, upstream, judged, _counted } = match opened {
        Ok(opened) => opened,
        Err(reason) => return listening.metrics.refused(reason),
    };
    let (first, client) = stream.into_parts();
    let (listener, cluster) = (listening.spec.name.clone(), upstream.settings.cluster.name.clone());
    let judged = judged.then(|| Judged { client: peer.client.ip(), endpoint });
    let mut lease = Lease::new(shared, 0, Joined { listener, server_name, cluster, judged });
    // While the connection came about, policy may have changed.
    if lease.holds() && link.stream.write_all(&first).await.is_ok() {
        join(client, link.stream, listening.spec.limits.idle, || lease.holds()).await;
    }
}

/// A connection to a backend.
struct Opened {
    link: Link,
    endpoint: Arc<Endpoint>,
    upstream: Arc<Upstream>,
    /// Policy has had a say.
    judged: bool,
    _counted: Counted,
}

/// A connection to where the client is led. The error is why there is none, in a word.
async fn open(shared: &Shared, listening: &Listening, server_name: &str, peer: Peer) -> Result<Opened, &'static str> {
    let judged = matches!(listening.served, Served::Service(..));
    let caller = judged.then(|| shared.serving.load().callers.get(peer.client.ip()).ok_or("stranger")).transpose()?;
    let forward = listening.forward(server_name).ok_or("no-backend")?;
    let upstream = backend(shared, forward).ok_or("no-backend")?;
    let overloaded = || {
        shared.metrics.overloaded.inc();
        "overloaded"
    };
    let counted = upstream.begin().ok_or_else(overloaded)?;
    let mut avoid = Vec::new();
    for _ in 0..ATTEMPTS {
        let chosen = upstream.choose_for(peer.client.ip(), &avoid).ok_or("no-endpoint")?;
        let endpoint = match &caller {
            None => chosen,
            Some(caller) => caller.led_to(&upstream, chosen).map_err(|Denied| "denied")?.ok_or("no-endpoint")?,
        };
        if shared.serving.load().places.are_at(Transport::Tcp, endpoint.address) {
            return Err("loop");
        }
        match dial(&endpoint, peer, &shared.opened).await {
            Ok(link) => return Ok(Opened { link, endpoint, upstream, judged, _counted: counted }),
            Err(ConnectError::Limit) => return Err(overloaded()),
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.address, %error, "an endpoint is left out for a while");
                shared.metrics.unreached.inc();
                endpoint.unreached(&error);
                avoid.push(endpoint.address);
            }
        }
    }
    Err("unreachable")
}

/// The cluster of one of the backends, by weight.
pub(crate) fn backend(shared: &Shared, forward: &Forward) -> Option<Arc<Upstream>> {
    match &pick(&forward.backends)?.target {
        Target::Cluster(name) => {
            shared.serving.load().upstreams.get(name).filter(|upstream| upstream.refusal().is_none()).cloned()
        }
        Target::Status(_) => None,
    }
}
