// SPDX-License-Identifier: Apache-2.0
//! Buckets of tokens that requests take. Nobody waits for one: a bucket is one number, the time at which it is full again.

use crate::invalid::{InField, Invalid};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use l7::{RateLimit, syntax};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;

/// A bucket, and how requests are refused that find it empty.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: Arc<RateLimit>,
    pub(crate) status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    since: Instant,
    /// Nanoseconds after `since`.
    full_at: AtomicU64,
    /// Nanoseconds in which a token comes back.
    each: u64,
}

impl Limiter {
    /// A full bucket.
    pub(crate) fn new(limit: &Arc<RateLimit>) -> Result<Self, Invalid> {
        let status = StatusCode::from_u16(limit.status).in_field("status")?;
        if !(status.is_client_error() || status.is_server_error()) {
            return Err(Invalid::new("status", format!("{status} refuses nothing")));
        }
        let each = limit.interval.as_nanos().checked_div(limit.requests.into()).unwrap_or_default();
        let each = u64::try_from(each).ok().filter(|each| *each > 0 && limit.burst > 0);
        let header = |(name, value): &(String, String)| {
            let name = syntax::changed_header(name).in_field("headers")?;
            Ok::<_, Invalid>((name, syntax::header_value(value).in_field("headers")?))
        };
        Ok(Self {
            status,
            headers: limit.headers.iter().map(header).collect::<Result<_, _>>()?,
            since: Instant::now(),
            full_at: AtomicU64::new(0),
            each: each.ok_or_else(|| Invalid::new("interval", "no token ever comes back, or too many do"))?,
            limit: Arc::clone(limit),
        })
    }

    /// Whether it says what `limit` does, so that its tokens go on being counted.
    pub(crate) fn is_of(&self, limit: &RateLimit) -> bool {
        *self.limit == *limit
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let room = self.each.saturating_mul(self.limit.burst.into());
        let taken = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(self.each);
            (full_at - now <= room).then_some(full_at)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }

    /// Puts the headers of a refusal in.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Limiter;
    use l7::RateLimit;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::advance;

    fn limit(burst: u32, requests: u32, seconds: u64) -> RateLimit {
        let interval = Duration::from_secs(seconds);
        RateLimit { name: "l".into(), burst, requests, interval, status: 429, headers: Vec::new() }
    }

    fn taken(limiter: &Limiter) -> usize {
        (0..100).take_while(|_| limiter.take()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_let_through_as_there_are_tokens_and_they_come_back_evenly_and_never_more_than_fit() {
        let limiter = Limiter::new(&Arc::new(limit(5, 2, 10))).unwrap();
        assert_eq!(taken(&limiter), 5);
        advance(Duration::from_secs(4)).await;
        assert_eq!(taken(&limiter), 0);
        advance(Duration::from_secs(1)).await;
        assert_eq!(taken(&limiter), 1);
        advance(Duration::from_secs(15)).await;
        assert_eq!(taken(&limiter), 3);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&limiter), 5);
    }

    #[test]
    fn a_bucket_that_never_fills_and_a_refusal_that_is_none_are_refused() {
        for wrong in [limit(0, 1, 1), limit(1, 0, 1), limit(1, 1, 0), RateLimit { status: 200, ..limit(1, 1, 1) }] {
            assert!(Limiter::new(&Arc::new(wrong.clone())).is_err(), "{wrong:?}");
        }
        let framing = RateLimit { headers: vec![("content-length".into(), "1".into())], ..limit(1, 1, 1) };
        assert!(Limiter::new(&Arc::new(framing)).is_err());
    }
}
