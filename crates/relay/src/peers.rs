// SPDX-License-Identifier: Apache-2.0
//! Node discovery: an agent's peer service lists the nodes, and the pool keeps a connection to each.

use crate::config::{ClientTls, Config};
use crate::pool::{Backoff, Dial, Peer, Pool};
use futures::{Stream, StreamExt};
use hubble::client::{Server, Tls};
use hubble::proto::peer::peer_client::PeerClient;
use hubble::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Status, Streaming};

/// How long a new stream has to list the previously known nodes again.
const SETTLING: Duration = Duration::from_secs(30);
/// How long a server may be silent before it is pinged, and how long it may take to reply.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// Follows the peer service for ever. While it is unreachable, the last known nodes stay.
pub(crate) async fn follow(config: Config, dial: Dial, mut pool: Pool) {
    let mut backoff = Backoff::new(config.retry_timeout);
    loop {
        let reason = match connect(&config, &dial).await {
            Ok(changes) => {
                tracing::info!(service = config.peer_service, "following the nodes");
                backoff = Backoff::new(config.retry_timeout);
                apply(changes, &mut pool).await
            }
            Err(reason) => reason,
        };
        // Logged once per outage.
        if backoff.is_new() {
            tracing::warn!(service = config.peer_service, reason, "cannot follow the nodes");
        }
        sleep(backoff.next()).await;
    }
}

async fn connect(config: &Config, dial: &Dial) -> Result<Streaming<ChangeNotification>, String> {
    let local = config.peer_service.starts_with("unix:");
    let tls = match config.client_tls().filter(|_| !local) {
        Some(files) => Some(files.read(service_name(&config.cluster)).await?),
        None => None,
    };
    let server = Server {
        address: config.peer_service.clone(),
        tls,
        timeout: Some(config.dial_timeout),
        keepalive: Some(SILENCE),
    };
    let opened = timeout(config.dial_timeout, async {
        let channel = dial(server).await?;
        let changes = PeerClient::new(channel).notify(NotifyRequest {}).await;
        changes.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    });
    opened.await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// Applies the stream to the pool until it ends; returns why it did.
async fn apply(mut changes: impl Stream<Item = Result<ChangeNotification, Status>> + Unpin, pool: &mut Pool) -> String {
    let mut unconfirmed: BTreeSet<String> = pool.names();
    let settled = Instant::now() + SETTLING;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(change)) => {
                    unconfirmed.remove(&change.name);
                    take(change, pool);
                }
                Some(Err(status)) => return status.message().to_owned(),
                None => return "it has ended the stream".to_owned(),
            },
            () = sleep_until(settled), if !unconfirmed.is_empty() => {
                for name in std::mem::take(&mut unconfirmed) {
                    pool.remove(&name);
                }
            }
        }
    }
}

fn take(change: ChangeNotification, pool: &mut Pool) {
    match change.r#type() {
        ChangeNotificationType::PeerAdded | ChangeNotificationType::PeerUpdated => {
            let server_name = change.tls.map(|tls| tls.server_name).filter(|name| !name.is_empty());
            pool.insert(change.name, Peer { address: change.address, server_name });
        }
        ChangeNotificationType::PeerDeleted => pool.remove(&change.name),
        ChangeNotificationType::Unknown => {
            tracing::warn!(node = change.name, kind = change.r#type, "ignoring a change of unknown kind");
        }
    }
}

/// The name in every agent's certificate for the peer service.
fn service_name(cluster: &str) -> String {
    format!("hubble-peer.{}.hubble-grpc.cilium.io", cluster.replace('.', "-"))
}

impl ClientTls {
    /// TLS options for the server with this name. Files are read each time, since they are renewed.
    pub(crate) async fn read(&self, server_name: String) -> Result<Tls, String> {
        let mut authorities = Vec::new();
        for path in &self.authorities {
            authorities.extend(read(path).await?);
            authorities.push(b'\n');
        }
        let identity = Some((read(&self.certificate).await?, read(&self.key).await?));
        Ok(Tls { authorities, server_name: Some(server_name), identity, allow_insecure: false })
    }
}

async fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    tokio::fs::read(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pool::network;
    use futures::stream;

    fn change(name: &str, kind: ChangeNotificationType) -> Result<ChangeNotification, Status> {
        // Nobody listens there.
        let address = "127.0.0.1:1".to_owned();
        Ok(ChangeNotification { name: name.to_owned(), address, r#type: kind.into(), tls: None })
    }

    #[tokio::test]
    async fn a_name_that_no_node_can_have_is_not_kept() {
        let mut pool = Pool::new(&Config::default(), network());
        let added = |name: &str| change(name, ChangeNotificationType::PeerAdded);
        let mut moved = added("c").unwrap();
        moved.address = "1".repeat(1 << 20);
        let told = [added("a"), added(&"b".repeat(1 << 20)), Ok(moved)];
        apply(stream::iter(told), &mut pool).await;
        assert!(pool.names().iter().eq(["a"]), "{} nodes", pool.names().len());
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_that_a_returned_service_does_not_tell_of_again_are_gone_after_a_while() {
        let mut pool = Pool::new(&Config::default(), network());
        let [added, deleted] = [ChangeNotificationType::PeerAdded, ChangeNotificationType::PeerDeleted];
        let first = [change("a", added), change("b", added), change("c", added), change("c", deleted)];
        let ended = apply(stream::iter(first), &mut pool).await;
        assert_eq!(ended, "it has ended the stream");
        assert!(pool.names().iter().eq(["a", "b"]), "{:?}", pool.names());
        let again = stream::iter([change("b", added)]).chain(stream::pending());
        let nodes = pool.nodes();
        let following = tokio::spawn(async move { apply(again, &mut pool).await });
        tokio::time::sleep(SETTLING - Duration::from_secs(1)).await;
        assert!(nodes.borrow().keys().eq(["a", "b"]), "too early");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(nodes.borrow().keys().eq(["b"]), "{:?}", nodes.borrow().keys());
        following.abort();
    }
}
