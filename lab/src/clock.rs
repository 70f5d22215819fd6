// SPDX-License-Identifier: Apache-2.0
//! Real time, in one place. The lab waits for other programs, whose time cannot be paused.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Now.
#[expect(clippy::disallowed_methods, reason = "the lab waits for other programs, in real time")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, in seconds since 1970.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Lets others run for a while.
#[expect(clippy::disallowed_methods, reason = "the breath between two looks at another program, never the wait itself")]
pub fn breathe(duration: Duration) {
    std::thread::sleep(duration);
}

/// Retries until there is an answer; gives up after `limit` with the last error.
pub(crate) fn poll<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = now() + limit;
    let mut breath = Duration::from_millis(10);
    loop {
        let reason = match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        if now() >= deadline {
            return Err(anyhow!("{reason:#}").context(format!("{what}: not within {} s", limit.as_secs())));
        }
        breathe(breath);
        breath = (breath * 2).min(Duration::from_millis(150));
    }
}
