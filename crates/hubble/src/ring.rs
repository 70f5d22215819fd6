// SPDX-License-Identifier: Apache-2.0
//! The last events of the node, so many at most and so many bytes at most. The writer never waits: a reader that is too slow is told how
//! much it missed.

use std::collections::{HashMap, VecDeque};
use std::mem::size_of;

/// What knows how much memory it takes beyond its own size.
pub(crate) trait Weigh {
    /// Bytes of its own.
    fn own(&self) -> usize;
    /// Calls `each` with the address, and the bytes, of what it shares with others.
    fn shared(&self, each: &mut impl FnMut(usize, &dyn Fn() -> usize));
}

/// A ring of consecutively numbered entries. One slot is reserved for the writer, so a ring of 2^n slots holds 2^n-1
/// entries.
pub(crate) struct Ring<T> {
    entries: VecDeque<T>,
    capacity: usize,
    limit: usize,
    next: u64,
    weight: Weight,
}

/// What a reader finds at a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    /// The entry.
    Entry(T),
    /// The entry was overwritten: this many are lost, and the oldest remaining one has this number.
    Lost {
        /// How many.
        count: u64,
        /// Where to continue.
        oldest: u64,
    },
    /// Nothing was written there yet.
    End,
}

impl<T: Clone + Weigh> Ring<T> {
    /// A ring of `capacity` entries that take no more than `limit` bytes, unless the last one alone does. Room for all is taken at once.
    pub(crate) fn new(capacity: u16, limit: usize) -> Self {
        let capacity = usize::from(capacity);
        let entries = VecDeque::with_capacity(capacity + 1);
        Self { entries, capacity, limit, next: 0, weight: Weight::default() }
    }

    /// Writes an entry in place of the oldest ones.
    pub(crate) fn push(&mut self, entry: T) {
        self.weight.add(&entry);
        self.entries.push_back(entry);
        self.next += 1;
        while self.entries.len() > self.capacity || (self.weight.bytes > self.limit && self.entries.len() > 1) {
            if let Some(oldest) = self.entries.pop_front() {
                self.weight.remove(&oldest);
            }
        }
    }

    /// The number of the next entry to be written.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The number of the oldest entry.
    pub(crate) fn oldest(&self) -> u64 {
        self.next - self.len()
    }

    /// How many entries the ring can hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// How many entries it holds.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// How many bytes they take, what they share counted once.
    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes
    }

    /// Reads one entry.
    pub(crate) fn read(&self, number: u64) -> Read<T> {
        let oldest = self.oldest();
        if number < oldest {
            return Read::Lost { count: oldest - number, oldest };
        }
        usize::try_from(number - oldest)
            .ok()
            .and_then(|at| self.entries.get(at))
            .cloned()
            .map_or(Read::End, Read::Entry)
    }

    /// All entries, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.entries.iter()
    }
}

/// The bytes of entries.
#[derive(Default)]
struct Weight {
    bytes: usize,
    /// What is shared: by its address, how many times an entry has it.
    shared: HashMap<usize, u32>,
}

impl Weight {
    fn add<T: Weigh>(&mut self, entry: &T) {
        self.bytes += size_of::<T>() + entry.own();
        entry.shared(&mut |address, size| {
            let count = self.shared.entry(address).or_insert(0);
            if *count == 0 {
                self.bytes += size();
            }
            *count += 1;
        });
    }

    /// An entry that was added; what it shares is alive as long as it is.
    fn remove<T: Weigh>(&mut self, entry: &T) {
        self.bytes -= size_of::<T>() + entry.own();
        entry.shared(&mut |address, size| {
            let Some(count) = self.shared.get_mut(&address) else { return };
            *count -= 1;
            if *count == 0 {
                self.shared.remove(&address);
                self.bytes -= size();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Read, Ring, Weigh};
    use proptest::prelude::*;
    use std::mem::size_of;
    use std::sync::Arc;

    const PLENTY: usize = 1 << 30;

    impl Weigh for u64 {
        fn own(&self) -> usize {
            0
        }

        fn shared(&self, _: &mut impl FnMut(usize, &dyn Fn() -> usize)) {}
    }

    /// An entry with bytes of its own and a text that others may have, too.
    #[derive(Clone)]
    struct Note(usize, Arc<str>);

    impl Weigh for Note {
        fn own(&self) -> usize {
            self.0
        }

        fn shared(&self, each: &mut impl FnMut(usize, &dyn Fn() -> usize)) {
            each(Arc::as_ptr(&self.1).addr(), &|| self.1.len());
        }
    }

    #[test]
    fn an_empty_ring_has_an_end_and_nothing_lost() {
        let ring = Ring::<u64>::new(3, PLENTY);
        assert_eq!((ring.len(), ring.oldest(), ring.next()), (0, 0, 0));
        assert_eq!(ring.read(0), Read::End);
    }

    #[test]
    fn a_slow_reader_learns_how_many_it_lost_and_reads_on_at_the_oldest() {
        let mut ring = Ring::new(3, PLENTY);
        for n in 0..10_u64 {
            ring.push(n);
        }
        assert_eq!((ring.len(), ring.oldest(), ring.next()), (3, 7, 10));
        assert_eq!(ring.read(2), Read::Lost { count: 5, oldest: 7 });
        assert_eq!(ring.read(7), Read::Entry(7));
        assert_eq!(ring.read(9), Read::Entry(9));
        assert_eq!(ring.read(10), Read::End);
    }

    #[test]
    fn a_ring_that_is_full_of_bytes_gives_up_its_oldest_entries() {
        let each = size_of::<Note>() + 100;
        let mut ring = Ring::new(1023, 10 * each + 5);
        let shared: Arc<str> = "label".into();
        (0..50).for_each(|_| ring.push(Note(100, Arc::clone(&shared))));
        assert_eq!((ring.len(), ring.oldest(), ring.bytes()), (10, 40, 10 * each + 5));
        assert!(matches!(ring.read(39), Read::Lost { count: 1, oldest: 40 }));
        // One that is larger than all of it is kept alone.
        ring.push(Note(1 << 20, "other".into()));
        assert_eq!((ring.len(), ring.oldest()), (1, 50));
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_the_entries_held_and_of_what_they_share_once(
            entries in prop::collection::vec((0_usize..200, 0_usize..6), 1..80),
            limit in 1_usize..2000,
        ) {
            let texts: Vec<Arc<str>> = (0..6).map(|n| Arc::from("x".repeat(n * 31))).collect();
            let mut ring = Ring::new(15, limit);
            for (own, text) in entries {
                ring.push(Note(own, Arc::clone(&texts[text])));
                let own: usize = ring.iter().map(|note| size_of::<Note>() + note.0).sum();
                let seen = texts.iter().filter(|text| ring.iter().any(|note| Arc::ptr_eq(&note.1, text)));
                prop_assert_eq!(ring.bytes(), own + seen.map(|text| text.len()).sum::<usize>());
                prop_assert!(ring.bytes() <= limit || ring.len() == 1);
            }
        }

        #[test]
        fn the_ring_holds_exactly_the_last_entries(bits in 0_u16..8, pushes in 0_u64..600) {
            let capacity = (1 << bits) - 1_u16;
            prop_assume!(capacity > 0);
            let mut ring = Ring::new(capacity, PLENTY);
            for n in 0..pushes {
                ring.push(n);
            }
            let want: Vec<u64> = (pushes.saturating_sub(u64::from(capacity))..pushes).collect();
            prop_assert_eq!(ring.iter().copied().collect::<Vec<_>>(), want.clone());
            prop_assert_eq!(ring.len(), want.len() as u64);
            for n in 0..pushes {
                let held = matches!(ring.read(n), Read::Entry(m) if m == n);
                prop_assert_eq!(held, want.contains(&n));
            }
        }
    }
}
