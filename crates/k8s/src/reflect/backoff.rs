// SPDX-License-Identifier: Apache-2.0
//! How long a watch waits before retrying a failed API server: briefly at first, two minutes at most. A kind that is
//! not served yet is polled steadily: that response is cheap, and a new cluster is waiting for it.

use super::progress::Progress;
use statedb::Retries;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const FAILING: statedb::Backoff = statedb::Backoff::new(Duration::from_millis(200), Duration::from_secs(120));
const NOT_SERVED: statedb::Backoff = statedb::Backoff::new(Duration::from_millis(500), Duration::from_millis(500));

/// Expired watches are relisted at once, as long as that is rare: a full list is expensive for the API server.
const EXPIRING: statedb::Backoff = statedb::Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
/// Expiries further apart than this are rare.
const CALM: Duration = Duration::from_secs(60);

/// Grows with each failure until a success, and with each watch that expires soon after another.
///
/// The stream cannot be trusted to say what is a success: it counts the start of a list, even if it then fails.
pub(super) struct Backoff {
    failing: Retries,
    not_served: Retries,
    expiring: Retries,
    expired: Option<Instant>,
    progress: Arc<Progress>,
}

impl Backoff {
    pub(super) fn new(progress: Arc<Progress>) -> Self {
        let [failing, not_served, expiring] = [FAILING, NOT_SERVED, EXPIRING].map(Retries::new);
        Self { failing, not_served, expiring, expired: None, progress }
    }

    fn expired(&mut self) -> Duration {
        if self.expired.replace(Instant::now()).is_none_or(|before| before.elapsed() > CALM) {
            self.expiring.succeeded();
        }
        self.expiring.failed()
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.progress.take_worked() {
            self.failing.succeeded();
        }
        if self.progress.take_expired() {
            return Some(self.expired());
        }
        let grown = self.failing.failed();
        Some(if self.progress.not_served() { self.not_served.failed() } else { grown })
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reflect::Acceptable;
    use kube::core::Status;
    use kube::runtime::utils::Backoff as _;
    use kube::runtime::watcher::Error;

    fn of_new() -> (Backoff, Arc<Progress>) {
        let progress = Arc::new(Progress::new("ConfigMap".into(), Acceptable::Any));
        (Backoff::new(progress.clone()), progress)
    }

    #[test]
    fn it_grows_to_two_minutes_and_begins_anew_after_a_success() {
        let (mut backoff, progress) = of_new();
        let (first, last) = (Duration::from_millis(200), Duration::from_secs(120));
        let mut waits = Vec::new();
        for _ in 0..40 {
            waits.extend(backoff.next());
            backoff.reset();
        }
        assert!(waits.iter().all(|w| *w >= first / 2 && *w <= last), "{waits:?}");
        assert!(waits.iter().rev().take(30).all(|w| *w >= last / 2), "{waits:?}");
        progress.worked();
        assert!(backoff.next().is_some_and(|w| w <= first));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_watches_expire_at_once_is_asked_for_lists_ever_more_seldom() {
        let (mut backoff, progress) = of_new();
        let mut expires = || {
            progress.worked();
            progress.failed(&Error::WatchError(Box::new(Status { code: 410, ..Status::default() })));
            backoff.next().unwrap()
        };
        let mut waits = Vec::new();
        for _ in 0..40 {
            let wait = expires();
            tokio::time::advance(wait).await;
            waits.push(wait);
        }
        assert!(waits.iter().rev().take(20).all(|wait| *wait >= Duration::from_secs(10)), "{waits:?}");
        tokio::time::advance(Duration::from_secs(250)).await;
        assert!(expires() <= Duration::from_millis(200), "one that lived for long");
    }

    #[test]
    fn a_kind_that_is_not_served_yet_is_asked_for_steadily() {
        let (mut backoff, progress) = of_new();
        let failure = |code| Error::InitialListFailed(kube::Error::Api(Box::new(Status { code, ..Status::default() })));
        progress.failed(&failure(404));
        let steady = Duration::from_millis(500);
        assert!(backoff.by_ref().take(40).all(|wait| wait <= steady));
        progress.failed(&failure(500));
        assert!(backoff.next().is_some_and(|wait| wait > steady));
    }
}
