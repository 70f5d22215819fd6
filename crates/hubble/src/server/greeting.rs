// SPDX-License-Identifier: Apache-2.0
//! Clients that connect and say nothing. Whoever has not begun HTTP/2 in time is cut off, and only so many may be on their way there: the
//! one that has been for the longest gives way to the next, so that silent ones cannot keep the others out.

#[cfg(test)]
mod tests;

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

/// How many clients may be on their way.
pub(super) const CLIENTS: usize = 512;
/// Length of the preface with which a client begins (RFC 9113, section 3.4). After it, the server itself finds out whether the client lives.
const PREFACE: usize = 24;

/// The clients of one listener that have not begun yet.
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

/// The place of a client that has not begun yet; free again when dropped.
pub(super) struct Seat {
    number: u64,
    until: Instant,
    /// Ends when somebody else needs the place.
    needed: oneshot::Receiver<()>,
    seats: Arc<Mutex<Seats>>,
}

impl Lobby {
    /// Each client has so long.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, seats: Arc::default() }
    }

    /// A place for the next client, at the expense of the one that waits for the longest if there is no other.
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
    /// Waits until the client has to go.
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

/// A connection that fails if its client loses its seat before it has begun.
pub(super) struct Greeted<IO> {
    io: IO,
    /// Bytes of the preface that have not come yet.
    missing: usize,
    /// Ends when the client has to go; none once it has begun.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<IO> Greeted<IO> {
    pub(super) fn new(io: IO, mut seat: Seat) -> Self {
        Self { io, missing: PREFACE, over: Some(Box::pin(async move { seat.over().await })) }
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
