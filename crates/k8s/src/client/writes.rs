// SPDX-License-Identifier: Apache-2.0
//! Which kinds of objects cannot be written for want of the API server, although it may well be read: its storage is full, or an admission
//! webhook does not answer. A refusal is an answer.

use hyper::{Method, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A write that nobody has repeated for so long is wanted no more. All back off to a few minutes at most.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

/// A kind of which every write has failed for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFailure {
    /// The plural of its kind, as in URLs.
    pub resource: String,
    /// From the first to the last failure.
    pub lasting: Duration,
    /// The last failure.
    pub message: String,
}

impl fmt::Display for WriteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not written for {} s: {}", self.resource, self.lasting.as_secs(), self.message)
    }
}

/// The kinds whose writes fail. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<Mutex<BTreeMap<String, Failing>>>);

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    message: String,
}

/// A request that has not been answered yet.
pub(super) struct Writing {
    resource: String,
    begun: Instant,
}

impl Writing {
    /// None if the request only reads.
    pub(super) fn begin(method: &Method, path: &str) -> Option<Self> {
        let is_write = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        is_write.then(|| Self { resource: resource(path).unwrap_or_default().to_owned(), begun: Instant::now() })
    }
}

impl Writes {
    pub(super) fn note(&self, write: Writing, outcome: &Result<Response<Body>, kube::Error>) {
        let Writing { resource, begun } = write;
        let message = match outcome {
            Ok(response) if is_unavailable(response.status()) => {
                format!("the API server answers {}", response.status())
            }
            Ok(_) => return drop(self.0.lock().remove(&resource)),
            Err(error) => super::chain(error),
        };
        let (mut all, last) = (self.0.lock(), Instant::now());
        let begun = Failing { since: begun, last, message: String::new() };
        let failing = all.entry(resource).or_insert(begun);
        (failing.last, failing.message) = (last, message);
    }

    pub(super) fn failing(&self, for_at_least: Duration) -> Vec<WriteFailure> {
        let mut all = self.0.lock();
        all.retain(|_, failing| failing.last.elapsed() < FORGOTTEN);
        let failures = all.iter().map(|(resource, failing)| WriteFailure {
            resource: resource.clone(),
            lasting: failing.last - failing.since,
            message: failing.message.clone(),
        });
        failures.filter(|failure| failure.lasting >= for_at_least).collect()
    }
}

/// Whether the answer says that the server, or something behind it, cannot do it now.
fn is_unavailable(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// The plural in `/api/v1/…` or `/apis/GROUP/VERSION/…`.
fn resource(path: &str) -> Option<&str> {
    let mut words = path.trim_start_matches('/').split('/');
    let before = if words.next() == Some("apis") { 2 } else { 1 };
    let words: Vec<&str> = words.skip(before).collect();
    match words.as_slice() {
        ["namespaces", _, resource, ..] | [resource, ..] => Some(resource),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITIES: &str = "/apis/cilium.io/v2/ciliumidentities";

    fn answered(code: u16) -> Result<Response<Body>, kube::Error> {
        Ok(Response::builder().status(code).body(Body::empty()).unwrap())
    }

    fn note(writes: &Writes, method: Method, path: &str, outcome: &Result<Response<Body>, kube::Error>) {
        if let Some(write) = Writing::begin(&method, path) {
            writes.note(write, outcome);
        }
    }

    fn failing(writes: &Writes) -> Vec<String> {
        writes.failing(Duration::from_secs(60)).into_iter().map(|failure| failure.resource).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_fails_from_its_first_unanswered_write_to_the_next_answer() {
        let writes = Writes::default();
        let lost = Err(kube::Error::Service("no answer".into()));
        for outcome in [&lost, &answered(500), &answered(429)] {
            note(&writes, Method::POST, IDENTITIES, outcome);
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
        assert_eq!(failing(&writes), ["ciliumidentities"]);
        let text = writes.failing(Duration::ZERO)[0].to_string();
        assert_eq!(text, "ciliumidentities not written for 80 s: the API server answers 429 Too Many Requests");
        note(&writes, Method::GET, IDENTITIES, &answered(200));
        note(&writes, Method::PUT, "/apis/cilium.io/v2/namespaces/n/ciliumendpoints/p", &answered(200));
        assert_eq!(failing(&writes), ["ciliumidentities"], "reads and other kinds prove nothing");
        for code in [201, 403, 409, 422] {
            note(&writes, Method::PATCH, "/apis/cilium.io/v2/ciliumidentities/300", &answered(code));
            assert_eq!(failing(&writes), [""; 0], "{code} is an answer");
            note(&writes, Method::POST, IDENTITIES, &lost);
            tokio::time::sleep(Duration::from_secs(70)).await;
            assert_eq!(failing(&writes), [""; 0], "one failure is a chance");
            note(&writes, Method::POST, IDENTITIES, &lost);
            assert_eq!(failing(&writes), ["ciliumidentities"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_repeats_is_forgotten() {
        let writes = Writes::default();
        note(&writes, Method::POST, IDENTITIES, &answered(503));
        tokio::time::sleep(Duration::from_secs(70)).await;
        note(&writes, Method::POST, IDENTITIES, &answered(503));
        tokio::time::sleep(FORGOTTEN / 2).await;
        assert_eq!(failing(&writes), ["ciliumidentities"]);
        tokio::time::sleep(FORGOTTEN / 2).await;
        assert_eq!(failing(&writes), [""; 0]);
    }

    #[test]
    fn the_kind_is_what_the_path_names() {
        for (path, wanted) in [
            ("/api/v1/namespaces/n/pods/p", "pods"),
            ("/api/v1/namespaces/n", "namespaces"),
            ("/api/v1/nodes/n/status", "nodes"),
            ("/apis/cilium.io/v2/ciliumnodes/n", "ciliumnodes"),
            ("/apis/cilium.io/v2/namespaces/n/ciliumendpoints", "ciliumendpoints"),
        ] {
            assert_eq!(resource(path), Some(wanted), "{path}");
        }
        assert_eq!(resource("/version"), None);
    }
}
