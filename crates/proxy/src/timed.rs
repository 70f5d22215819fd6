// SPDX-License-Identifier: Apache-2.0
//! Streams that end when their peer takes too long: with a request's head, with nothing at all, or with taking what it is sent.

use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How many requests are under way on a connection, and how many have begun.
#[derive(Debug)]
pub(crate) struct Activity {
    busy: AtomicUsize,
    begun: AtomicUsize,
    /// Bytes that may still be read.
    readable: AtomicI64,
    /// When what is being written is to be over.
    end: Mutex<Option<Instant>>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            busy: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            readable: AtomicI64::new(i64::MAX),
            end: Mutex::default(),
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Activity {
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    /// Requests that have begun since the connection did.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }

    /// From now on, no more may be read than these bytes. Nothing: whatever comes.
    pub(crate) fn expect(&self, most: Option<u32>) {
        self.readable.store(most.map_or(i64::MAX, Into::into), Relaxed);
    }

    /// When the answer of the request that is under way is to be over, if at all.
    pub(crate) fn end_by(&self, end: Option<Instant>) {
        *self.end.lock() = end;
    }

    /// Whether so much could be read.
    fn has_read(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.readable.fetch_sub(bytes, Relaxed) >= bytes
    }

    fn state(&self) -> (usize, usize) {
        (self.busy.load(Relaxed), self.begun())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
        self.0.end_by(None);
    }
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the beginning to the first request.
    pub(crate) first: Duration,
    /// From the first byte of a later request to the end of its head, where bytes between requests can be nothing else.
    pub(crate) head: Option<Duration>,
    /// Between requests, and for taking what is sent.
    pub(crate) idle: Duration,
}

/// A stream under a [`Patience`].
#[derive(Debug)]
pub(crate) struct Timed<T> {
    io: T,
    activity: Arc<Activity>,
    patience: Patience,
    reading: Pin<Box<Sleep>>,
    /// What was under way when the deadline for reading was set.
    set_at: (usize, usize),
    /// Bytes have come that belong to a request that has not begun.
    in_head: bool,
    head_deadline: bool,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<T> Timed<T> {
    pub(crate) fn new(io: T, activity: Arc<Activity>, patience: Patience) -> Self {
        let reading = Box::pin(sleep_until(Instant::now() + patience.first));
        let set_at = activity.state();
        Self { io, activity, patience, reading, set_at, in_head: false, head_deadline: true, writing: None }
    }

    /// Nothing has come: is it time to give up?
    fn poll_reading(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let now = self.activity.state();
        if now.0 > 0 {
            self.in_head = false;
        }
        let head = self.in_head.then_some(self.patience.head).flatten();
        let moved = now != self.set_at;
        if let Some(head) = head.filter(|_| moved || !self.head_deadline) {
            self.reading.as_mut().reset(Instant::now() + head);
            (self.set_at, self.head_deadline) = (now, true);
        }
        loop {
            ready!(self.reading.as_mut().poll(cx));
            if now.0 == 0 && now == self.set_at {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            // What is under way has times of its own.
            self.reading.as_mut().reset(Instant::now() + self.patience.idle);
            (self.set_at, self.head_deadline) = (now, false);
        }
    }

    fn written<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.writing = None;
            return result;
        }
        let idle = self.patience.idle;
        let activity = &self.activity;
        let deadline = self.writing.get_or_insert_with(|| {
            let patience = Instant::now() + idle;
            Box::pin(sleep_until(activity.end.lock().map_or(patience, |end| end.min(patience))))
        });
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.in_head = true;
                let expected = self.activity.has_read(buf.filled().len() - before);
                Poll::Ready(if expected { result } else { Err(io::ErrorKind::InvalidData.into()) })
            }
            Poll::Pending => self.poll_reading(cx).map(Err),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_shutdown(cx);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
