// SPDX-License-Identifier: Apache-2.0
//! Real time, in one place: it is what this program measures.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the breath between two looks at another program, never the wait itself")]
pub(crate) fn breathe(duration: Duration) {
    std::thread::sleep(duration);
}

/// Retries every `breath` until there is an answer; gives up after `limit` with the last error.
pub(crate) fn poll<T>(limit: Duration, breath: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = now() + limit;
    loop {
        let reason = match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        if now() >= deadline {
            return Err(anyhow!("{reason:#}").context(format!("not within {} s", limit.as_secs())));
        }
        breathe(breath);
    }
}

/// Milliseconds as printed.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
