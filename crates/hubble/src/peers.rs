// SPDX-License-Identifier: Apache-2.0
//! The peer service: which nodes serve flows, and where.

use crate::config::Config;
use crate::proto::peer::peer_server::Peer;
use crate::proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, Tls};
use model::Node;
use statedb::{Change, Reader, Row};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

const PORT: u16 = 4244;
const QUEUE: usize = 64;

/// The peers of this node, itself included.
#[derive(Clone)]
pub(crate) struct Peers {
    nodes: Reader<Node>,
    rules: Arc<Rules>,
}

/// How a node is described.
#[derive(Debug)]
struct Rules {
    port: u16,
    tls: bool,
    prefer_ipv6: bool,
}

impl Peers {
    pub(crate) fn new(config: &Config, nodes: Reader<Node>) -> Self {
        let port = config.listen.map_or(PORT, |listen| listen.port());
        Self { nodes, rules: Arc::new(Rules { port, tls: config.tls().is_some(), prefer_ipv6: config.prefer_ipv6 }) }
    }
}

#[tonic::async_trait]
impl Peer for Peers {
    type NotifyStream = Pin<Box<dyn Stream<Item = Result<ChangeNotification, Status>> + Send>>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        tokio::spawn(notify(self.nodes.clone(), Arc::clone(&self.rules), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn notify(nodes: Reader<Node>, rules: Arc<Rules>, sender: Sender<Result<ChangeNotification, Status>>) {
    let mut changes = nodes.subscribe();
    let mut known = BTreeMap::new();
    loop {
        let batch = tokio::select! {
            batch = changes.next() => batch,
            () = sender.closed() => return,
        };
        for change in &batch.changes {
            if let Some(notification) = rules.notification(&mut known, change)
                && sender.send(Ok(notification)).await.is_err()
            {
                return;
            }
        }
    }
}

impl Rules {
    /// The notifications for a change, given the nodes the client knows by name and address.
    fn notification(&self, known: &mut BTreeMap<String, String>, change: &Change<Node>) -> Option<ChangeNotification> {
        let (node, address) = match change {
            Change::Upsert(node) => (node, self.address(node)),
            Change::Delete(node) => (node, None),
        };
        let name = node.key().to_string();
        let old = match &address {
            Some(address) => known.insert(name.clone(), address.clone()),
            None => known.remove(&name),
        };
        let kind = match (&old, &address) {
            (None, Some(_)) => ChangeNotificationType::PeerAdded,
            (Some(_), None) => ChangeNotificationType::PeerDeleted,
            (Some(old), Some(new)) if old != new => ChangeNotificationType::PeerUpdated,
            _ => return None,
        };
        let tls = self.tls.then(|| Tls { server_name: server_name(node) });
        Some(ChangeNotification { name, address: address.or(old).unwrap_or_default(), r#type: kind.into(), tls })
    }

    fn address(&self, node: &Node) -> Option<String> {
        let all = || node.internal_ips.iter().chain(&node.external_ips);
        let wanted = all().find(|ip| ip.is_ipv6() == self.prefer_ipv6);
        let ip: IpAddr = *wanted.or_else(|| all().next())?;
        Some(SocketAddr::new(ip, self.port).to_string())
    }
}

/// The name in the certificate of a node.
fn server_name(node: &Node) -> String {
    let label = |text: &str| text.replace('.', "-");
    let cluster = if node.cluster.is_empty() { "default" } else { &node.cluster };
    format!("{}.{}.hubble-grpc.cilium.io", label(&node.name), label(cluster))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_peer_is_added_once_updated_when_it_moves_and_deleted() {
        let rules = Rules { port: 4244, tls: true, prefer_ipv6: false };
        let mut known = BTreeMap::new();
        let mut tell = |change: Change<Node>| rules.notification(&mut known, &change);
        let node = |ip| Arc::new(fixture::node("n.2", ip, false));
        let added = tell(Change::Upsert(node("192.168.0.2"))).unwrap();
        assert_eq!((added.name.as_str(), added.address.as_str()), ("blue/n.2", "192.168.0.2:4244"));
        assert_eq!(added.r#type(), ChangeNotificationType::PeerAdded);
        assert_eq!(added.tls.unwrap().server_name, "n-2.blue.hubble-grpc.cilium.io");
        assert_eq!(tell(Change::Upsert(node("192.168.0.2"))), None);
        assert_eq!(tell(Change::Upsert(node("fd00::2"))).unwrap().r#type(), ChangeNotificationType::PeerUpdated);
        let gone = tell(Change::Delete(node("fd00::2"))).unwrap();
        assert_eq!((gone.r#type(), gone.address.as_str()), (ChangeNotificationType::PeerDeleted, "[fd00::2]:4244"));
        assert_eq!(tell(Change::Delete(node("fd00::2"))), None);
    }

    #[test]
    fn a_node_without_an_address_is_no_peer() {
        let rules = Rules { port: 4244, tls: false, prefer_ipv6: true };
        let mut node = fixture::node("n2", "192.168.0.2", false);
        assert_eq!(rules.address(&node).unwrap(), "192.168.0.2:4244");
        node.internal_ips.clear();
        assert_eq!(rules.notification(&mut BTreeMap::new(), &Change::Upsert(Arc::new(node))), None);
    }
}
