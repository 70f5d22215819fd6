// SPDX-License-Identifier: Apache-2.0
//! Datagrams from clients to backends and back. A client's address is what makes a conversation of them.

use crate::crowd::Member;
use crate::lease::{Joined, LOOK, Lease};
use crate::loops::{Own, Transport};
use crate::serving::{Listening, Served, Shared};
use crate::tcp::backend;
use crate::worker::Counted;
use l7::Name;
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Largest datagram.
const LARGEST: usize = 64 << 10;

/// The part of the descriptors that all conversations may have: connections need them too.
const SHARE: usize = 4;

/// Conversations of a listener by client. Any address can be written into a datagram, so there are as many clients as somebody likes.
#[derive(Debug, Default)]
struct Conversations {
    by_client: HashMap<SocketAddr, Arc<Conversation>>,
    /// The oldest first, or those that have been looked at longest ago. Some have ended.
    order: VecDeque<(SocketAddr, Weak<Conversation>)>,
}

impl Conversations {
    fn add(&mut self, client: SocketAddr, conversation: &Arc<Conversation>) {
        if self.order.len() > 2 * self.by_client.len() + 16 {
            self.order.retain(|(_, conversation)| conversation.strong_count() > 0);
        }
        self.order.push_back((client, Arc::downgrade(conversation)));
        self.by_client.insert(client, Arc::clone(conversation));
    }

    fn remove(&mut self, client: SocketAddr, conversation: &Conversation) {
        if self.by_client.get(&client).is_some_and(|known| std::ptr::eq(&**known, conversation)) {
            self.by_client.remove(&client);
        }
    }

    /// Ends the oldest in which nothing has happened since it was looked at last; whether there is one.
    fn make_room(&mut self) -> bool {
        for _ in 0..self.order.len() {
            let Some((client, conversation)) = self.order.pop_front() else { break };
            let Some(conversation) = conversation.upgrade().filter(|one| !one.displaced.is_cancelled()) else {
                continue;
            };
            if conversation.in_use.swap(false, Relaxed) {
                self.order.push_back((client, Arc::downgrade(&conversation)));
                continue;
            }
            self.remove(client, &conversation);
            conversation.displaced.cancel();
            return true;
        }
        false
    }
}

/// How many conversations each of so many listeners may have, so that none takes the descriptors of the others.
fn share_of_each(listeners: usize, descriptors: u64) -> usize {
    let all = usize::try_from(descriptors).unwrap_or(usize::MAX) / SHARE;
    (all / listeners.max(1)).max(1)
}

/// A client that is joined to a backend by a socket of its own.
#[derive(Debug)]
struct Conversation {
    backend: UdpSocket,
    /// The client has sent something.
    moved: AtomicBool,
    /// More than the first datagram of either side has come: nobody has only written somebody's address.
    in_use: AtomicBool,
    /// Cancelled when it is to make room.
    displaced: CancellationToken,
    _own: Own,
}

/// Serves a socket until it is to stop. Then its conversations end, and with them the last who has the socket; those of a process that
/// ends go on while it does.
pub(crate) async fn serve(shared: &Arc<Shared>, name: &Name, socket: StdSocket, stop: &CancellationToken) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(listener = %name, %error, "the socket cannot be served"),
    };
    let _counted = Counted::new(&shared.udp_listeners);
    let mut tasks = JoinSet::new();
    stop.run_until_cancelled(receive(shared, name, &socket, &mut tasks)).await;
    if shared.drain.is_cancelled() {
        tasks.detach_all();
    } else {
        tasks.shutdown().await;
    }
}

async fn receive(shared: &Arc<Shared>, name: &Name, socket: &Arc<UdpSocket>, tasks: &mut JoinSet<()>) {
    let conversations = Arc::new(Mutex::new(Conversations::default()));
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error is about a datagram that was sent before: its receiver is gone.
        let Ok((length, client)) = socket.recv_from(&mut datagram).await else { continue };
        let known = conversations.lock().by_client.get(&client).cloned();
        let known = match known {
            Some(known) => {
                known.in_use.store(true, Relaxed);
                known
            }
            None => match open(shared, name, client, &conversations).await {
                Some(Opened { listening, conversation, lease, counted, member }) => {
                    conversations.lock().add(client, &conversation);
                    while tasks.try_join_next().is_some() {}
                    let displaced = member.displaced.clone();
                    let (conversations, own) = (Arc::clone(&conversations), Arc::clone(&conversation));
                    let held =
                        Held { listening, client, conversations, own, lease, _counted: counted, _member: member };
                    let socket = Arc::clone(socket);
                    tasks.spawn(async move {
                        let listening = Arc::clone(&held.listening);
                        if displaced.run_until_cancelled(held.converse(&socket)).await.is_none() {
                            listening.metrics.refused("displaced");
                        }
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
async fn open(
    shared: &Arc<Shared>,
    name: &Name,
    client: SocketAddr,
    conversations: &Mutex<Conversations>,
) -> Option<Opened> {
    let listening = shared.serving.load().listeners.get(name).cloned()?;
    let Served::Udp(forward) = &listening.served else { return None };
    let Some((counted, member)) = room(shared, &listening, client, conversations) else {
        listening.metrics.refused("connections");
        return None;
    };
    if shared.opened.have(Transport::Udp, client, listening.spec.address) {
        listening.metrics.refused("loop");
        return None;
    }
    let chosen = backend(shared, forward).and_then(|upstream| Some((upstream.choose_for(client.ip(), &[])?, upstream)));
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
    let backend = match UdpSocket::bind(any).await {
        Ok(backend) => backend,
        Err(error) => {
            tracing::debug!(listener = %name, %error, "cannot open a socket for a conversation");
            listening.metrics.refused("descriptors");
            conversations.lock().make_room();
            return None;
        }
    };
    if let Err(error) = backend.connect(endpoint.address).await {
        tracing::debug!(endpoint = %endpoint.address, %error, "an endpoint cannot be reached");
        listening.metrics.refused("unreachable");
        return None;
    }
    let own = shared.opened.add(Transport::Udp, backend.local_addr().ok()?, endpoint.address);
    // A new socket is not known to be ready until it has been asked.
    backend.writable().await.ok()?;
    tracing::trace!(%client, endpoint = %endpoint.address, "a conversation begins");
    listening.metrics.opened();
    let (moved, in_use, displaced) = (AtomicBool::default(), AtomicBool::default(), member.displaced.clone());
    let conversation = Arc::new(Conversation { backend, moved, in_use, displaced, _own: own });
    let cluster = upstream.settings.cluster.name.clone();
    let terms = Joined { listener: name.clone(), server_name: String::new(), cluster, judged: None };
    let lease = Lease::new(shared, 0, terms);
    Some(Opened { listening, conversation, lease, counted, member })
}

/// Room for one more. Where there is none, whoever has the most makes some, or who has been silent longest.
fn room(
    shared: &Shared,
    listening: &Listening,
    client: SocketAddr,
    conversations: &Mutex<Conversations>,
) -> Option<(Counted, Member)> {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    let share = share_of_each(shared.udp_listeners.load(Relaxed), descriptors);
    let most = u32::try_from(share).unwrap_or(u32::MAX).min(listening.spec.limits.connections);
    let make_room = || listening.crowd.make_room(client.ip()) || conversations.lock().make_room();
    let counted = Counted::within(&listening.connections, most)
        .or_else(|| make_room().then(|| Counted::new(&listening.connections)))?;
    Some((counted, listening.crowd.enter(client.ip())))
}

/// A conversation is known, and counts, until this is dropped.
struct Held {
    listening: Arc<Listening>,
    client: SocketAddr,
    conversations: Arc<Mutex<Conversations>>,
    own: Arc<Conversation>,
    lease: Lease<Joined>,
    _counted: Counted,
    _member: Member,
}

impl Held {
    /// Brings answers back until neither side has sent anything for as long as the listener allows, the backend is gone, or the route.
    async fn converse(mut self, socket: &UdpSocket) {
        let conversation = Arc::clone(&self.own);
        let backend = &conversation.backend;
        let mut answered_before = false;
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
                Ok(_) => {
                    if std::mem::replace(&mut answered_before, true) {
                        conversation.in_use.store(true, Relaxed);
                    }
                    drop(socket.send_to(&datagram, self.client).await);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            datagram.shrink_to(2 << 10);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.conversations.lock().remove(self.client, &self.own);
        self.listening.metrics.closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_have_their_share_of_a_quarter_of_the_descriptors() {
        assert_eq!([1, 2, 5].map(|listeners| share_of_each(listeners, 40_000)), [10_000, 5_000, 2_000]);
        assert_eq!((share_of_each(0, 4), share_of_each(9, 4)), (1, 1));
    }
}
