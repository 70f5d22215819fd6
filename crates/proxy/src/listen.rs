// SPDX-License-Identifier: Apache-2.0
//! Sockets that clients connect to, and the first bytes of a connection.

use crate::crowd::Member;
use crate::exchange::{Client, Terminated, serve};
use crate::proxy_protocol::{self, Header, Peer};
use crate::rewind::Rewind;
use crate::serving::{Listening, Served, Shared, TlsSite};
use crate::socket::{Bound, Sockets};
use crate::timed::Activity;
use crate::tls::hello;
use crate::{tcp, udp};
use l7::{BACKLOG, Listener, Name, Place};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long nothing is accepted when the process has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Where a client may be silent for longer than this, the kernel asks whether it is still there.
const SILENCE: Duration = Duration::from_secs(300);

/// What TLS begins with (RFC 8446, 5.1), and no request of HTTP.
const HANDSHAKE: u8 = 22;

/// All sockets that are served.
#[derive(Debug)]
pub(crate) struct Listeners {
    shared: Arc<Shared>,
    sockets: Sockets,
    served: HashMap<Place, Open>,
}

/// One of them.
#[derive(Debug)]
struct Open {
    listener: Name,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listeners {
    pub(crate) fn new(shared: Arc<Shared>, sockets: Sockets) -> Self {
        Self { shared, sockets, served: HashMap::new() }
    }

    /// Opens and closes sockets until they are those of what is in force. What cannot be opened comes back with the reason.
    pub(crate) async fn reconcile(&mut self) -> Vec<(Name, io::Error)> {
        let serving = self.shared.serving.load_full();
        let mut wanted: Vec<&Arc<Listening>> = serving.listeners.values().collect();
        // Who has an address keeps it; of those that want one, the oldest has it.
        let has = |listening: &Listening| {
            self.served.get(&Place::of(&listening.spec)).is_some_and(|open| open.listener == listening.spec.name)
        };
        let created = |spec: &Listener| spec.sources.first().map_or(0, |source| source.created);
        wanted.sort_by_key(|one| (!has(one), created(&one.spec), &one.spec.name));
        let mut places: HashMap<Place, &Arc<Listening>> = HashMap::new();
        let mut failed = Vec::new();
        for listening in wanted {
            match places.entry(Place::of(&listening.spec)) {
                std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(listening)),
                std::collections::hash_map::Entry::Occupied(taken) => {
                    let text = format!("{} has this address", taken.get().spec.name);
                    failed.push((listening.spec.name.clone(), io::Error::new(io::ErrorKind::AddrInUse, text)));
                }
            }
        }
        let same = |place: &Place, served: &Open| places.get(place).is_some_and(|l| l.spec.name == served.listener);
        let gone: Vec<Place> = self.served.iter().filter(|(p, s)| !same(p, s)).map(|(place, _)| *place).collect();
        for place in gone {
            if let Some(served) = self.served.remove(&place) {
                served.stop.cancel();
                // Only then is the address free, for another listener or another process.
                let _ = served.task.await;
            }
            if !places.contains_key(&place) {
                self.sockets.close(&place);
            }
        }
        let mut refused = self.sockets.prepare(places.keys().copied()).await;
        for (place, listening) in places {
            if self.served.contains_key(&place) {
                continue;
            }
            let opened = refused.remove(&place).map_or_else(|| self.open(place, listening), Err);
            failed.extend(opened.err().map(|error| (listening.spec.name.clone(), error)));
        }
        // What another process has given and nobody listens on is closed, so that clients are refused rather than left alone.
        self.sockets.close_unserved(|place| self.served.contains_key(place));
        failed
    }

    /// Waits until nothing is accepted any more, once the process is to end.
    pub(crate) async fn ended(self) {
        for served in self.served.into_values() {
            let _ = served.task.await;
        }
    }

    fn open(&mut self, place: Place, listening: &Arc<Listening>) -> io::Result<()> {
        let bound = self.sockets.get(place)?;
        let (name, stop) = (listening.spec.name.clone(), self.shared.drain.child_token());
        let shared = Arc::clone(&self.shared);
        let task = {
            let (name, stop) = (name.clone(), stop.clone());
            match bound {
                Bound::Tcp(socket) => {
                    let socket = TcpListener::from_std(socket)?;
                    tokio::spawn(async move {
                        stop.run_until_cancelled(accept(&shared, &name, &socket)).await;
                        if shared.drain.is_cancelled()
                            && let Err(error) = take_waiting(&shared, &name, socket)
                        {
                            tracing::warn!(listener = %name, %error, "connections reset before accept");
                        }
                    })
                }
                Bound::Udp(socket) => tokio::spawn(async move { udp::serve(&shared, &name, socket, &stop).await }),
            }
        };
        tracing::info!(listener = %name, %place, "listening");
        self.served.insert(place, Open { listener: name, stop, task });
        Ok(())
    }
}

/// Takes connections and gives each to a worker.
async fn accept(shared: &Arc<Shared>, name: &Name, socket: &TcpListener) {
    loop {
        // A connection belongs to the runtime of its worker, so it leaves this one.
        match socket.accept().await.and_then(|(stream, client)| Ok((stream.into_std()?, client))) {
            Ok((stream, client)) => take(shared, name, stream, client),
            Err(error) => {
                shared.metrics.accept_failed.inc();
                let code = error.raw_os_error().map(Errno::from_raw);
                if matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) {
                    tracing::warn!(listener = %name, %error, "out of file descriptors, pausing accept");
                    sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

/// Takes the connections that clients have opened already: when the last process that holds the socket closes it, the kernel resets them.
fn take_waiting(shared: &Arc<Shared>, name: &Name, socket: TcpListener) -> io::Result<()> {
    let socket = socket.into_std()?;
    // No more than can wait at a time, or clients could hold the process up.
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok((stream, client)) => {
                stream.set_nonblocking(true)?;
                take(shared, name, stream, client);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn take(shared: &Arc<Shared>, name: &Name, stream: StdStream, client: SocketAddr) {
    let Some(listening) = shared.serving.load().listeners.get(name).cloned() else { return };
    let Some((counted, mut member)) = listening.room_for(client.ip()) else {
        return listening.metrics.refused("connections");
    };
    let handed_over = Arc::clone(shared);
    shared.workers.spawn(move || async move {
        listening.metrics.opened();
        let idle = listening.spec.limits.idle;
        let displaced = member.displaced.clone();
        let ready = ready(stream, client, idle);
        if let Ok(connection) =
            ready.map(|(stream, peer)| connection(&handed_over, &listening, stream, peer, &mut member))
            && displaced.run_until_cancelled(connection).await.is_none()
        {
            listening.metrics.refused("displaced");
        }
        listening.metrics.closed();
        drop((member, counted));
    });
}

fn ready(stream: StdStream, client: SocketAddr, idle: Duration) -> io::Result<(TcpStream, Peer)> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    if idle > SILENCE {
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &u32::try_from(SILENCE.as_secs()).unwrap_or(u32::MAX))?;
    }
    let local = stream.local_addr()?;
    Ok((stream, Peer { client, local }))
}

/// Serves a connection from its first byte to its last.
async fn connection(
    shared: &Arc<Shared>,
    listening: &Arc<Listening>,
    stream: TcpStream,
    peer: Peer,
    member: &mut Member,
) {
    let mut stream = Rewind::new(bytes::Bytes::new(), stream);
    let limits = &listening.spec.limits;
    let ends = peer;
    let mut peer = peer;
    if listening.spec.proxy_protocol {
        match within(limits.header_time, read_header(&mut stream)).await {
            Ok(told) => {
                peer = told.unwrap_or(peer);
                // Behind a load balancer, all connections come from it.
                member.is_of(peer.client.ip());
            }
            Err(_) => return listening.metrics.refused("proxy-header"),
        }
    }
    // A PROXY header tells of the port that the client has connected to; otherwise it is known whose place the socket has.
    let port = listening.spec.port.filter(|_| !listening.spec.proxy_protocol).unwrap_or(peer.local.port());
    let client = |tls| {
        Arc::new(Client {
            shared: Arc::clone(shared),
            listener: listening.spec.name.clone(),
            metrics: Arc::clone(&listening.metrics),
            limits: limits.clone(),
            peer,
            port,
            tls,
            activity: Arc::new(Activity::default()),
            unread: shared.backlog.connection(),
            last: shared.drain.child_token(),
            upgraded: Mutex::default(),
        })
    };
    match &listening.served {
        Served::Http(_) => serve(client(None), stream, None).await,
        Served::Service(..) if has_routes(shared, listening, peer) => serve(client(None), stream, None).await,
        Served::Tcp(_) | Served::Service(..) => {
            tcp::forward(shared, listening, String::new(), tcp::Client { stream, peer, ends }).await;
        }
        Served::Udp(_) => {}
        Served::Tls(_) => {
            if listening.clear.is_some() {
                match within(limits.header_time, stream.peek(1, |bytes| bytes.first().map(|byte| *byte == HANDSHAKE)))
                    .await
                {
                    Ok(true) => {}
                    Ok(false) => return serve(client(None), stream, None).await,
                    Err(_) => return listening.metrics.refused("hello"),
                }
            }
            let Ok(name) = within(limits.header_time, read_name(&mut stream)).await else {
                return listening.metrics.refused("hello");
            };
            let Some(site) = listening.tls_site(&name) else { return listening.metrics.refused("server-name") };
            match &**site {
                TlsSite::Passthrough(_) => {
                    tcp::forward(shared, listening, name, tcp::Client { stream, peer, ends }).await;
                }
                TlsSite::Tcp(config, _) => {
                    let Some(stream) = terminate(config, listening, stream).await else { return };
                    let stream = Rewind::new(bytes::Bytes::new(), stream);
                    tcp::forward(shared, listening, name, tcp::Client { stream, peer, ends }).await;
                }
                TlsSite::Refused => listening.metrics.refused("unverifiable"),
                TlsSite::Http(config, ..) => {
                    let Some(stream) = terminate(config, listening, stream).await else { return };
                    // Whoever has agreed on nothing is looked at.
                    let agreed = stream.get_ref().1.alpn_protocol().map(|protocol| protocol == b"h2");
                    let stream = Rewind::new(bytes::Bytes::new(), stream);
                    let tls = Terminated { name: name.into(), site: Arc::clone(site) };
                    serve(client(Some(tls)), stream, agreed).await;
                }
            }
        }
    }
}

/// Whether a pod speaks HTTP, where others send bytes.
fn has_routes(shared: &Shared, listening: &Listening, peer: Peer) -> bool {
    let caller = shared.serving.load().callers.get(peer.client.ip());
    caller.is_some_and(|caller| listening.has_routes_of(&caller))
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn read_header(stream: &mut Rewind<TcpStream>) -> io::Result<Option<Peer>> {
    let header = stream.peek(proxy_protocol::LONGEST, proxy_protocol::decode).await?;
    let Header { length, peer } = header.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    stream.skip(length);
    Ok(peer)
}

async fn read_name(stream: &mut Rewind<TcpStream>) -> io::Result<String> {
    let name = stream.peek(hello::LONGEST, hello::server_name).await?;
    name.map_err(|_| io::ErrorKind::InvalidData.into())
}

async fn terminate(
    config: &Arc<ServerConfig>,
    listening: &Listening,
    stream: Rewind<TcpStream>,
) -> Option<TlsStream<Rewind<TcpStream>>> {
    let accepted =
        within(listening.spec.limits.header_time, TlsAcceptor::from(Arc::clone(config)).accept(stream)).await;
    accepted
        .inspect_err(|error| {
            listening.metrics.refused("handshake");
            tracing::debug!(listener = %listening.spec.name, %error, "a client's TLS was refused");
        })
        .ok()
}
