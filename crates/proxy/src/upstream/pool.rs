// SPDX-License-Identifier: Apache-2.0
//! Connections to one endpoint that can take a request.

use super::connect::{self, ConnectError};
use super::endpoint::Endpoint;
use super::load::{Freed, Slot};
use crate::exchange::RequestBody;
use crate::framing::{self, Ambiguous};
use crate::proxy_protocol::Peer;
use crate::timed::{Activity, Busy};
use crate::worker::Counted;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::task::yield_now;
use tokio::time::Instant;

/// Requests of one HTTP/2 connection at a time before another one is opened.
pub(super) const STREAMS: u16 = 100;

/// What a backend may say before its answer, in bytes: that it goes on (1xx) can be said for ever. Of its body no more than what comes with
/// the head is read before the answer is seen.
const BEFORE_AN_ANSWER: u32 = 1 << 20;

/// Which HTTP may be spoken for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speak {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
    /// What the endpoint chooses in TLS.
    Either,
}

/// Connections to an endpoint, of one worker.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) idle: Vec<Http1>,
    shared: Vec<Http2>,
    /// Held by who opens an HTTP/2 connection, so that those who come meanwhile use it too.
    opening: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) activity: Arc<Activity>,
    pub(super) _slot: Arc<Slot>,
}

#[derive(Clone, Debug)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) activity: Arc<Activity>,
    pub(super) requests: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Checkout {
    endpoint: Arc<Endpoint>,
    connection: Connection,
    /// Whether requests were sent on it before: the endpoint may be about to close it.
    pub(crate) reused: bool,
    /// One more request of the endpoint.
    counted: Option<Counted>,
    _busy: Busy,
    _stream: Option<Counted>,
    // Last, when the connection can be had again.
    _freed: Freed,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Sent {
    Answered(Response<Incoming>),
    /// Nothing of it was sent.
    Unsent(Request<RequestBody>),
    /// What came is no answer, or one that others could read otherwise.
    Garbled,
    Failed(hyper::Error),
}

impl Checkout {
    /// A connection to the endpoint: one that there is, or a new one.
    ///
    /// # Errors
    ///
    /// The endpoint cannot be reached, is not who it should be, or the cluster has as many connections as it may.
    pub(crate) async fn new(endpoint: &Arc<Endpoint>, speak: Speak, peer: Peer) -> Result<Self, ConnectError> {
        let counted = endpoint.begin();
        let mut checkout = Self::get(endpoint, speak, peer).await?;
        checkout.counted = Some(counted);
        Ok(checkout)
    }

    async fn get(endpoint: &Arc<Endpoint>, speak: Speak, peer: Peer) -> Result<Self, ConnectError> {
        if endpoint.settings.cluster.proxy_protocol.is_some() {
            // Such a connection is one client's.
            return Ok(Self::of(endpoint, connect::open(endpoint, speak, peer).await?, false));
        }
        if speak != Speak::Http1
            && let Some(shared) = take_shared(endpoint)
        {
            return Ok(Self::of(endpoint, Connection::Http2(shared), true));
        }
        if speak != Speak::Http2 {
            while let Some(idle) = take_idle(endpoint) {
                // It was given back when its answer had been read; it is ready as soon as its task has run, unless the body of its
                // request is still to come.
                if !idle.sender.is_ready() {
                    yield_now().await;
                }
                if idle.sender.is_ready() {
                    return Ok(Self::of(endpoint, Connection::Http1(idle), true));
                }
            }
        }
        if speak == Speak::Http1 {
            return Ok(Self::of(endpoint, connect::open(endpoint, speak, peer).await?, false));
        }
        Self::open_shared(endpoint, speak, peer).await
    }

    async fn open_shared(endpoint: &Arc<Endpoint>, speak: Speak, peer: Peer) -> Result<Self, ConnectError> {
        let asked = Instant::now();
        let opening = endpoint.pool().map(|pool| Arc::clone(&pool.lock().opening)).unwrap_or_default();
        let _turn = opening.lock().await;
        if let Some(shared) = take_shared(endpoint) {
            return Ok(Self::of(endpoint, Connection::Http2(shared), true));
        }
        if endpoint.failed_since(asked) {
            return Err(ConnectError::JustFailed);
        }
        let connection = connect::open(endpoint, speak, peer).await?;
        if let (Connection::Http2(shared), Some(pool)) = (&connection, endpoint.pool()) {
            pool.lock().shared.push(shared.clone());
        }
        Ok(Self::of(endpoint, connection, false))
    }

    fn of(endpoint: &Arc<Endpoint>, connection: Connection, reused: bool) -> Self {
        let (busy, stream) = match &connection {
            Connection::Http1(one) => (one.activity.begin(), None),
            Connection::Http2(one) => (one.activity.begin(), Some(Counted::new(&one.requests))),
        };
        let freed = Freed::new(&endpoint.settings);
        Self {
            endpoint: Arc::clone(endpoint),
            connection,
            reused,
            counted: None,
            _busy: busy,
            _stream: stream,
            _freed: freed,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.connection, Connection::Http2(_))
    }

    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        let result = match &mut self.connection {
            Connection::Http1(one) => {
                one.activity.expect(Some(BEFORE_AN_ANSWER));
                let result = one.sender.try_send_request(request).await;
                one.activity.expect(None);
                result
            }
            Connection::Http2(one) => one.sender.try_send_request(request).await,
        };
        match result {
            Ok(mut response) => match framing::check_answer(&mut response) {
                Ok(()) => Sent::Answered(response),
                Err(Ambiguous) => Sent::Garbled,
            },
            Err(error) => unsent(error),
        }
    }

    /// Gives the connection back: the answer has been read to its end.
    pub(crate) fn give_back(self) {
        let settings = &self.endpoint.settings;
        if let Connection::Http1(one) = self.connection
            && !one.sender.is_closed()
            && settings.cluster.proxy_protocol.is_none()
            && let Some(pool) = self.endpoint.pool()
        {
            pool.lock().idle.push(one);
        }
    }
}

fn unsent(mut error: TrySendError<Request<RequestBody>>) -> Sent {
    match error.take_message() {
        Some(request) => Sent::Unsent(request),
        None if is_garbled(error.error()) => Sent::Garbled,
        None => Sent::Failed(error.into_error()),
    }
}

fn is_garbled(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    error.is_parse() || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

fn take_idle(endpoint: &Endpoint) -> Option<Http1> {
    let mut pool = endpoint.pool()?.lock();
    // The one that was used last is the least likely to be closed; those that nobody uses end by themselves.
    while let Some(one) = pool.idle.pop() {
        if !one.sender.is_closed() {
            return Some(one);
        }
    }
    None
}

fn take_shared(endpoint: &Endpoint) -> Option<Http2> {
    let mut pool = endpoint.pool()?.lock();
    pool.shared.retain(|one| !one.sender.is_closed());
    pool.shared.iter().find(|one| one.requests.load(Relaxed) < usize::from(STREAMS)).cloned()
}
