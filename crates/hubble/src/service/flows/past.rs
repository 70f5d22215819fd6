// SPDX-License-Identifier: Apache-2.0
//! Reading what only the disk has.

use super::{Gone, Position, Query, Reader, last, pause};
use crate::history::{BlockReader, Stored};
use crate::store::{Entry, Store};
use std::ops::Range;

/// Where flows that are not older than the time begin.
pub(super) fn since(store: &Store, query: &Query, time: i64, oldest: u64) -> Position {
    let number = store.since(time);
    // Older entries of the ring are older than the time, and so is all before them.
    let past = if number > oldest { Vec::new() } else { select(store, query, 0..oldest) };
    Position { past, number, ..Position::default() }
}

/// Where the last flows begin of which so many are missing before this number.
pub(super) async fn rewind(store: &Store, query: &Query, number: u64, mut missing: u64) -> Position {
    let mut past = select(store, query, 0..number);
    let mut first = past.len();
    while let Some(before) = first.checked_sub(1)
        && let Some(stored) = past.get(before)
    {
        first = before;
        let entries: Vec<_> = read(stored).await.into_iter().flatten().collect();
        for (entry, (at, found)) in entries.iter().enumerate().rev() {
            let wanted = !store.is_own(stored) || *at < number;
            if wanted
                && let Entry::Event(record) = found
                && let Some(skip) = last(&stored.decoder, *at, record, query, &mut missing)
            {
                return Position { past: past.split_off(first), entries: entry, number, skip };
            }
            pause(*at).await;
        }
    }
    Position { past, number, ..Position::default() }
}

fn select(store: &Store, query: &Query, numbers: Range<u64>) -> Vec<Stored> {
    let history = store.history.as_ref().filter(|_| query.reaches_back());
    history.map(|history| history.select(query.times(), numbers)).unwrap_or_default()
}

/// Reads a block, on a thread that may wait for the disk; none if it cannot be read.
async fn read(stored: &Stored) -> Option<BlockReader> {
    let stored = stored.clone();
    tokio::task::spawn_blocking(move || stored.open()).await.ok()?.ok()
}

impl Reader<'_> {
    /// Sends what a position has before the ring; of this run only what has these numbers.
    pub(super) async fn past(&mut self, position: Position, numbers: Range<u64>) -> Result<(), Gone> {
        let Position { past, mut entries, mut skip, .. } = position;
        for stored in past {
            let own = self.store.is_own(&stored);
            let mut reached = stored.numbers().start;
            for (number, entry) in read(&stored).await.into_iter().flatten().skip(std::mem::take(&mut entries)) {
                reached = number + 1;
                if own && !numbers.contains(&number) {
                    continue;
                }
                self.entry(&stored.decoder, number, &entry, std::mem::take(&mut skip)).await?;
                if self.left == 0 {
                    return Ok(());
                }
                pause(number).await;
            }
            // A damaged block ends early, and one that is gone at once.
            self.lost.add(stored.numbers().end.saturating_sub(reached));
        }
        self.report(false).await
    }

    /// Sends what the ring had under these numbers and the disk still has; the number up to which it came, if it came anywhere.
    pub(super) async fn catch_up(&mut self, numbers: Range<u64>) -> Result<Option<u64>, Gone> {
        // Not from 0 on: those of earlier runs were sent.
        let missed = numbers.start.max(1)..numbers.end;
        let past = select(self.store, self.query, missed);
        let Some(reached) = past.last().map(|stored| stored.numbers().end.min(numbers.end)) else { return Ok(None) };
        let numbers = numbers.start..reached;
        self.past(Position { past, ..Position::default() }, numbers).await?;
        Ok(Some(reached))
    }
}
