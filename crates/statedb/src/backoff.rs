// SPDX-License-Identifier: Apache-2.0
//! How long to wait before another attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Exponential back-off: the delay doubles with each failure, between a first and a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    last: Duration,
}

impl Backoff {
    /// From `first` to `last`.
    #[must_use]
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last }
    }

    /// The full delay after that many consecutive failures.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.last)
    }

    /// Between half and all of that, so that callers that failed together do not retry together.
    #[must_use]
    pub fn spread_after(self, failures: u32) -> Duration {
        spread(self.after(failures))
    }
}

/// Counts consecutive failures and says how long to wait after each.
#[derive(Clone, Debug)]
pub struct Retries {
    backoff: Backoff,
    failures: u32,
}

impl Retries {
    /// Starts without failures.
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// Counts a failure and returns the delay, as [`Backoff::spread_after`] says.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.spread_after(self.failures)
    }

    /// Counts a success. Returns whether it ends a run of failures.
    pub const fn succeeded(&mut self) -> bool {
        std::mem::replace(&mut self.failures, 0) > 0
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub const fn failing(&self) -> bool {
        self.failures > 0
    }
}

/// Between half and all of a delay.
fn spread(whole: Duration) -> Duration {
    // The hasher is randomly seeded.
    let share = u32::try_from(RandomState::new().hash_one(whole) % 513).unwrap_or(0) + 512;
    whole.saturating_mul(share) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(120));

    #[test]
    fn a_wait_doubles_up_to_the_longest_and_begins_anew_after_a_success() {
        let mut retries = Retries::new(BACKOFF);
        for failures in 1..=64 {
            let (wait, whole) = (retries.failed(), BACKOFF.after(failures));
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        assert_eq!((BACKOFF.after(2), BACKOFF.after(64)), (Duration::from_millis(400), Duration::from_secs(120)));
        assert!(retries.failing() && retries.succeeded());
        assert!(!retries.failing() && !retries.succeeded());
        assert!(retries.failed() <= BACKOFF.first);
    }

    #[test]
    fn waits_of_many_differ() {
        let waits: std::collections::BTreeSet<_> = (0..20).map(|_| Retries::new(BACKOFF).failed()).collect();
        assert!(waits.len() > 1);
    }
}
