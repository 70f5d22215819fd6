// SPDX-License-Identifier: Apache-2.0
//! How long an API server may take, so that no request waits for ever.

use std::time::Duration;

/// Limits of every request and connection. The default ones are those of Kubernetes' own clients where these have any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection is there, with TLS.
    pub connect: Duration,
    /// Until an answer begins. An API server gives up by itself after 60 s.
    pub answer: Duration,
    /// Between two parts of an answer.
    pub pause: Duration,
    /// Between two events of a watch. An API server sends a bookmark about every minute.
    pub watch_pause: Duration,
    /// After which a silent connection is probed.
    pub silence: Duration,
    /// Until the probe's answer; without one the connection is closed.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(65),
            pause: Duration::from_secs(30),
            watch_pause: Duration::from_secs(150),
            silence: Duration::from_secs(30),
            probe: Duration::from_secs(15),
        }
    }
}

/// The server did not begin its answer in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(super) struct NoAnswer(pub(super) Duration);

/// Whether a request opens a watch.
pub(crate) fn is_watch(uri: &hyper::Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}
