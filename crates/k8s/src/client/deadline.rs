// SPDX-License-Identifier: Apache-2.0
//! The end of a response's body: it must come in time, however slowly its parts arrive.

use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tower::BoxError;

/// The response did not end in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the response has not ended within {0:?}")]
pub(super) struct NoEnd(Duration);

/// A body that fails at a deadline, if it has one.
pub(super) struct Deadline<B> {
    body: Pin<Box<B>>,
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<B> Deadline<B> {
    pub(super) fn new(body: B, within: Option<Duration>) -> Self {
        Self { body: Box::pin(body), deadline: within.map(|within| (within, Box::pin(sleep(within)))) }
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for Deadline<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Some((within, sleep)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(NoEnd(*within).into())));
        }
        self.body.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
