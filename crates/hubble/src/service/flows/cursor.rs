// SPDX-License-Identifier: Apache-2.0
//! Where a client reads on: blocks of the disk that are left, and then the ring. Entries of this run of the agent have numbers, so none is read
//! twice, and those that are in neither are counted.

use crate::decode::Decoder;
use crate::history::{BlockReader, Stored};
use crate::store::Entry;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Cursor {
    disk: VecDeque<Stored>,
    open: Option<Box<Open>>,
    /// How many entries of the first block to pass over.
    entries: usize,
    /// How many flows of the first entry to pass over.
    skip: usize,
    /// The next number of this run, once that is known.
    number: Option<u64>,
    /// Up to this number losses were noted in history.
    noted: u64,
    /// From this number on this run is read from the ring, not from disk.
    until: u64,
    /// The next number to read from the ring.
    pub(super) ring: u64,
}

/// A block that is being read.
struct Open {
    stored: Stored,
    own: bool,
    entries: Option<BlockReader>,
    /// The number after the last one that could be read.
    reached: u64,
}

/// An entry of history, and how many of its flows to pass over.
pub(super) struct Past {
    pub(super) decoder: Arc<Decoder>,
    pub(super) number: u64,
    pub(super) entry: Entry,
    pub(super) skip: usize,
}

impl Cursor {
    /// The ring from this number on, but for so many flows of the first event.
    pub(super) fn of_ring(number: u64, skip: usize) -> Self {
        Self { ring: number, skip, ..Self::default() }
    }

    /// These blocks, but for so many entries of the first one and so many flows of the next entry, and then the ring from this number on.
    pub(super) fn of_disk(blocks: impl Into<VecDeque<Stored>>, entries: usize, skip: usize, ring: u64) -> Self {
        Self { disk: blocks.into(), entries, skip, ring, until: ring, ..Self::default() }
    }

    /// Begins the ring later: what is older is not wanted.
    pub(super) fn but_ring_from(self, number: u64) -> Self {
        Self { ring: number, ..self }
    }

    /// Counts what has this number or a later one, and is not found, as lost.
    pub(super) fn expecting(mut self, number: u64) -> Self {
        self.number = Some(number);
        self.leave_disk();
        self
    }

    /// Takes over up to which number losses were noted.
    pub(super) fn noting(self, noted: u64) -> Self {
        Self { noted, ..self }
    }

    pub(super) fn noted(&self) -> u64 {
        self.noted
    }

    /// Whether the disk is to be read next.
    pub(super) fn is_on_disk(&self) -> bool {
        self.open.is_some() || !self.disk.is_empty()
    }

    /// How many flows of the next entry to pass over.
    pub(super) fn take_skip(&mut self) -> usize {
        std::mem::take(&mut self.skip)
    }

    /// The next entry of the disk, and how many were found to be lost before it.
    pub(super) fn next_on_disk(&mut self, own: impl Fn(&Stored) -> bool, times: (i64, i64)) -> (u64, Option<Past>) {
        if let Some(mut open) = self.open.take() {
            let Some((number, entry)) = open.entries.as_mut().and_then(Iterator::next) else {
                let lost = self.close(&open);
                self.leave_disk();
                return (lost, None);
            };
            open.reached = number + 1;
            let decoder = Arc::clone(&open.stored.decoder);
            let is_own = open.own;
            self.open = Some(open);
            let lost = if is_own { self.account(number, &entry) } else { Some(0) };
            return match lost {
                Some(lost) => (lost, Some(Past { decoder, number, entry, skip: self.take_skip() })),
                // It was read before, or the ring has it.
                None => (0, None),
            };
        }
        let Some(stored) = self.disk.pop_front() else { return (0, None) };
        let (own, first) = (own(&stored), stored.numbers().start);
        let passed = std::mem::take(&mut self.entries);
        if stored.overlaps(times) {
            let entries = stored.open().ok().map(|mut entries| {
                entries.by_ref().take(passed).for_each(drop);
                entries
            });
            self.open = Some(Box::new(Open { own, entries, reached: first, stored }));
            return (0, None);
        }
        let lost = if own { self.gap(first) } else { 0 };
        let passed = Open { own, entries: None, reached: stored.numbers().end, stored };
        // Of another time, and so not missing.
        self.close(&passed);
        self.leave_disk();
        (lost, None)
    }

    /// Counts an entry of this run, and what is missing before it; none if it is not to be read.
    fn account(&mut self, number: u64, entry: &Entry) -> Option<u64> {
        if number < self.number.unwrap_or_default() || number >= self.until {
            return None;
        }
        let lost = self.gap(number);
        self.number = Some(number + 1);
        if let Entry::Lost { count, .. } = entry {
            self.noted = number.saturating_add(*count);
        }
        Some(lost)
    }

    /// How many are missing before this number.
    fn gap(&self, number: u64) -> u64 {
        self.number.map_or(0, |next| number.saturating_sub(next.max(self.noted)))
    }

    /// How many of a block could not be read.
    fn close(&mut self, block: &Open) -> u64 {
        let end = block.stored.numbers().end;
        if !block.own {
            return end.saturating_sub(block.reached);
        }
        let end = end.min(self.until);
        let reached = block.reached.max(self.number.unwrap_or_default());
        self.number = Some(end.max(reached));
        end.saturating_sub(reached.max(self.noted))
    }

    /// Goes on in the ring: at once where it is known to follow, and else from what it had when the disk was looked at.
    fn leave_disk(&mut self) {
        if !self.is_on_disk()
            && self.ring == self.until
            && let Some(number) = self.number
        {
            self.ring = number.min(self.ring);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_as_lost_is_not_counted_again() {
        let cursor = |noted| Cursor::of_disk([], 0, 0, 20).noting(noted).expecting(5);
        assert_eq!([0, 9, 30].map(|noted| cursor(noted).gap(12)), [7, 3, 0]);
        assert_eq!(cursor(9).noted(), 9);
    }
}
