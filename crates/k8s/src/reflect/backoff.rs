// SPDX-License-Identifier: Apache-2.0
//! How long to wait before asking an API server again that has just failed: soon at first, at most five seconds, and
//! each of many agents a little differently. A kind that is not served yet is asked for steadily: that answer costs little,
//! and a new cluster waits for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(5);
const NOT_SERVED: Duration = Duration::from_millis(500);

/// Doubles with each failure until a success.
///
/// What is a success is not for the stream to say: it counts that a list begins as one, even if it then fails.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
    seen: Arc<Seen>,
}

/// What came of the watch since the last wait.
#[derive(Default)]
pub(super) struct Seen {
    /// It brought something.
    pub(super) worked: AtomicBool,
    /// It failed because the kind is not served.
    pub(super) not_served: AtomicBool,
}

impl Backoff {
    /// Where to say what came of the watch.
    pub(super) fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.seen.worked.swap(false, Ordering::Relaxed) {
            self.failures = 0;
        }
        let grown = FIRST.saturating_mul(1_u32 << self.failures.min(10)).min(LAST);
        let whole = if self.seen.not_served.load(Ordering::Relaxed) { NOT_SERVED } else { grown };
        self.failures = self.failures.saturating_add(1);
        // Between half and all of it; the hasher is seeded at random.
        let share = u32::try_from(RandomState::new().hash_one(self.failures) % 512).unwrap_or(0) + 512;
        Some(whole * share / 1024)
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, LAST, NOT_SERVED};
    use kube::runtime::utils::Backoff as _;
    use std::sync::atomic::Ordering;

    #[test]
    fn it_grows_to_five_seconds_and_begins_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            waits.extend(backoff.next());
            backoff.reset();
        }
        assert!(waits.iter().all(|w| *w >= FIRST / 2 && *w <= LAST), "{waits:?}");
        assert!(waits.iter().rev().take(30).all(|w| *w >= LAST / 2), "{waits:?}");
        backoff.seen().worked.store(true, Ordering::Relaxed);
        assert!(backoff.next().is_some_and(|w| w <= FIRST));
    }

    #[test]
    fn a_kind_that_is_not_served_yet_is_asked_for_steadily() {
        let mut backoff = Backoff::default();
        backoff.seen().not_served.store(true, Ordering::Relaxed);
        assert!(backoff.by_ref().take(40).all(|wait| wait <= NOT_SERVED));
        backoff.seen().not_served.store(false, Ordering::Relaxed);
        assert!(backoff.next().is_some_and(|wait| wait > NOT_SERVED));
    }
}
