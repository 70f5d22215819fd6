// SPDX-License-Identifier: Apache-2.0
//! Finds where the last so many flows begin that a client wants: backwards through the ring, then through the blocks on disk.

use super::Query;
use super::cursor::Cursor;
use crate::decode::{Decoder, Record};
use crate::history::Stored;
use crate::ring::Read;
use crate::store::{Entry, Store};
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries of the ring that are looked at in one go.
const LOOK: usize = 1024;

pub(super) struct Search {
    /// The oldest entry of the ring that was looked at.
    number: u64,
    missing: u64,
    /// Once the ring has been searched, the blocks that have not.
    disk: Option<Vec<Stored>>,
    /// Those that have, oldest first.
    passed: VecDeque<Stored>,
}

/// How far it came.
pub(super) enum Found {
    /// Not far enough.
    Not,
    /// What has this number is to get to the disk first.
    Later(u64),
    Here(Cursor),
}

impl Search {
    /// For so many flows before this number.
    pub(super) fn new(number: u64, missing: u64) -> Self {
        Self { number, missing, disk: None, passed: VecDeque::new() }
    }

    pub(super) fn go_on(&mut self, store: &Store, query: &Query, waited: bool) -> Found {
        match &mut self.disk {
            None => self.ring(store, query, waited),
            Some(blocks) => match blocks.pop() {
                Some(block) => self.block(block, store, query),
                None => Found::Here(self.from(0, 0)),
            },
        }
    }

    fn ring(&mut self, store: &Store, query: &Query, waited: bool) -> Found {
        for _ in 0..LOOK {
            let Some(before) = self.number.checked_sub(1) else { return self.before_the_ring(store, query, waited) };
            let Read::Entry(entry) = store.read(before) else { return self.before_the_ring(store, query, waited) };
            self.number = before;
            if let Entry::Event(record) = entry
                && let Some(skip) = last(&store.decoder, before, &record, query, &mut self.missing)
            {
                return Found::Here(Cursor::of_ring(before, skip));
            }
        }
        Found::Not
    }

    fn before_the_ring(&mut self, store: &Store, query: &Query, waited: bool) -> Found {
        let Some(history) = query.history(store) else { return Found::Here(Cursor::of_ring(self.number, 0)) };
        match self.number.checked_sub(1) {
            Some(before) if !waited && history.lags(before) => Found::Later(before),
            _ => {
                self.disk = Some(history.select(0..self.number));
                Found::Not
            }
        }
    }

    fn block(&mut self, block: Stored, store: &Store, query: &Query) -> Found {
        let entries: Vec<_> =
            if block.overlaps(query.times()) { block.open().into_iter().flatten().collect() } else { Vec::new() };
        let (decoder, own) = (Arc::clone(&block.decoder), store.is_own(&block));
        self.passed.push_front(block);
        for (at, (number, entry)) in entries.iter().enumerate().rev() {
            if (!own || *number < self.number)
                && let Entry::Event(record) = entry
                && let Some(skip) = last(&decoder, *number, record, query, &mut self.missing)
            {
                return Found::Here(self.from(at, skip));
            }
        }
        Found::Not
    }

    /// From the blocks that were searched on, but for so many entries of the first one and so many flows of the next entry.
    fn from(&mut self, entries: usize, skip: usize) -> Cursor {
        Cursor::of_disk(std::mem::take(&mut self.passed), entries, skip, self.number)
    }
}

/// Counts the flows of an event that are wanted, from its last on; when none is missing any more, how many are before that.
fn last(decoder: &Decoder, number: u64, record: &Record, query: &Query, missing: &mut u64) -> Option<usize> {
    for (index, flow) in decoder.decode(number, record).iter().enumerate().rev() {
        *missing -= u64::from(query.wants(flow, record.time));
        if *missing == 0 {
            return Some(index);
        }
    }
    None
}
