// SPDX-License-Identifier: Apache-2.0
//! Whether a request is sent once more, and when.

use super::body::RequestBody;
use crate::route::Forwarding;
use crate::upstream::{Endpoint, Upstream};
use crate::worker::Counted;
use http::{Method, Request, StatusCode};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::sleep;

/// What has been tried, and what may still be.
pub(super) struct Retries<'a> {
    forwarding: &'a Forwarding,
    pub(super) avoid: Vec<SocketAddr>,
    made: u32,
    /// One of those that the cluster may have at a time.
    counted: Option<Counted>,
    pub(super) unreached: usize,
    pub(super) stale: usize,
}

impl<'a> Retries<'a> {
    pub(super) fn new(forwarding: &'a Forwarding) -> Self {
        if let Some(rule) = &forwarding.retry {
            rule.budget.request();
        }
        Self { forwarding, avoid: Vec::new(), made: 0, counted: None, unreached: 0, stale: 0 }
    }

    /// The request for another attempt, if there may be one.
    pub(super) fn copy(&self, request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
        let left = self.forwarding.retry.as_ref().is_some_and(|rule| self.made < rule.attempts);
        if !left && !idempotent(Some(request)) {
            return None;
        }
        let mut copy = Request::new(request.body().copy()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        Some(copy)
    }

    pub(super) fn asks_for_another(&self, status: StatusCode) -> bool {
        self.forwarding.retry.as_ref().is_some_and(|rule| rule.statuses.contains(&status))
    }

    /// Takes one more attempt, if the rule, its budget and the cluster have one.
    pub(super) fn take(&mut self, upstream: &Upstream) -> bool {
        let Some(rule) = self.forwarding.retry.as_ref().filter(|rule| self.made < rule.attempts) else { return false };
        self.counted = self.counted.take().or_else(|| upstream.begin_retry());
        let taken = self.counted.is_some() && rule.budget.retry();
        self.made += u32::from(taken);
        taken
    }

    /// Until the next attempt, which is to go elsewhere.
    pub(super) async fn wait(&mut self, failed: &Endpoint) {
        self.avoid.push(failed.address);
        let backoff = self.forwarding.retry.as_ref().map_or(Duration::ZERO, |rule| rule.backoff);
        sleep(backoff.saturating_mul(1 << self.made.saturating_sub(1).min(6))).await;
    }
}

/// Whether it does no harm that a request reaches a backend twice, and there is no body that would be missing (RFC 9110, 9.2.2).
pub(super) fn idempotent(request: Option<&Request<RequestBody>>) -> bool {
    request.is_some_and(|request| {
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
            && matches!(request.body(), RequestBody::Whole(_))
    })
}
