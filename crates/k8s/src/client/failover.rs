// SPDX-License-Identifier: Apache-2.0
//! Several API servers behind one client: requests go to the one that last worked, and when it cannot be connected to,
//! the next one is tried. There is no load balancing: the watch cache is warm where we already are.

use super::deadline::Deadline;
use super::limit::RateLimit;
use super::limits::{Limits, NoAnswer, NoTurn, is_watch};
use super::writes::{Writes, Writing};
use hyper::{Request, Response};
use kube::client::Body;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::timeout;
use tower::Service;
use tower_http::timeout::TimeoutBody;

/// The servers, and the one in use.
pub(super) struct Servers {
    clients: Vec<(String, kube::Client)>,
    current: AtomicUsize,
    rate: Option<RateLimit>,
    limits: Limits,
    writes: Writes,
}

/// A response that ends in time.
type Limited = Response<Deadline<TimeoutBody<Body>>>;

impl Servers {
    pub(super) fn new(
        clients: Vec<(String, kube::Client)>,
        rate: Option<RateLimit>,
        limits: Limits,
        writes: Writes,
    ) -> Arc<Self> {
        Arc::new(Self { clients, current: AtomicUsize::new(0), rate, limits, writes })
    }

    pub(super) fn into_service(
        self: Arc<Self>,
    ) -> impl Service<
        Request<Body>,
        Response = Limited,
        Error = kube::Error,
        Future = impl Future<Output = Result<Limited, kube::Error>> + Send + 'static,
    > + Send
    + 'static {
        tower::service_fn(move |request: Request<Body>| {
            let servers = self.clone();
            async move {
                let limits = servers.limits;
                let watch = is_watch(request.uri());
                let (pause, whole) =
                    if watch { (limits.watch_pause, None) } else { (limits.pause, Some(limits.whole)) };
                let write = Writing::begin(request.method(), request.uri().path());
                let outcome = servers.send(request).await;
                if let Some(write) = write {
                    servers.writes.note(write, &outcome);
                }
                Ok(outcome?.map(|body| Deadline::new(TimeoutBody::new(pause, body), whole)))
            }
        })
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        if let Some(rate) = &self.rate {
            let turn = timeout(self.limits.queue, rate.acquire()).await;
            turn.map_err(|_| kube::Error::Service(NoTurn(self.limits.queue).into()))?;
        }
        let (parts, body) = request.into_parts();
        let mut body = Some(body);
        let mut tried = 0;
        loop {
            let current = self.current.load(Ordering::Relaxed);
            let Some((url, client)) = self.clients.get(current % self.clients.len().max(1)) else {
                return Err(kube::Error::Service("no API server is configured".into()));
            };
            let Some(this) = body.take() else {
                return Err(kube::Error::Service("the request's body cannot be sent twice".into()));
            };
            let again = this.try_clone();
            let error = match timeout(self.limits.answer, client.send(Request::from_parts(parts.clone(), this))).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => error,
                Err(_) => kube::Error::Service(NoAnswer(self.limits.answer).into()),
            };
            if !is_transport(&error) {
                return Err(error);
            }
            tried += 1;
            self.move_on(current, url, &error);
            // A request that reached a server may have been carried out: only the caller knows whether to repeat it.
            if tried >= self.clients.len() || !(is_connect(&error) || parts.method == hyper::Method::GET) {
                return Err(error);
            }
            body = again;
        }
    }

    fn move_on(&self, from: usize, url: &str, error: &kube::Error) {
        let next = from.wrapping_add(1);
        let moved = self.current.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if let (true, true, Some((to, _))) =
            (moved, self.clients.len() > 1, self.clients.get(next % self.clients.len().max(1)))
        {
            tracing::warn!(server = url, next = to, error = %chain(error), "API server does not answer, trying the next");
        }
    }
}

/// Whether the request failed without a response, as opposed to being answered with an error.
fn is_transport(error: &kube::Error) -> bool {
    matches!(error, kube::Error::HyperError(_) | kube::Error::Service(_))
}

fn is_connect(error: &kube::Error) -> bool {
    sources(error).any(|e| {
        e.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |e: &&'a (dyn StdError + 'static)| (*e).source())
}

/// Whether the API server will always reject the same request: the request is at fault, not the server or the timing. A
/// missing permission does not count, since it may be granted at any time.
#[must_use]
pub fn is_permanent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 405 | 413 | 415 | 422))
}

/// Whether a rule of the cluster forbids the request: a missing permission, an admission webhook, a quota. It may be lifted at any time.
#[must_use]
pub fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// An error with its causes on one line. The client's errors say little without them.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for text in sources(error).map(ToString::to_string) {
        // Some errors repeat their cause in their own text.
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_rejected_for_good_if_nothing_but_another_request_would_do() {
        let permanent = |code: u16| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            is_permanent(&kube::Error::Api(Box::new(status)))
        };
        let all: Vec<u16> = (400..600).filter(|code| permanent(*code)).collect();
        // Not: who may (401, 403), what is there (404, 409, 410), when (408, 425, 429), and what the server cannot do now.
        assert_eq!(all, [400, 405, 413, 415, 422]);
        assert!(!is_permanent(&kube::Error::Service("no answer".into())));
    }
}
