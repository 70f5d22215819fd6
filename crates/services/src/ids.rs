// SPDX-License-Identifier: Apache-2.0
//! Numbers of services and backends in the maps. A number belongs to an address for as long as somebody uses it, over
//! restarts too: the pinned maps are read before the first number is given out.

use abi::lb::{DENIED, DRAINS, MEMBER};
use std::collections::{BTreeMap, BTreeSet};

/// The highest number: in keys and values of the maps the bit above says something else.
const LAST: u32 = !(DENIED | DRAINS | MEMBER);

/// Gives each key a number that no other key has.
#[derive(Debug)]
pub(crate) struct Ids<K> {
    entries: BTreeMap<K, Entry>,
    taken: BTreeSet<u32>,
    last: u32,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    uses: usize,
}

impl<K: Ord + Clone> Ids<K> {
    /// Starts from what the maps hold. Of two keys with one number the first keeps it.
    pub(crate) fn restore(known: impl IntoIterator<Item = (K, u32)>) -> Self {
        let mut ids = Self { entries: BTreeMap::new(), taken: BTreeSet::new(), last: 0 };
        for (key, id) in known {
            if (1..=LAST).contains(&id) && !ids.entries.contains_key(&key) && ids.taken.insert(id) {
                ids.last = ids.last.max(id);
                ids.entries.insert(key, Entry { id, uses: 0 });
            }
        }
        ids
    }

    /// The number of the key, for one more user.
    pub(crate) fn claim(&mut self, key: &K) -> u32 {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.uses += 1;
            return entry.id;
        }
        let id = self.next();
        self.entries.insert(key.clone(), Entry { id, uses: 1 });
        id
    }

    /// One user less; without users the number is free.
    pub(crate) fn release(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses == 0 {
            self.taken.remove(&entry.id);
            self.entries.remove(key);
        }
    }

    /// Frees every restored number that nobody has claimed.
    pub(crate) fn forget_unclaimed(&mut self) {
        self.entries.retain(|_, entry| entry.uses > 0);
        self.taken = self.entries.values().map(|entry| entry.id).collect();
    }

    /// Counts on from the last number, so that a freed one comes back as late as possible: whoever still holds it (an
    /// entry whose removal is being retried) is gone by then.
    fn next(&mut self) -> u32 {
        loop {
            self.last = self.last % LAST + 1;
            if self.taken.insert(self.last) {
                return self.last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ids, LAST};
    use abi::lb::{DENIED, MEMBER, SlotKey, SourceRangeKey};

    #[test]
    fn a_key_keeps_its_number_for_as_long_as_it_is_used() {
        let mut ids = Ids::restore([]);
        assert_eq!((ids.claim(&"a"), ids.claim(&"b"), ids.claim(&"a")), (1, 2, 1));
        ids.release(&"a");
        assert_eq!(ids.claim(&"a"), 1);
        ids.release(&"a");
        ids.release(&"a");
        assert_eq!(ids.claim(&"a"), 3, "a freed number is not given out again at once");
    }

    #[test]
    fn restored_numbers_are_kept_until_they_are_forgotten() {
        let mut ids = Ids::restore([("a", 7), ("b", 7), ("c", 9), ("d", 0)]);
        assert_eq!(ids.claim(&"a"), 7);
        assert_eq!(ids.claim(&"b"), 10, "a number taken twice stays with the first");
        ids.forget_unclaimed();
        assert_eq!(ids.claim(&"c"), 11);
        assert_eq!(ids.claim(&"a"), 7);
    }

    #[test]
    fn counting_wraps_around_zero_and_skips_what_is_taken() {
        let mut ids = Ids::restore([("a", u32::MAX), ("b", 1)]);
        assert_eq!(ids.claim(&"c"), 2);
        let mut ids = Ids::restore([("a", LAST), ("b", 1)]);
        assert_eq!(ids.claim(&"c"), 2);
    }

    #[test]
    fn no_number_looks_like_another_in_the_keys_of_the_maps() {
        let mut ids = Ids::restore([("a", LAST - 1), ("b", LAST + 2)]);
        for key in ["b", "c", "d"] {
            let id = ids.claim(&key);
            assert_eq!(SourceRangeKey::new(id, true, [0; 16]).id(), id);
            assert_ne!(SourceRangeKey::new(id, false, [0; 16]).service & DENIED, DENIED);
            assert_eq!(SlotKey::member(0, id).slot & !MEMBER, id);
        }
    }
}
