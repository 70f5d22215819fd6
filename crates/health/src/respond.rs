// SPDX-License-Identifier: Apache-2.0
//! The response to other nodes' probes: `GET /hello` on this node's addresses, and on all addresses of its health
//! endpoint.
//!
//! The port is open to the network, so a responder serves one path, keeps no connection open, and limits their number
//! and duration. On the node it listens only on the addresses that others probe.

mod socket;

use crate::{hello, retry};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::LocalNode;
use statedb::Reader;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use surface::Connections;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

#[cfg(test)]
mod tests;

/// Concurrent connections per listener.
const CONNECTIONS: usize = 32;
/// How long a connection may take.
const CONNECTION: Duration = Duration::from_secs(5);

/// Responds on this node's addresses, following changes.
pub(crate) async fn on_node(port: u16, node: Reader<LocalNode>) {
    let mut changes = node.subscribe();
    let mut responder = Responder::new(port, "node");
    loop {
        tokio::select! {
            _ = changes.next() => {
                let row = changes.snapshot().get(&());
                let v4 = row.as_ref().and_then(|row| row.ipv4).map(IpAddr::V4);
                let v6 = row.as_ref().and_then(|row| row.ipv6).map(IpAddr::V6);
                responder.listen(v4.into_iter().chain(v6), None);
            }
            () = responder.failure() => {}
        }
    }
}

/// Responds inside the health endpoint's namespace, while there is one.
pub(crate) async fn on_endpoint(port: u16, mut endpoint: watch::Receiver<Option<Arc<OwnedFd>>>) {
    let mut responder = Responder::new(port, "endpoint");
    let mut inside: Option<Arc<OwnedFd>> = None;
    loop {
        let netns = endpoint.borrow_and_update().clone();
        if netns.as_ref().map(Arc::as_ptr) != inside.as_ref().map(Arc::as_ptr) {
            responder.listen([], None);
            inside.clone_from(&netns);
            if netns.is_some() {
                responder.listen([IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)], netns);
            }
        }
        tokio::select! {
            changed = endpoint.changed() => {
                if changed.is_err() {
                    // There will be no other: keep the current one.
                    responder.failure().await;
                }
            }
            () = responder.failure() => {}
        }
    }
}

/// A set of listeners.
struct Responder {
    port: u16,
    place: &'static str,
    tasks: JoinSet<Infallible>,
    listening: BTreeMap<IpAddr, AbortHandle>,
}

impl Responder {
    fn new(port: u16, place: &'static str) -> Self {
        Self { port, place, tasks: JoinSet::new(), listening: BTreeMap::new() }
    }

    /// Listens on exactly these addresses; existing listeners are left alone.
    fn listen(&mut self, addresses: impl IntoIterator<Item = IpAddr>, netns: Option<Arc<OwnedFd>>) {
        let mut before = std::mem::take(&mut self.listening);
        for ip in addresses {
            let handle = before.remove(&ip).unwrap_or_else(|| {
                self.tasks.spawn(respond(SocketAddr::new(ip, self.port), self.place, netns.clone()))
            });
            self.listening.insert(ip, handle);
        }
        before.into_values().for_each(|handle| handle.abort());
    }

    /// Never returns; a listener that panics takes the process down, as any task does.
    async fn failure(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Stopped by us.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Listens on one address for ever.
async fn respond(address: SocketAddr, place: &'static str, netns: Option<Arc<OwnedFd>>) -> Infallible {
    let what = format!("health responder of the {place} on {address}");
    let listener = retry::open(&what, || socket::listen(address, netns.as_deref())).await;
    serve(listener).await
}

async fn serve(listener: TcpListener) -> Infallible {
    Connections::new(CONNECTIONS, CONNECTION).accept(listener, converse).await
}

async fn converse(stream: TcpStream) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| ready(Ok::<_, Infallible>(answer(&request))));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(CONNECTION).keep_alive(false).max_buf_size(8 << 10);
    server.serve_connection(TokioIo::new(stream), service).await
}

fn answer<B>(request: &Request<B>) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, hello::PATH) => StatusCode::OK,
        (_, hello::PATH) => StatusCode::METHOD_NOT_ALLOWED,
        _ => StatusCode::NOT_FOUND,
    };
    response
}
