// SPDX-License-Identifier: Apache-2.0
//! Clients that connect and stay silent. Those that do not start HTTP/2 in time are disconnected, and only a limited
//! number may be pending: the longest-pending one makes room for the next, so that silent clients cannot lock others
//! out.

#[cfg(test)]
mod tests;

use super::places::Place;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tonic::transport::server::Connected;

/// Maximum number of pending clients.
pub(super) const CLIENTS: usize = 512;
/// Length of the preface with which a client begins (RFC 9113, section 3.4). After it, the server itself checks whether
/// the client is alive.
const PREFACE: usize = 24;

/// A listener's pending clients.
#[derive(Clone)]
pub(super) struct Lobby {
    patience: Duration,
    seats: Arc<Mutex<Seats>>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The slot of a pending client; freed when dropped.
pub(super) struct Seat {
    number: u64,
    until: Instant,
    /// Ends when somebody else needs the slot.
    needed: oneshot::Receiver<()>,
    seats: Arc<Mutex<Seats>>,
}

impl Lobby {
    /// The time limit per client.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, seats: Arc::default() }
    }

    /// A slot for the next client, evicting the longest-pending one if there is none free.
    pub(super) fn seat(&self) -> Seat {
        let mut seats = self.seats.lock();
        if seats.taken.len() >= CLIENTS {
            seats.taken.pop_first();
        }
        let (taken, needed) = oneshot::channel();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, taken);
        Seat { number, until: Instant::now() + self.patience, needed, seats: Arc::clone(&self.seats) }
    }
}

impl Seat {
    /// Waits until the client is evicted or out of time.
    pub(super) async fn over(&mut self) {
        tokio::select! {
            () = sleep_until(self.until) => {}
            _ = &mut self.needed => {}
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().taken.remove(&self.number);
    }
}

/// A connection that fails if its client loses its slot before it has started, or its place later.
pub(super) struct Greeted<IO> {
    io: IO,
    place: Place,
    /// Bytes of the preface still missing.
    missing: usize,
    /// Ends when the client must go; none once it has started.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<IO> Greeted<IO> {
    pub(super) fn new(io: IO, mut seat: Seat, place: Place) -> Self {
        Self { io, place, missing: PREFACE, over: Some(Box::pin(async move { seat.over().await })) }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Greeted<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        match (&read, &mut this.over) {
            (Poll::Pending, Some(over)) => {
                ready!(over.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            (Poll::Ready(Ok(())), Some(_)) => {
                this.missing = this.missing.saturating_sub(buf.filled().len() - before);
                if this.missing == 0 {
                    this.over = None;
                }
                read
            }
            (Poll::Pending, None) => {
                ready!(this.place.poll_over(cx));
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            _ => read,
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Greeted<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<IO: Connected> Connected for Greeted<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}
