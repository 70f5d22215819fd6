// SPDX-License-Identifier: Apache-2.0
//! Durations for people.

use std::time::Duration;

/// `1h1m1s`; days count as hours, and seconds are the smallest unit.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s}s"),
        _ => format!("{h}h{m}m{s}s"),
    }
}
