// SPDX-License-Identifier: Apache-2.0
//! A client's connection in which HTTP is spoken.

use super::backlog::Unread;
use super::frames::Seen;
use super::handle;
use super::unread::{self, Streams};
use super::upgrade::Joined;
use crate::metrics::ListenerMetrics;
use crate::proxy_protocol::Peer;
use crate::rewind::Rewind;
use crate::serving::{Shared, TlsSite};
use crate::timed::{Activity, Patience, Timed};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use l7::{Limits, Name};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What an HTTP/2 client begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What of an answer waits for a client that reads slowly, in bytes per stream.
const SEND_BUFFER: usize = 64 << 10;
const WINDOW: u32 = 256 << 10;
/// An HTTP/2 client that is gone without a word is noticed after twice this.
const PING: Duration = Duration::from_secs(30);

/// Who has connected, and to what.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listener: Name,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) limits: Limits,
    pub(crate) peer: Peer,
    /// The port that it has connected to, as it knows it.
    pub(crate) port: u16,
    /// What TLS has ended as, if it ended here.
    pub(crate) tls: Option<Terminated>,
    pub(crate) activity: Arc<Activity>,
    /// What waits for it.
    pub(crate) unread: Arc<Unread>,
    /// No further request is taken.
    pub(crate) last: CancellationToken,
    /// What the connection has become instead.
    pub(crate) upgraded: Mutex<Option<Joined>>,
}

/// TLS that has ended here.
#[derive(Clone, Debug)]
pub(crate) struct Terminated {
    /// The name in the hello; empty if there was none in it.
    pub(crate) name: Arc<str>,
    /// What was served under that name.
    pub(crate) site: Arc<TlsSite>,
}

impl Client {
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    fn patience(&self, http2: bool) -> Patience {
        let head = self.limits.header_time;
        Patience { first: head, head: (!http2).then_some(head), idle: self.limits.idle }
    }
}

/// Serves a connection to its end. Whether HTTP/2 is spoken is seen by its first bytes unless it was agreed upon.
pub(crate) async fn serve<T>(client: Arc<Client>, stream: Rewind<T>, agreed: Option<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let displaced = client.unread.displaced.clone();
    let served = serve_http(Arc::clone(&client), stream, agreed);
    if displaced.run_until_cancelled(served).await.is_none() {
        client.metrics.refused("unread");
    }
}

async fn serve_http<T>(client: Arc<Client>, stream: Rewind<T>, agreed: Option<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stream = stream;
    let http2 = match agreed {
        Some(http2) => http2,
        None => match timeout(client.limits.header_time, stream.peek(PREFACE.len(), is_http2)).await {
            Ok(Ok(http2)) => http2,
            Ok(Err(_)) => return,
            Err(_) => return client.metrics.refused("slow"),
        },
    };
    let io = Timed::new(stream, Arc::clone(&client.activity), client.patience(http2));
    if http2 {
        let io = Seen::new(io, Arc::clone(&client.metrics));
        return Box::pin(serve_http2(client, TokioIo::new(io))).await;
    }
    // Who has not said anything yet has no room for a request.
    Box::pin(serve_http1(Arc::clone(&client), TokioIo::new(io))).await;
    let upgraded = client.upgraded.lock().take();
    if let Some(Joined(joined)) = upgraded {
        joined.await;
    }
}

fn is_http2(bytes: &[u8]) -> Option<bool> {
    let shared = bytes.len().min(PREFACE.len());
    match bytes.get(..shared) == PREFACE.get(..shared) {
        false => Some(false),
        true => (shared == PREFACE.len()).then_some(true),
    }
}

async fn serve_http1<T>(client: Arc<Client>, io: TokioIo<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &client.limits;
    let headers = limits.header_bytes as usize;
    let mut builder = http1::Builder::new();
    // Slow heads and idle connections are the stream's affair, which tells the two apart.
    builder.header_read_timeout(None).max_header_size(headers).max_buf_size(headers.max(8 << 10));
    if limits.headers as usize != http1_default_headers() {
        builder.max_headers(limits.headers as usize);
    }
    let service = {
        let client = Arc::clone(&client);
        service_fn(move |request| answer(Arc::clone(&client), request))
    };
    // A connection that is to end does so with its next answer: one that is closed before takes a request with it that is on its way.
    note(&client, builder.serve_connection(io, service).with_upgrades().await);
}

/// hyper reads as many without another allocation.
const fn http1_default_headers() -> usize {
    100
}

async fn serve_http2<T>(client: Arc<Client>, io: TokioIo<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(Streams { idle: client.limits.idle });
    builder.max_concurrent_streams(client.limits.streams).max_header_list_size(client.limits.header_bytes);
    builder
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW);
    builder.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
    let service = {
        let client = Arc::clone(&client);
        service_fn(move |request| answer(Arc::clone(&client), request))
    };
    let mut connection = pin!(builder.serve_connection(io, service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = client.last.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    note(&client, result);
}

async fn answer(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<http::Response<super::ResponseBody>, Infallible> {
    let http2 = request.version() == Version::HTTP_2;
    let mut response = handle(&client, request).await;
    if client.limits.requests_per_connection.is_some_and(|most| client.activity.begun() as u64 >= most) {
        client.last.cancel();
    }
    let end = response.body().end();
    unread::offered(end);
    if !http2 {
        client.activity.end_by(end);
    }
    if client.last.is_cancelled() && !http2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Why a connection ended otherwise than by its client's wish.
fn note(client: &Client, result: hyper::Result<()>) {
    let Err(error) = result else { return };
    let timed_out = std::iter::successors(std::error::Error::source(&error), |cause| cause.source())
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::TimedOut);
    if timed_out {
        client.metrics.refused("slow");
    } else if error.is_parse_too_large() {
        client.metrics.refused("headers-too-large");
    } else if error.is_parse() {
        client.metrics.refused("malformed");
    }
    tracing::trace!(client = %client.peer.client, %error, "a connection ended");
}
