// SPDX-License-Identifier: Apache-2.0
//! Rate limiting: a token bucket shared by all clones of a client.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// A bucket that fills at a rate and holds at most a burst.
pub(super) struct RateLimit {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

/// Gives a token back unless its turn has come.
struct Waiting<'a>(Option<&'a RateLimit>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(limit) = self.0 {
            limit.state.lock().tokens += 1.0;
        }
    }
}

struct State {
    /// May be negative: waiting requests have already taken theirs, so they are served in order.
    tokens: f64,
    at: Instant,
}

impl RateLimit {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second, burst, state: Mutex::new(State { tokens: burst, at: Instant::now() }) }
    }

    /// Waits for a token. Whoever gives up waiting gives it back.
    pub(super) async fn acquire(&self) {
        let wait = self.take(Instant::now());
        if !wait.is_zero() {
            let mut waiting = Waiting(Some(self));
            tokio::time::sleep(wait).await;
            waiting.0 = None;
        }
    }

    fn take(&self, now: Instant) -> Duration {
        let mut state = self.state.lock();
        let refill = now.saturating_duration_since(state.at).as_secs_f64() * self.per_second;
        state.tokens = (state.tokens + refill).min(self.burst) - 1.0;
        state.at = now;
        if state.tokens >= 0.0 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(-state.tokens / self.per_second).unwrap_or(Duration::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RateLimit;
    use futures::FutureExt;
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_burst_passes_at_once_and_what_follows_is_spaced_by_the_rate() {
        let limit = RateLimit::new(10.0, 3);
        let now = Instant::now();
        assert_eq!((0..3).map(|_| limit.take(now)).max(), Some(Duration::ZERO));
        assert_eq!(limit.take(now).as_millis(), 100);
        assert_eq!(limit.take(now).as_millis(), 200);
        assert_eq!(limit.take(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_gives_back_what_he_waited_for() {
        let limit = RateLimit::new(1.0, 1);
        limit.acquire().await;
        for _ in 0..100 {
            assert!(limit.acquire().now_or_never().is_none());
        }
        let begun = Instant::now();
        limit.acquire().await;
        limit.acquire().await;
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
}
