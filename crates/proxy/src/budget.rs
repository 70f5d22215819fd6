// SPDX-License-Identifier: Apache-2.0
//! How many retries the requests of a route may make together.

use l7::RetryBudget;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;

/// Counts of two intervals. Exactness is not needed: a request that is counted into the wrong interval does no harm.
#[derive(Debug)]
pub(crate) struct Budget {
    rule: RetryBudget,
    since: Instant,
    interval: AtomicU64,
    requests: AtomicU64,
    /// Of the interval before.
    requests_before: AtomicU64,
    retries: AtomicU64,
}

impl Budget {
    pub(crate) fn new(rule: RetryBudget) -> Self {
        let zero = AtomicU64::default;
        Self {
            rule,
            since: Instant::now(),
            interval: zero(),
            requests: zero(),
            requests_before: zero(),
            retries: zero(),
        }
    }

    /// Counts a request.
    pub(crate) fn request(&self) {
        self.turn();
        self.requests.fetch_add(1, Relaxed);
    }

    /// Takes a retry out of the budget, if there is one in it.
    pub(crate) fn retry(&self) -> bool {
        self.turn();
        let requests = self.requests_before.load(Relaxed).max(self.requests.load(Relaxed));
        let allowed = (requests * u64::from(self.rule.percent) / 100).max(self.rule.least.into());
        self.retries.fetch_update(Relaxed, Relaxed, |retries| (retries < allowed).then_some(retries + 1)).is_ok()
    }

    fn turn(&self) {
        let length = self.rule.interval.as_millis().max(1);
        let now = u64::try_from(self.since.elapsed().as_millis() / length).unwrap_or(u64::MAX);
        let before = self.interval.load(Relaxed);
        if now != before && self.interval.compare_exchange(before, now, Relaxed, Relaxed).is_ok() {
            let requests = self.requests.swap(0, Relaxed);
            self.requests_before.store(if now == before + 1 { requests } else { 0 }, Relaxed);
            self.retries.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use l7::RetryBudget;
    use std::time::Duration;
    use tokio::time::advance;

    fn budget(percent: u32, least: u32) -> Budget {
        Budget::new(RetryBudget { percent, interval: Duration::from_secs(10), least })
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_part_of_the_requests_and_come_back_with_the_next_interval() {
        let budget = budget(20, 0);
        assert!(!budget.retry());
        (0..10).for_each(|_| budget.request());
        assert_eq!([budget.retry(), budget.retry(), budget.retry()], [true, true, false]);
        advance(Duration::from_secs(10)).await;
        assert_eq!([budget.retry(), budget.retry(), budget.retry()], [true, true, false]);
        advance(Duration::from_secs(20)).await;
        assert!(!budget.retry());
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_is_allowed_in_any_case() {
        let budget = budget(0, 1);
        assert_eq!([budget.retry(), budget.retry()], [true, false]);
    }
}
