// SPDX-License-Identifier: Apache-2.0
//! Datagrams from clients to backends and back. A client's address is what makes a conversation of them.

use crate::serving::{Served, Shared};
use crate::tcp::backend;
use crate::worker::Counted;
use l7::Name;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Largest datagram.
const LARGEST: usize = 64 << 10;

/// Conversations by client: the sockets towards their backends.
type Conversations = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

/// Serves a socket until it is no longer wanted.
pub(crate) async fn serve(shared: &Arc<Shared>, name: &Name, socket: StdSocket) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(listener = %name, %error, "the socket cannot be served"),
    };
    let conversations = Conversations::default();
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error is about a datagram that was sent before: its receiver is gone.
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else { continue };
        let known = conversations.lock().get(&client).cloned();
        let Some(backend) = (match known {
            Some(backend) => Some(backend),
            None => open(shared, name, &socket, client, &conversations).await,
        }) else {
            continue;
        };
        // What does not get through is lost, as datagrams are.
        let _ = backend.try_send(datagram.get(..length).unwrap_or_default());
    }
}

/// A conversation of a new client.
async fn open(
    shared: &Arc<Shared>,
    name: &Name,
    socket: &Arc<UdpSocket>,
    client: SocketAddr,
    conversations: &Conversations,
) -> Option<Arc<UdpSocket>> {
    let listening = shared.serving.load().listeners.get(name).cloned()?;
    let Served::Udp(forward) = &listening.served else { return None };
    let Some(counted) = Counted::within(&listening.connections, listening.spec.limits.connections) else {
        listening.metrics.refused("connections");
        return None;
    };
    let Some(endpoint) = backend(shared, forward).and_then(|upstream| upstream.choose(&[])) else {
        listening.metrics.refused("no-backend");
        return None;
    };
    let any: SocketAddr = match endpoint.address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let backend = Arc::new(UdpSocket::bind(any).await.ok()?);
    backend.connect(endpoint.address).await.ok()?;
    // A new socket is not known to be ready until it has been asked.
    backend.writable().await.ok()?;
    conversations.lock().insert(client, Arc::clone(&backend));
    let held = (Arc::clone(socket), Arc::clone(&backend), Arc::clone(conversations));
    let idle = listening.spec.limits.idle;
    tokio::spawn(async move {
        let (socket, backend, conversations) = held;
        listening.metrics.opened();
        answers(&socket, &backend, client, idle).await;
        conversations.lock().remove(&client);
        listening.metrics.closed();
        drop(counted);
    });
    Some(backend)
}

/// Brings answers back until none has come for `idle`, or the backend is gone.
async fn answers(socket: &UdpSocket, backend: &UdpSocket, client: SocketAddr, idle: Duration) {
    let mut datagram = Vec::with_capacity(2 << 10);
    while let Ok(Ok(())) = timeout(idle, backend.readable()).await {
        datagram.clear();
        datagram.reserve(LARGEST);
        match backend.try_recv_buf(&mut datagram) {
            Ok(_) => drop(socket.send_to(&datagram, client).await),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        datagram.shrink_to(2 << 10);
    }
}
