// SPDX-License-Identifier: Apache-2.0
//! What is known of a request: told to the agent when it is answered, and counted and written to the access log when it is over.

use super::answer::Refusal;
use super::backlog::Part;
use super::body::{BodyError, BodyFault, ResponseBody};
use super::connection::Client;
use crate::access::Entry;
use crate::timed::Busy;
use crate::upstream::Endpoint;
use crate::worker::Counted;
use http::header::HeaderValue;
use http::{Request, Response};
use hyper::body::Incoming;
use l7::{Exchange, Name, Outcome};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A request under way. When it is dropped, the request is over.
#[derive(Debug)]
pub(crate) struct Record {
    client: Arc<Client>,
    begun: Instant,
    /// Only if there is an access log.
    entry: Option<Box<Entry>>,
    /// Only if somebody observes requests, and until the answer.
    observed: Option<Box<Exchange>>,
    status: u16,
    complete: bool,
    /// What is wrong with its own body.
    body: BodyFault,
    /// When it is to be over.
    end: Option<Instant>,
    /// Why it ended before its end, or was refused, is counted.
    counted: bool,
    cluster_request: Option<Counted>,
    _busy: Busy,
}

impl Record {
    pub(super) fn new(client: &Arc<Client>, request: &Request<Incoming>) -> Self {
        let entry = client.shared.access.is_some().then(|| Box::new(Entry::of(request)));
        let observed = client.shared.observer.begin(client, request);
        let busy = client.activity.begin();
        Self {
            client: Arc::clone(client),
            begun: Instant::now(),
            entry,
            observed,
            status: 0,
            complete: false,
            body: BodyFault::default(),
            end: None,
            counted: false,
            cluster_request: None,
            _busy: busy,
        }
    }

    fn note(&mut self, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &mut self.entry {
            note(entry);
        }
    }

    pub(super) fn routed(&mut self, route: &Name, request_id: &HeaderValue) {
        self.note(|entry| {
            entry.route = Some(route.clone());
            entry.request_id = request_id.to_str().unwrap_or_default().to_owned();
        });
    }

    pub(super) fn cluster(&mut self, cluster: &Name) {
        self.note(|entry| entry.cluster = Some(cluster.clone()));
        if let Some(observed) = &mut self.observed {
            observed.cluster = Some(cluster.clone());
        }
    }

    pub(super) fn endpoint(&mut self, endpoint: &Endpoint) {
        self.note(|entry| {
            entry.attempts += 1;
            entry.endpoint = Some(endpoint.address);
            entry.endpoint_identity = endpoint.identity;
        });
        if let Some(observed) = &mut self.observed {
            (observed.server, observed.identity, observed.outcome) =
                (endpoint.address, endpoint.identity, Outcome::Forwarded);
        }
    }

    /// The request counts as one of its cluster until it is over.
    pub(super) fn hold(&mut self, counted: Counted) {
        self.cluster_request = Some(counted);
    }

    /// What outlives the request counts itself.
    pub(super) fn release(&mut self) -> Option<Counted> {
        self.cluster_request.take()
    }

    /// When it is over if it may take so long from its head on.
    pub(super) fn end_within(&self, limit: Duration) -> Option<Instant> {
        self.begun.checked_add(limit)
    }

    /// It is to be over by then.
    pub(super) fn ends(&mut self, end: Option<Instant>) {
        self.end = end;
    }

    /// What becomes of its body is told there.
    pub(super) fn sends_body(&mut self, fault: &BodyFault) {
        self.body = Arc::clone(fault);
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.count(refusal.reason);
        if let Some(observed) = &mut self.observed {
            observed.outcome = Outcome::Refused;
        }
    }

    pub(super) fn answered(&mut self, response: &mut Response<ResponseBody>) {
        self.status = response.status().as_u16();
        self.client.metrics.answered(self.status);
        self.tell();
    }

    /// Tells the agent what has become of the request, once.
    fn tell(&mut self) {
        if let Some(mut observed) = self.observed.take() {
            observed.status = self.status;
            observed.latency = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.client.shared.observer.end(observed);
        }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.note(|entry| entry.bytes += bytes as u64);
    }

    fn count(&mut self, reason: &'static str) {
        self.counted = true;
        self.client.metrics.refused(reason);
        self.note(|entry| entry.reason = Some(reason));
    }

    /// The answer ends before its end. What was wrong with the request's body explains it.
    pub(super) fn cut_off(&mut self, error: BodyError) {
        let fault = *self.body.lock();
        self.count(match (error, fault) {
            (BodyError::Broken, Some(fault)) => Refusal::from(fault).reason,
            (BodyError::Late, _) => Refusal::TIMED_OUT.reason,
            (BodyError::TimedOut, _) => "answer-timeout",
            (BodyError::Withdrawn, _) => "withdrawn",
            (BodyError::Broken | BodyError::TooLarge | BodyError::Slow, _) => "answer-cut-off",
        });
    }

    /// Bytes that wait for the client.
    pub(super) fn unread(&self, bytes: usize) -> Part {
        self.client.unread.count(bytes)
    }

    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Without an answer, there is nobody any more who waits for it.
        self.tell();
        // A client that takes nothing is not given the end either.
        if !self.complete && !self.counted && self.end.is_some_and(|end| end <= Instant::now()) {
            self.count(Refusal::TIMED_OUT.reason);
        }
        let duration = self.begun.elapsed();
        self.client.metrics.duration(duration);
        let (Some(mut entry), Some(log)) = (self.entry.take(), &self.client.shared.access) else { return };
        entry.listener = Some(self.client.listener.clone());
        entry.client = Some(self.client.peer.client);
        entry.server_name = self.client.tls.as_ref().map(|tls| Arc::clone(&tls.name));
        entry.status = self.status;
        entry.duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if !self.complete && entry.reason.is_none() {
            entry.reason = Some("client-gone");
        }
        log.write(&entry);
    }
}
