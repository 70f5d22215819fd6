// SPDX-License-Identifier: Apache-2.0
//! Bytes from clients to backends: plain TCP, TLS that passes through, and what was in TLS that ended here.

use crate::lease::{Joined, Lease};
use crate::proxy_protocol::Peer;
use crate::rewind::Rewind;
use crate::route::pick;
use crate::serving::{Listening, Shared};
use crate::stream::join;
use crate::upstream::{Link, Upstream, dial};
use l7::{Forward, Target};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Endpoints that are tried before a connection is given up.
const ATTEMPTS: usize = 3;

/// Joins a client's connection with one to a backend.
pub(crate) async fn forward<T: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    listening: &Listening,
    server_name: String,
    client: Rewind<T>,
    peer: Peer,
) {
    let Some(forward) = listening.forward(&server_name) else { return listening.metrics.refused("no-backend") };
    let Some(upstream) = backend(shared, forward) else { return listening.metrics.refused("no-backend") };
    let Some(_counted) = upstream.begin() else {
        shared.metrics.overloaded.inc();
        return listening.metrics.refused("overloaded");
    };
    let Some(mut link) = connect(shared, &upstream, peer).await else {
        return listening.metrics.refused("unreachable");
    };
    let (first, client) = client.into_parts();
    if link.stream.write_all(&first).await.is_ok() {
        let (listener, cluster) = (listening.spec.name.clone(), upstream.settings.cluster.name.clone());
        let mut lease = Lease::new(shared, 0, Joined { listener, server_name, cluster });
        join(client, link.stream, listening.spec.limits.idle, || lease.holds()).await;
    }
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

async fn connect(shared: &Shared, upstream: &Upstream, peer: Peer) -> Option<Link> {
    let mut avoid = Vec::new();
    for _ in 0..ATTEMPTS {
        let endpoint = upstream.choose(&avoid)?;
        match dial(&endpoint, peer).await {
            Ok(link) => return Some(link),
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.address, %error, "an endpoint is left out for a while");
                shared.metrics.unreached.inc();
                endpoint.unreached(&error);
                avoid.push(endpoint.address);
            }
        }
    }
    None
}
