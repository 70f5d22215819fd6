// SPDX-License-Identifier: Apache-2.0
//! Streams of HTTP/2 that end when their client takes nothing of its answer. Whether it does is known to nobody but the task of the stream,
//! which asks the body for more as soon as there is room for it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a stream waits for.
#[derive(Clone, Copy)]
enum WaitsFor {
    /// Until then at the latest.
    Client(Option<Instant>),
    Backend,
}

thread_local! {
    /// Noted while a stream is polled.
    static NOTED: Cell<Option<WaitsFor>> = const { Cell::new(None) };
}

/// The client has been given something, and is to take it, before the answer is to be over.
pub(super) fn offered(end: Option<Instant>) {
    NOTED.set(Some(WaitsFor::Client(end)));
}

/// The client has room for more than there is.
pub(super) fn starved() {
    NOTED.set(Some(WaitsFor::Backend));
}

/// Runs the streams of a connection.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// How long a client may take nothing.
    pub(super) idle: Duration,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(watched(stream, self.idle));
    }
}

/// A stream that is dropped, and so reset, is over.
async fn watched<F: Future>(stream: F, idle: Duration) {
    let mut stream = pin!(stream);
    let mut deadline = pin!(None::<Sleep>);
    poll_fn(|cx| {
        NOTED.set(None);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match NOTED.take() {
            Some(WaitsFor::Client(end)) => {
                let patience = Instant::now() + idle;
                deadline.set(Some(sleep_until(end.map_or(patience, |end| end.min(patience)))));
            }
            Some(WaitsFor::Backend) => deadline.set(None),
            None => {}
        }
        deadline.as_mut().as_pin_mut().map_or(Poll::Pending, |deadline| deadline.poll(cx))
    })
    .await;
}
