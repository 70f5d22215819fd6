// SPDX-License-Identifier: Apache-2.0
//! Timeouts, so that no request waits for ever.

use std::time::Duration;

/// Timeouts of requests and connections. Defaults are those of Kubernetes' own clients where these have any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a request's turn, when there are more than the rate allows.
    pub queue: Duration,
    /// For connecting, including TLS.
    pub connect: Duration,
    /// For a response to begin. An API server gives up by itself after 60 s.
    pub answer: Duration,
    /// Between two parts of a response.
    pub pause: Duration,
    /// For a response to end, unless it is a watch's: a part now and then is not enough.
    pub whole: Duration,
    /// Between two events of a watch. An API server sends a bookmark about every minute.
    pub watch_pause: Duration,
    /// Silence after which a connection is pinged.
    pub silence: Duration,
    /// For the ping's reply; without one the connection is closed.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: Duration::from_secs(120),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(65),
            pause: Duration::from_secs(30),
            whole: Duration::from_secs(5 * 60),
            watch_pause: Duration::from_secs(150),
            silence: Duration::from_secs(30),
            probe: Duration::from_secs(15),
        }
    }
}

/// The server did not begin its response in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(super) struct NoAnswer(pub(super) Duration);

/// The request did not have its turn in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many requests before it for {0:?}")]
pub(super) struct NoTurn(pub(super) Duration);

/// Whether a request opens a watch.
pub(crate) fn is_watch(uri: &hyper::Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}
