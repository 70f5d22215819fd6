// SPDX-License-Identifier: Apache-2.0
//! Bodies on their way. Nothing of them is kept but what is under way, and each may stand still only so long.

use super::backlog::{Data, Part};
use super::copies::{Copies, Copy, Room};
use super::record::Record;
use super::{trailers, unread};
use crate::lease::{LOOK, Lease, Routed};
use crate::upstream::Checkout;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// What of an answer may wait between its backend and its client, beside what the client is being sent.
const WINDOW: usize = crate::upstream::WINDOW as usize;

/// Why a body ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than the listener allows")]
    TooLarge,
    #[error("nothing of the body has come in time")]
    TimedOut,
    #[error("the request and its answer have taken longer than the route allows")]
    Late,
    #[error("the body was cut off")]
    Broken,
    #[error("a mirror takes its copy too slowly")]
    Slow,
    #[error("the body's route was withdrawn")]
    Withdrawn,
}

/// What became of the body of a request, for who has to answer it.
pub(crate) type BodyFault = Arc<Mutex<Option<BodyError>>>;

/// How long nothing may happen in a request and its answer (who only listens need not speak), and when both are to be over.
#[derive(Clone, Debug)]
pub(crate) struct Quiet {
    idle: Duration,
    /// Frames that either body has had, if both have any.
    frames: Option<Arc<AtomicUsize>>,
    end: Option<Instant>,
}

impl Quiet {
    /// In a request with this body, and its answer.
    pub(crate) fn of(request: &Incoming, idle: Duration) -> Self {
        Self { idle, frames: (!request.is_end_stream()).then(Arc::default), end: None }
    }

    /// The same, over by then at the latest.
    pub(crate) fn ending(mut self, end: Option<Instant>) -> Self {
        self.end = self.end.into_iter().chain(end).min();
        self
    }

    pub(crate) fn end(&self) -> Option<Instant> {
        self.end
    }

    fn is_late(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    /// Waits for the answer as long as something happens. What is lacking of a body is told of first: it is the client's fault.
    pub(crate) async fn wait<F: Future>(&self, answer: F) -> Option<F::Output> {
        let grace = self.frames.as_ref().map_or(Duration::ZERO, |_| self.idle / 8);
        let mut answer = pin!(answer);
        loop {
            let before = self.frames();
            match timeout(self.idle + grace, answer.as_mut()).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.frames() == before => return None,
                Err(_) => {}
            }
        }
    }

    /// Counts a frame.
    fn moved(&self) -> usize {
        self.frames.as_ref().map_or(0, |frames| frames.fetch_add(1, Relaxed) + 1)
    }

    fn frames(&self) -> usize {
        self.frames.as_ref().map_or(0, |frames| frames.load(Relaxed))
    }
}

/// A body that may stand still only so long, and go on only while its lease holds, if it has one.
#[derive(Debug)]
struct Moving {
    body: Incoming,
    quiet: Quiet,
    lease: Option<Lease<Routed>>,
    still: Option<Still>,
}

/// A body that has stood still before.
#[derive(Debug)]
struct Still {
    since: Instant,
    /// Frames that there were then.
    frames: usize,
    look: Pin<Box<Sleep>>,
}

impl Moving {
    fn new(body: Incoming, quiet: Quiet) -> Self {
        Self { body, quiet, lease: None, still: None }
    }

    fn may_go_on(&mut self) -> bool {
        self.lease.as_mut().is_none_or(Lease::holds)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.quiet.end.is_some() && self.quiet.is_late(Instant::now()) {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let frames = self.quiet.moved();
            if let Some(still) = &mut self.still {
                (still.since, still.frames) = (Instant::now(), frames);
            }
            let frame = match frame {
                Some(Ok(frame)) => trailers::without_head_fields(frame).map(Ok),
                Some(Err(_)) => Some(Err(BodyError::Broken)),
                None => None,
            };
            return Poll::Ready(frame.map(|frame| if self.may_go_on() { frame } else { Err(BodyError::Withdrawn) }));
        }
        let idle = self.quiet.idle;
        let often = if self.lease.is_some() { idle.min(LOOK) } else { idle };
        let (frames, end) = (self.quiet.frames(), self.quiet.end);
        let next = |now: Instant| end.map_or(now + often, |end| end.min(now + often));
        loop {
            let still = self.still.get_or_insert_with(|| {
                let now = Instant::now();
                Still { since: now, frames, look: Box::pin(sleep_until(next(now))) }
            });
            ready!(still.look.as_mut().poll(cx));
            let now = Instant::now();
            if std::mem::replace(&mut still.frames, frames) != frames {
                still.since = now;
            }
            still.look.as_mut().reset((still.since + idle).min(next(now)));
            if self.quiet.is_late(now) {
                return Poll::Ready(Some(Err(BodyError::Late)));
            }
            if now.duration_since(still.since) >= idle {
                return Poll::Ready(Some(Err(BodyError::TimedOut)));
            }
            if !self.may_go_on() {
                return Poll::Ready(Some(Err(BodyError::Withdrawn)));
            }
        }
    }
}

/// What is sent to a backend.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// All of it; empty: there is none.
    Whole(Bytes),
    Streamed(Box<Streamed>),
    /// What a mirror gets of a body that is streamed.
    Copied(Copy),
}

/// A body from a client to a backend.
#[derive(Debug)]
pub(crate) struct Streamed {
    moving: Moving,
    left: u64,
    fault: BodyFault,
    copies: Copies,
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl RequestBody {
    /// `most` bytes from a client; `fault` tells what became of them.
    pub(crate) fn streamed(body: Incoming, most: Option<u64>, quiet: Quiet, fault: BodyFault) -> Self {
        let moving = Moving::new(body, quiet);
        Self::Streamed(Box::new(Streamed { moving, left: most.unwrap_or(u64::MAX), fault, copies: Copies::default() }))
    }

    /// The same again, for a mirror or another attempt, if that can be had.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Streamed(_) | Self::Copied(_) => None,
        }
    }

    /// The same for a mirror, which gets what the backend gets; what waits for it is in that room.
    pub(crate) fn mirrored(&mut self, room: &Room) -> Self {
        match self {
            Self::Streamed(streamed) => Self::Copied(streamed.copies.another(room)),
            Self::Whole(bytes) => Self::Whole(bytes.clone()),
            Self::Copied(_) => Self::Whole(Bytes::new()),
        }
    }
}

impl Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(self.moving.poll_frame(cx)) {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                let left = self.left.checked_sub(size);
                left.map(|left| self.left = left).map(|()| frame).ok_or(BodyError::TooLarge)
            }
            Some(Err(error)) => Err(error),
            None => {
                self.copies.end();
                return Poll::Ready(None);
            }
        };
        if let Err(error) = &frame {
            *self.fault.lock() = Some(*error);
        }
        self.copies.give(&frame);
        if frame.is_ok() && self.moving.body.is_end_stream() {
            self.copies.end();
        }
        Poll::Ready(Some(frame))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
            Self::Copied(copy) => copy.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(streamed) => streamed.moving.body.is_end_stream(),
            Self::Copied(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(streamed) => streamed.moving.body.size_hint(),
            Self::Copied(_) => SizeHint::default(),
        }
    }
}

/// What is sent to a client. When it ends, its request is recorded.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    record: Option<Box<Record>>,
    /// What may wait beyond the frames that were taken: whether the client wants more is not known.
    behind: Option<Part>,
}

#[derive(Debug)]
enum Source {
    Whole(Bytes),
    Backend { moving: Moving, connection: Option<Box<Checkout>> },
}

impl ResponseBody {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Whole(bytes.into()), record: None, behind: None }
    }

    /// An answer's body. Its connection is given back when it has been read.
    pub(crate) fn from_backend(body: Incoming, quiet: Quiet, connection: Checkout, lease: Lease<Routed>) -> Self {
        let connection = Some(Box::new(connection));
        let moving = Moving { lease: Some(lease), ..Moving::new(body, quiet) };
        let mut body = Self { source: Source::Backend { moving, connection }, record: None, behind: None };
        if body.is_end_stream() {
            body.source.end();
        }
        body
    }

    /// When it is to be over, if it comes from a backend whose route says so.
    pub(crate) fn end(&self) -> Option<Instant> {
        match &self.source {
            Source::Whole(_) => None,
            Source::Backend { moving, .. } => moving.quiet.end,
        }
    }

    /// Has the request recorded when the body ends.
    pub(crate) fn recorded(mut self, record: Box<Record>) -> Self {
        self.record = Some(record);
        self.count_behind();
        self
    }

    /// Counts what may come from the backend until the client wants it.
    fn count_behind(&mut self) {
        if let (Source::Backend { moving, .. }, Some(record), None) = (&self.source, &self.record, &self.behind) {
            let left = moving.body.size_hint().upper().and_then(|left| usize::try_from(left).ok());
            self.behind = Some(record.unread(left.map_or(WINDOW, |left| left.min(WINDOW))));
        }
    }
}

impl Source {
    /// It has been read to its end.
    fn end(&mut self) {
        if let Self::Backend { connection, .. } = self
            && let Some(connection) = connection.take()
        {
            connection.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Data;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Data>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Whole(bytes) if bytes.is_empty() => None,
            Source::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Backend { moving, .. } => match moving.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    this.behind = None;
                    unread::starved();
                    return Poll::Pending;
                }
            },
        };
        match (&frame, &mut this.record) {
            (Some(Ok(frame)), Some(record)) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
            (Some(Err(error)), Some(record)) => record.cut_off(*error),
            _ => {}
        }
        unread::offered(this.end());
        // With a known length, nobody asks for more than the last frame.
        if frame.is_none() || this.is_end_stream() {
            this.source.end();
            if let Some(record) = &mut this.record {
                record.complete();
            }
        }
        if frame.as_ref().is_none_or(Result::is_err) || this.is_end_stream() {
            this.behind = None;
        } else {
            this.count_behind();
        }
        let record = this.record.as_ref();
        let counted = |data: Bytes| {
            let part = record.map(|record| record.unread(data.len()));
            Data::new(data, part)
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Backend { moving, .. } => moving.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Backend { moving, .. } => moving.body.size_hint(),
        }
    }
}
