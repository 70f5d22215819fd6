// SPDX-License-Identifier: Apache-2.0
//! Events that a client missed and was not yet told of.

use crate::proto::flow::{LostEvent, LostEventSource};
use crate::proto::timestamp;
use crate::store::now;
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Lost {
    interval: Duration,
    sent: Option<Instant>,
    count: u64,
    first: i64,
}

impl Lost {
    /// None so far; they are told of at most once per interval.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, sent: None, count: 0, first: 0 }
    }

    pub(super) fn add(&mut self, count: u64) {
        if self.count == 0 {
            self.first = now();
        }
        self.count += count;
    }

    /// When the next report may be sent, if there is something to report.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.count > 0).then(|| self.sent.map_or_else(Instant::now, |sent| sent + self.interval))
    }

    /// The next report, if it is due or the last one.
    pub(super) fn take(&mut self, last: bool) -> Option<LostEvent> {
        let due = self.due()?;
        if !last && due > Instant::now() {
            return None;
        }
        self.sent = Some(Instant::now());
        Some(LostEvent {
            source: LostEventSource::HubbleRingBuffer.into(),
            num_events_lost: std::mem::take(&mut self.count),
            cpu: None,
            first: Some(timestamp(self.first)),
            last: Some(timestamp(now())),
        })
    }
}
