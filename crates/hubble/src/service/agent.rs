// SPDX-License-Identifier: Apache-2.0
//! What the agent itself did: a short history, and a live stream.

mod tables;

use crate::proto::flow::AgentEvent;
use crate::proto::observer::{GetAgentEventsRequest, GetAgentEventsResponse};
use crate::proto::{nanos, timestamp};
use crate::store::now;
use futures::future::ready;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::Status;

/// How many events are kept.
const HISTORY: usize = 256;

/// Where the agent reports what it did.
#[derive(Clone, Debug)]
pub struct AgentEvents {
    history: Arc<Mutex<VecDeque<(i64, AgentEvent)>>>,
    live: broadcast::Sender<(i64, AgentEvent)>,
}

impl AgentEvents {
    pub(crate) fn new() -> Self {
        Self { history: Arc::default(), live: broadcast::Sender::new(HISTORY) }
    }

    /// Adds an event with the current time.
    pub fn push(&self, event: AgentEvent) {
        let mut history = self.history.lock();
        if history.len() == HISTORY {
            history.pop_front();
        }
        let event = (now(), event);
        history.push_back(event.clone());
        // Sent under the lock, so that a client gets each event either from the history or from the stream. It is fine
        // if nobody listens.
        let _ = self.live.send(event);
    }

    pub(super) fn stream(
        &self,
        request: GetAgentEventsRequest,
        node_name: String,
    ) -> impl Stream<Item = Result<GetAgentEventsResponse, Status>> + Send + 'static {
        let (since, until) = (request.since.as_ref().map(nanos), request.until.as_ref().map(nanos));
        let within = move |time: i64| since.is_none_or(|s| time >= s) && until.is_none_or(|u| time <= u);
        let history = self.history.lock();
        let live = request.follow.then(|| BroadcastStream::new(self.live.subscribe()));
        let mut past: Vec<_> = history.iter().filter(|(time, _)| within(*time)).cloned().collect();
        std::mem::drop(history);
        let number = usize::try_from(request.number).unwrap_or(usize::MAX);
        if number == 0 {
            // A client that asks for neither a number nor a time only follows, without history.
            if request.follow && request.since.is_none() && !request.first {
                past.clear();
            }
        } else if request.first {
            past.truncate(number);
        } else {
            past.drain(..past.len().saturating_sub(number));
        }
        // Events missed by a slow client are not reported: the protocol cannot express it here.
        let live = futures::stream::iter(live).flatten();
        let live = live.filter_map(move |event| ready(event.ok().filter(|(time, _)| within(*time))));
        futures::stream::iter(past).chain(live).map(move |(time, event)| {
            Ok(GetAgentEventsResponse {
                agent_event: Some(event),
                node_name: node_name.clone(),
                time: Some(timestamp(time)),
            })
        })
    }
}
