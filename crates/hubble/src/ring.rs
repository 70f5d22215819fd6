// SPDX-License-Identifier: Apache-2.0
//! The node's most recent events. The writer never waits: a slow reader is told how many it missed.

/// A ring of consecutively numbered entries. One slot is reserved for the writer, so a ring of 2^n slots holds 2^n-1
/// entries.
pub(crate) struct Ring<T> {
    slots: Box<[Option<T>]>,
    next: u64,
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

impl<T: Clone> Ring<T> {
    /// A ring that holds `capacity` entries; its memory is allocated up front.
    pub(crate) fn new(capacity: u16) -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(usize::from(capacity) + 1).collect(), next: 0 }
    }

    /// Writes an entry, overwriting the oldest one.
    pub(crate) fn push(&mut self, entry: T) {
        let slot = self.slot(self.next);
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Some(entry);
            self.next += 1;
        }
    }

    /// The number of the next entry to be written.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The number of the oldest entry.
    pub(crate) fn oldest(&self) -> u64 {
        self.next.saturating_sub(self.capacity())
    }

    /// How many entries the ring can hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.slots.len() as u64 - 1
    }

    /// How many entries it holds.
    pub(crate) fn len(&self) -> u64 {
        self.next - self.oldest()
    }

    /// Reads one entry.
    pub(crate) fn read(&self, number: u64) -> Read<T> {
        let oldest = self.oldest();
        if number < oldest {
            return Read::Lost { count: oldest - number, oldest };
        }
        if number >= self.next {
            return Read::End;
        }
        self.slots.get(self.slot(number)).cloned().flatten().map_or(Read::End, Read::Entry)
    }

    /// All entries, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        (self.oldest()..self.next).filter_map(|number| self.slots.get(self.slot(number)).and_then(Option::as_ref))
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than the number of slots, which is a usize")]
    fn slot(&self, number: u64) -> usize {
        (number % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Read, Ring};
    use proptest::prelude::*;

    #[test]
    fn an_empty_ring_has_an_end_and_nothing_lost() {
        let ring = Ring::<u64>::new(3);
        assert_eq!((ring.len(), ring.oldest(), ring.next()), (0, 0, 0));
        assert_eq!(ring.read(0), Read::End);
    }

    #[test]
    fn a_slow_reader_learns_how_many_it_lost_and_reads_on_at_the_oldest() {
        let mut ring = Ring::new(3);
        for n in 0..10 {
            ring.push(n);
        }
        assert_eq!((ring.len(), ring.oldest(), ring.next()), (3, 7, 10));
        assert_eq!(ring.read(2), Read::Lost { count: 5, oldest: 7 });
        assert_eq!(ring.read(7), Read::Entry(7));
        assert_eq!(ring.read(9), Read::Entry(9));
        assert_eq!(ring.read(10), Read::End);
    }

    proptest! {
        #[test]
        fn the_ring_holds_exactly_the_last_entries(bits in 0_u16..8, pushes in 0_u64..600) {
            let capacity = (1 << bits) - 1_u16;
            prop_assume!(capacity > 0);
            let mut ring = Ring::new(capacity);
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
