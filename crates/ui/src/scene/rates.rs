// SPDX-License-Identifier: Apache-2.0
//! How many flows there were in each second of the last ten minutes.

use super::Class;
use serde::Serialize;
use std::collections::BTreeMap;

/// Seconds that are kept.
const SECONDS: i64 = 600;

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Second {
    pub(crate) time: i64,
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    pub(crate) dropped: u64,
}

/// Seconds in which there was something.
#[derive(Default)]
pub(crate) struct Rates(BTreeMap<i64, Second>);

impl Rates {
    /// Counts a flow of this time, both in milliseconds. One that is too old is left out.
    pub(crate) fn add(&mut self, class: Class, time: i64, now: i64) {
        let (second, oldest) = (time.div_euclid(1000), now.div_euclid(1000) - SECONDS);
        while self.0.first_key_value().is_some_and(|(first, _)| *first < oldest) {
            self.0.pop_first();
        }
        if second < oldest {
            return;
        }
        let counts = self.0.entry(second).or_insert(Second { time: second, ..Second::default() });
        match class {
            Class::Allowed => counts.allowed += 1,
            Class::Denied => counts.denied += 1,
            Class::Dropped => counts.dropped += 1,
            Class::Other => {}
        }
    }

    /// From this second on.
    pub(crate) fn since(&self, second: i64) -> Vec<Second> {
        self.0.range(second..).map(|(_, counts)| *counts).collect()
    }
}
