// SPDX-License-Identifier: Apache-2.0
//! New connections to endpoints.

use super::endpoint::Endpoint;
use super::load::Slot;
use super::pool::{Connection, Http1, Http2, STREAMS, Speak};
use crate::loops::{Opened, Own};
use crate::proxy_protocol::Peer;
use crate::timed::{Activity, Patience, Timed};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// What a backend's headers may take, in bytes.
const HEADERS: usize = 256 << 10;
/// How many headers a backend may send.
const HEADER_COUNT: usize = 256;
/// How many times as long as a new connection may take an endpoint's machine may be silent to what it has been sent. A node that is dead and
/// a policy that refuses a connection in its middle answer nothing, and a request that waits for them would wait for ever.
const SILENCE: u32 = 5;
/// What of an answer a stream may have on its way, in bytes. All streams of a connection have room at the same time, so that answers that
/// nobody reads hold up no others.
pub(crate) const WINDOW: u32 = 256 << 10;

/// Why an endpoint cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot be reached")]
    Io(#[from] io::Error),
    #[error("cannot be reached in time")]
    TimedOut,
    #[error("could not be reached by another request meanwhile")]
    JustFailed,
    #[error("does not speak HTTP/2")]
    NotHttp2,
    #[error("does not speak HTTP")]
    Http(#[from] hyper::Error),
    #[error("connection limit reached")]
    Limit,
}

/// A stream to an endpoint. It counts as a connection of its cluster as long as it is there.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: Stream,
    slot: Slot,
    _own: Option<Own>,
}

/// Bytes to an endpoint, in clear or in TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects for bytes, as one of those that are open.
///
/// # Errors
///
/// The endpoint cannot be reached, is not who it should be, or the cluster has as many connections as it may.
pub(crate) async fn dial(endpoint: &Endpoint, peer: Peer, opened: &Opened) -> Result<Link, ConnectError> {
    let connected = async { opened.connect(endpoint.address).await.map(|(stream, own)| (stream, Some(own))) };
    connect(endpoint, peer, None, connected).await
}

async fn connect(
    endpoint: &Endpoint,
    peer: Peer,
    speak: Option<Speak>,
    connected: impl Future<Output = io::Result<(TcpStream, Option<Own>)>>,
) -> Result<Link, ConnectError> {
    let settings = &endpoint.settings;
    let limits = &settings.cluster.limits;
    let slot = Slot::take(settings).ok_or(ConnectError::Limit)?;
    let open = async {
        let (mut stream, own) = connected.await?;
        stream.set_nodelay(true)?;
        end_after_silence(&stream, limits.connect.saturating_mul(SILENCE))?;
        if let Some(version) = settings.cluster.proxy_protocol {
            stream.write_all(&peer.encode(version)).await?;
        }
        let stream = match &settings.tls {
            None => Stream::Clear(stream),
            Some(tls) => Stream::Tls(Box::new(tls.connect(stream, speak).await?)),
        };
        Ok::<_, ConnectError>((stream, own))
    };
    let (stream, own) = timeout(limits.connect, open).await.map_err(|_| ConnectError::TimedOut)??;
    Ok(Link { stream, slot, _own: own })
}

fn end_after_silence(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    let seconds = milliseconds.div_ceil(1000).max(1);
    setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds)?;
    // While nothing is on the way, the kernel asks.
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &seconds)?;
    Ok(setsockopt(stream, sockopt::KeepAlive, &true)?)
}

/// A new connection that takes requests. It ends when nobody has used it for as long as the cluster allows.
pub(super) async fn open(endpoint: &Arc<Endpoint>, speak: Speak, peer: Peer) -> Result<Connection, ConnectError> {
    let connected = async { TcpStream::connect(endpoint.address).await.map(|stream| (stream, None)) };
    let Link { stream, slot, .. } = connect(endpoint, peer, Some(speak), connected).await?;
    let idle = endpoint.settings.cluster.limits.idle;
    match stream {
        Stream::Clear(stream) => shake_hands(stream, speak == Speak::Http2, slot, idle).await,
        Stream::Tls(stream) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            if speak == Speak::Http2 && !http2 {
                return Err(ConnectError::NotHttp2);
            }
            shake_hands(*stream, http2, slot, idle).await
        }
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    slot: Slot,
    idle: Duration,
) -> Result<Connection, ConnectError> {
    let activity = Arc::new(Activity::default());
    let patience = Patience { first: idle, head: None, idle };
    let io = TokioIo::new(Timed::new(stream, Arc::clone(&activity), patience));
    if !http2 {
        let mut builder = http1::Builder::new();
        let (sender, connection) = builder.max_headers(HEADER_COUNT).max_buf_size(HEADERS).handshake(io).await?;
        // Once it is upgraded, it is its user's.
        let slot = Arc::new(slot);
        let held = Arc::clone(&slot);
        tokio::spawn(async move {
            // Whoever has a request on it is told of errors.
            let _ = connection.with_upgrades().await;
            drop(held);
        });
        return Ok(Connection::Http1(Http1 { sender, activity, _slot: slot }));
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(u32::from(STREAMS) * WINDOW);
    builder.max_header_list_size(u32::try_from(HEADERS).unwrap_or(u32::MAX));
    // A backend that is gone without a word is noticed, and its requests answered.
    builder.keep_alive_interval(Duration::from_secs(10)).keep_alive_timeout(Duration::from_secs(5));
    let (sender, connection) = builder.handshake(io).await?;
    tokio::spawn(async move {
        let _ = connection.await;
        drop(slot);
    });
    Ok(Connection::Http2(Http2 { sender, activity, requests: Arc::default() }))
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
