// SPDX-License-Identifier: Apache-2.0
//! One node's stream within a merge.

use super::Call;
use super::call::{Time, now};
use crate::pool::Backoff;
use futures::{Stream, StreamExt, TryStreamExt};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Channel;

/// A node's responses. An error is the last one.
pub(super) type Answers<C> = Pin<Box<dyn Stream<Item = Result<<C as Call>::Answer, Status>> + Send>>;

/// The outcome of one read.
pub(super) struct Heard<C: Call> {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) stream: Answers<C>,
    /// None at the end.
    pub(super) result: Option<Result<C::Answer, Status>>,
}

/// Queries a node, with a timeout for it to begin.
pub(super) fn open<C: Call>(call: C, channel: Channel, patience: Duration) -> Answers<C> {
    let opened = async move {
        let opened = timeout(patience, call.open(channel)).await;
        opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    };
    Box::pin(futures::stream::once(opened).try_flatten())
}

/// Reads one response, with a timeout.
pub(super) async fn next<C: Call>(
    name: String,
    generation: u64,
    mut stream: Answers<C>,
    patience: Option<Duration>,
) -> Heard<C> {
    let result = match patience {
        Some(patience) => timeout(patience, stream.next()).await.unwrap_or_else(|_| {
            let text = format!("nothing was heard of it for {} seconds", patience.as_secs());
            Some(Err(Status::deadline_exceeded(text)))
        }),
        None => stream.next().await,
    };
    Heard { name, generation, stream, result }
}

/// A node's state within a merge.
pub(super) struct Source<C: Call> {
    state: State<C>,
    /// Marks its reads of this stream. Those of an earlier one have a lower mark.
    generation: u64,
    /// Reads with a lower mark were of a node of this name that has gone since.
    first: u64,
    held: usize,
    /// Their bytes.
    bytes: usize,
    /// The time of the last response, as the node has it.
    last: Option<Time>,
    /// Where that was put.
    place: Time,
    /// How many more may be older than the request.
    past: u64,
    waiting_since: Instant,
    backoff: Backoff,
    longest: Duration,
    /// What the client was last told, unless the node has responded since.
    told: Option<String>,
    /// Gives up its reads when it goes.
    gone: CancellationToken,
    _goes: DropGuard,
}

enum State<C: Call> {
    Reading,
    /// Enough is buffered.
    Parked(Answers<C>),
    Ended,
    /// When to query it again.
    Failed(Instant),
}

impl<C: Call> Source<C> {
    /// Maximum delay before a failed one is queried again, how many responses may be older than the request, and the mark of its first reads.
    pub(super) fn new(longest: Duration, past: u64, first: u64) -> Self {
        let gone = CancellationToken::new();
        Self {
            state: State::Ended,
            generation: first,
            first,
            held: 0,
            bytes: 0,
            last: None,
            place: Time::MIN,
            past,
            waiting_since: Instant::now(),
            backoff: Backoff::new(longest),
            longest,
            told: None,
            gone: gone.clone(),
            _goes: gone.drop_guard(),
        }
    }

    /// Cancelled when it goes.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Starts reading from it, with a mark for its reads.
    pub(super) fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.state = State::Reading;
        self.waiting_since = Instant::now();
    }

    pub(super) fn is(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// Whether a read with this mark was its own.
    pub(super) fn has_read(&self, generation: u64) -> bool {
        generation >= self.first
    }

    /// How many responses are buffered, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.held, self.bytes)
    }

    pub(super) fn last(&self) -> Option<Time> {
        self.last
    }

    /// Since when nothing of it has been buffered.
    pub(super) fn waiting_since(&self) -> Instant {
        self.waiting_since
    }

    /// Buffers one more response, of this size, to a request of this time. Returns its effective time: never in the future, nor more often in the past
    /// than was asked for, whatever the node's clock says, and never before its predecessor's.
    pub(super) fn hold(&mut self, time: Option<Time>, size: usize, began: Time) -> Time {
        let now = now();
        let told = time.unwrap_or(now);
        let place = if told < began && self.past == 0 {
            now
        } else {
            self.past -= u64::from(told < began);
            told.min(now)
        };
        self.place = place.max(self.place);
        self.last = Some(told);
        self.held += 1;
        self.bytes += size;
        self.told = None;
        self.backoff = Backoff::new(self.longest);
        self.place
    }

    /// Removes a buffered response of this size; returns whether it was the last one of a node that has not ended.
    pub(super) fn release(&mut self, size: usize) -> bool {
        self.held -= 1;
        self.bytes -= size;
        self.waiting_since = Instant::now();
        self.held == 0 && matches!(self.state, State::Reading | State::Parked(_))
    }

    pub(super) fn park(&mut self, stream: Answers<C>) {
        self.state = State::Parked(stream);
    }

    pub(super) fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked(_))
    }

    /// The stream to read on, if it was parked.
    pub(super) fn unpark(&mut self) -> Option<(u64, Answers<C>)> {
        match std::mem::replace(&mut self.state, State::Reading) {
            State::Parked(stream) => Some((self.generation, stream)),
            other => {
                self.state = other;
                None
            }
        }
    }

    pub(super) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Marks it as no longer responding; returns whether to tell the client.
    pub(super) fn fail(&mut self, message: &str, again: bool) -> bool {
        self.state = if again { State::Failed(Instant::now() + self.backoff.next()) } else { State::Ended };
        self.told.replace(message.to_owned()).as_deref() != Some(message)
    }

    /// When to query it again.
    pub(super) fn again(&self) -> Option<Instant> {
        match self.state {
            State::Failed(again) => Some(again),
            _ => None,
        }
    }

    /// Postpones querying it again.
    pub(super) fn put_off(&mut self) {
        self.state = State::Failed(Instant::now() + self.backoff.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::observer::GetFlowsRequest;

    #[test]
    fn what_was_sent_makes_room_for_more() {
        let mut source = Source::<GetFlowsRequest>::new(Duration::from_secs(1), 0, 1);
        for size in [7, 9] {
            source.hold(None, size, 0);
        }
        assert_eq!(source.held(), (2, 16));
        source.release(7);
        assert_eq!(source.held(), (1, 9));
    }
}
