// SPDX-License-Identifier: Apache-2.0
//! How long to wait before asking an API server again that has just failed: soon at first, at most five seconds, and
//! each of many agents a little differently.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(5);

/// Doubles with each failure until a success.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = FIRST.saturating_mul(1_u32 << self.failures.min(10)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        // Between half and all of it; the hasher is seeded at random.
        let share = u32::try_from(RandomState::new().hash_one(self.failures) % 512).unwrap_or(0) + 512;
        Some(whole * share / 1024)
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, LAST};
    use kube::runtime::utils::Backoff as _;

    #[test]
    fn it_grows_to_five_seconds_and_begins_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = backoff.by_ref().take(40).collect();
        assert!(waits.iter().all(|w| *w >= FIRST / 2 && *w <= LAST), "{waits:?}");
        assert!(waits.iter().rev().take(30).all(|w| *w >= LAST / 2), "{waits:?}");
        backoff.reset();
        assert!(backoff.next().is_some_and(|w| w <= FIRST));
    }
}
