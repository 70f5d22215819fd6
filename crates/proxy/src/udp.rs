// SPDX-License-Identifier: Apache-2.0
//! Datagrams from clients to backends and back. A client's address is what makes a conversation of them.

use crate::crowd::Member;
use crate::lease::{Joined, LOOK, Lease};
use crate::loops::{Own, Transport};
use crate::serving::{Listening, Served, Shared};
use crate::tcp::backend;
use crate::worker::Counted;
use l7::Name;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Largest datagram.
const LARGEST: usize = 64 << 10;

/// Conversations by client.
type Conversations = Arc<Mutex<HashMap<SocketAddr, Arc<Conversation>>>>;

/// A client that is joined to a backend by a socket of its own.
#[derive(Debug)]
struct Conversation {
    backend: UdpSocket,
    /// The client has sent something.
    moved: AtomicBool,
    _own: Own,
}

/// Serves a socket until it is to stop. Then its conversations end, and with them the last who has the socket; those of a process that
/// ends go on while it does.
pub(crate) async fn serve(shared: &Arc<Shared>, name: &Name, socket: StdSocket, stop: &CancellationToken) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(listener = %name, %error, "the socket cannot be served"),
    };
    let mut tasks = JoinSet::new();
    stop.run_until_cancelled(receive(shared, name, &socket, &mut tasks)).await;
    if shared.drain.is_cancelled() {
        tasks.detach_all();
    } else {
        tasks.shutdown().await;
    }
}

async fn receive(shared: &Arc<Shared>, name: &Name, socket: &Arc<UdpSocket>, tasks: &mut JoinSet<()>) {
    let conversations = Conversations::default();
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error is about a datagram that was sent before: its receiver is gone.
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else { continue };
        let known = conversations.lock().get(&client).cloned();
        let known = match known {
            Some(known) => known,
            None => match open(shared, name, client).await {
                Some(Opened { listening, conversation, lease, counted, member }) => {
                    conversations.lock().insert(client, Arc::clone(&conversation));
                    while tasks.try_join_next().is_some() {}
                    let displaced = member.displaced.clone();
                    let conversations = Arc::clone(&conversations);
                    let held = Held { listening, client, conversations, lease, _counted: counted, _member: member };
                    let (socket, own) = (Arc::clone(socket), Arc::clone(&conversation));
                    tasks.spawn(async move {
                        displaced.run_until_cancelled(held.converse(&socket, &own)).await;
                    });
                    conversation
                }
                None => continue,
            },
        };
        known.moved.store(true, Relaxed);
        // What does not get through is lost, as datagrams are.
        let _ = known.backend.try_send(datagram.get(..length).unwrap_or_default());
    }
}

/// A conversation that begins.
struct Opened {
    listening: Arc<Listening>,
    conversation: Arc<Conversation>,
    lease: Lease<Joined>,
    counted: Counted,
    member: Member,
}

/// A conversation of a new client.
async fn open(shared: &Arc<Shared>, name: &Name, client: SocketAddr) -> Option<Opened> {
    let listening = shared.serving.load().listeners.get(name).cloned()?;
    let Served::Udp(forward) = &listening.served else { return None };
    let Some((counted, member)) = listening.room_for(client.ip()) else {
        listening.metrics.refused("connections");
        return None;
    };
    if shared.opened.have(Transport::Udp, client, listening.spec.address) {
        listening.metrics.refused("loop");
        return None;
    }
    let chosen = backend(shared, forward).and_then(|upstream| Some((upstream.choose(&[])?, upstream)));
    let Some((endpoint, upstream)) = chosen else {
        listening.metrics.refused("no-backend");
        return None;
    };
    if shared.serving.load().places.are_at(Transport::Udp, endpoint.address) {
        listening.metrics.refused("loop");
        return None;
    }
    let any: SocketAddr = match endpoint.address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let backend = UdpSocket::bind(any).await.ok()?;
    backend.connect(endpoint.address).await.ok()?;
    let own = shared.opened.add(Transport::Udp, backend.local_addr().ok()?, endpoint.address);
    // A new socket is not known to be ready until it has been asked.
    backend.writable().await.ok()?;
    tracing::trace!(%client, endpoint = %endpoint.address, "a conversation begins");
    listening.metrics.opened();
    let conversation = Arc::new(Conversation { backend, moved: AtomicBool::default(), _own: own });
    let cluster = upstream.settings.cluster.name.clone();
    let terms = Joined { listener: name.clone(), server_name: String::new(), cluster, judged: None };
    let lease = Lease::new(shared, 0, terms);
    Some(Opened { listening, conversation, lease, counted, member })
}

/// A conversation is known, and counts, until this is dropped.
struct Held {
    listening: Arc<Listening>,
    client: SocketAddr,
    conversations: Conversations,
    lease: Lease<Joined>,
    _counted: Counted,
    _member: Member,
}

impl Held {
    /// Brings answers back until neither side has sent anything for as long as the listener allows, the backend is gone, or the route.
    async fn converse(mut self, socket: &UdpSocket, conversation: &Conversation) {
        let backend = &conversation.backend;
        let idle = self.listening.spec.limits.idle;
        let (mut datagram, mut since) = (Vec::with_capacity(2 << 10), Instant::now());
        while self.lease.holds() {
            let answered = timeout(idle.min(LOOK), backend.readable()).await;
            if answered.is_ok() || conversation.moved.swap(false, Relaxed) {
                since = Instant::now();
            }
            match answered {
                Ok(Ok(())) => {}
                Err(_) if since.elapsed() < idle => continue,
                Ok(Err(_)) | Err(_) => return,
            }
            datagram.clear();
            datagram.reserve(LARGEST);
            match backend.try_recv_buf(&mut datagram) {
                Ok(_) => drop(socket.send_to(&datagram, self.client).await),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            datagram.shrink_to(2 << 10);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.conversations.lock().remove(&self.client);
        self.listening.metrics.closed();
    }
}
