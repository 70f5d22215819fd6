// SPDX-License-Identifier: Apache-2.0
//! Who goes without when a map is nearly full: a namespace that has more than its share of it gets no more entries, while all others do. Below
//! the mark nobody is limited, and nobody loses what it has. It knows no map, only how much of each is taken.

use abi::MapDef as _;
use abi::maps::{BackendIds, Backends, Maglev, Services, Slots, SourceRanges};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The maps that are shared out, in the order of [`Entries::each`].
const NAMES: [&str; 6] =
    [Services::NAME, Slots::NAME, Backends::NAME, BackendIds::NAME, SourceRanges::NAME, Maglev::NAME];

/// So many entries of each map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) services: usize,
    pub(super) slots: usize,
    pub(super) backends: usize,
    pub(super) ids: usize,
    pub(super) ranges: usize,
    pub(super) tables: usize,
}

impl Entries {
    const fn each(&self) -> [usize; NAMES.len()] {
        [self.services, self.slots, self.backends, self.ids, self.ranges, self.tables]
    }

    /// What it is more than another.
    pub(super) fn beyond(self, other: Self) -> Self {
        let [services, slots, backends, ids, ranges, tables] = moved(self.each(), other.each(), [0; NAMES.len()]);
        Self { services, slots, backends, ids, ranges, tables }
    }
}

/// Numbers from which some have been taken and to which others have been added.
fn moved<const N: usize>(mut all: [usize; N], before: [usize; N], now: [usize; N]) -> [usize; N] {
    for ((one, before), now) in all.iter_mut().zip(before).zip(now) {
        *one = one.saturating_add(now).saturating_sub(before);
    }
    all
}

/// Why a frontend gets no more entries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The namespace has its share.
    #[error(
        "map {map} is nearly full ({taken} of {capacity} entries), and namespace {namespace} has {has} of them already, with a share of {share}"
    )]
    Share {
        /// Name of the map.
        map: &'static str,
        /// How many entries it has.
        taken: usize,
        /// How many it can have.
        capacity: usize,
        /// The namespace.
        namespace: Arc<str>,
        /// How many of them it has.
        has: usize,
        /// What each namespace may have of a map that is nearly full.
        share: usize,
    },
    /// The maps have been found as they are, and it is not known yet whose entries those are.
    #[error("map {map} is nearly full ({taken} of {capacity} entries), and it is not known yet with whose")]
    Unknown {
        /// Name of the map.
        map: &'static str,
        /// How many entries it has.
        taken: usize,
        /// How many it can have.
        capacity: usize,
    },
}

/// What of the maps is taken, and by whom.
#[derive(Debug)]
pub(super) struct Shares {
    maps: [Shared; NAMES.len()],
    namespaces: BTreeMap<Arc<str>, [usize; NAMES.len()]>,
    /// Whether all entries are somebody's.
    known: bool,
}

#[derive(Debug, Default)]
struct Shared {
    name: &'static str,
    capacity: usize,
    /// How many it had when it was found.
    found: usize,
    taken: usize,
    /// How many namespaces have some of them.
    holders: usize,
    /// Somebody was refused since there was last much room.
    refused: bool,
}

impl Shares {
    /// With what the maps can have, and what they were found to have.
    pub(super) fn new(capacity: Entries, found: Entries) -> Self {
        let mut maps = NAMES.map(|name| Shared { name, ..Shared::default() });
        for ((map, capacity), found) in maps.iter_mut().zip(capacity.each()).zip(found.each()) {
            (map.capacity, map.found) = (capacity, found);
        }
        Self { maps, namespaces: BTreeMap::new(), known: false }
    }

    /// From now on all entries are somebody's, of which nobody's are known so far.
    pub(super) fn begin(&mut self) {
        self.known = true;
        self.namespaces.clear();
        for map in &mut self.maps {
            (map.found, map.taken, map.holders) = (0, 0, 0);
        }
    }

    /// The maps have these entries instead of those.
    pub(super) fn take(&mut self, before: Entries, now: Entries) {
        for ((map, before), now) in self.maps.iter_mut().zip(before.each()).zip(now.each()) {
            map.taken = map.taken.saturating_add(now).saturating_sub(before);
        }
    }

    /// A namespace has these of them instead of those.
    pub(super) fn charge(&mut self, namespace: &Arc<str>, before: Entries, now: Entries) {
        let had = self.of(namespace);
        let has = moved(had, before.each(), now.each());
        for ((map, had), has) in self.maps.iter_mut().zip(had).zip(has) {
            map.holders = map.holders.saturating_add(usize::from(has > 0)).saturating_sub(usize::from(had > 0));
        }
        if has.iter().all(|has| *has == 0) {
            self.namespaces.remove(namespace);
        } else {
            self.namespaces.insert(Arc::clone(namespace), has);
        }
    }

    /// Whether a namespace may have so many more entries.
    pub(super) fn admit(&mut self, namespace: &Arc<str>, more: Entries) -> Result<(), Refusal> {
        let (known, has) = (self.known, self.of(namespace));
        for ((map, more), has) in self.maps.iter_mut().zip(more.each()).zip(has) {
            map.admit(more, has, known.then_some(namespace)).inspect_err(|_| map.refused = true)?;
        }
        Ok(())
    }

    /// Whether so many more entries are below the mark of each map, so that there is nothing to share out.
    pub(super) fn have_room(&self, more: Entries) -> bool {
        self.maps.iter().zip(more.each()).all(|(map, more)| map.has_room(more))
    }

    /// Somebody found a map full.
    pub(super) fn note_full(&mut self, map: &str) {
        self.maps.iter_mut().filter(|shared| shared.name == map).for_each(|shared| shared.refused = true);
    }

    /// Whether there is much room again in a map of which somebody was refused some, or that was full; says so once.
    pub(super) fn has_made_room(&mut self) -> bool {
        let mut has_made_room = false;
        for map in self.maps.iter_mut().filter(|map| map.refused && map.taken() <= map.low()) {
            (map.refused, has_made_room) = (false, true);
        }
        has_made_room
    }

    /// What the maps have, and the namespaces that have some of it.
    #[cfg(test)]
    pub(super) fn all(&self) -> ([usize; NAMES.len()], Vec<Arc<str>>) {
        (self.maps.each_ref().map(|map| map.taken), self.namespaces.keys().cloned().collect())
    }

    fn of(&self, namespace: &str) -> [usize; NAMES.len()] {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }
}

impl Shared {
    /// Up to here nobody is limited.
    const fn mark(&self) -> usize {
        self.capacity - self.capacity / 8
    }

    /// From here on there is room for more than the next one. Some way below the mark, so that whoever comes and goes around it has nobody else tried
    /// again each time.
    const fn low(&self) -> usize {
        self.capacity - self.capacity / 8 - self.capacity / 32
    }

    fn taken(&self) -> usize {
        self.taken.max(self.found)
    }

    fn has_room(&self, more: usize) -> bool {
        more == 0 || self.taken().saturating_add(more) <= self.mark()
    }

    fn admit(&self, more: usize, has: usize, namespace: Option<&Arc<str>>) -> Result<(), Refusal> {
        if self.has_room(more) {
            return Ok(());
        }
        let (map, taken, capacity) = (self.name, self.taken(), self.capacity);
        let Some(namespace) = namespace else { return Err(Refusal::Unknown { map, taken, capacity }) };
        let holders = self.holders.saturating_add(usize::from(has == 0));
        let share = capacity.checked_div(holders).unwrap_or(capacity);
        // Who has it all alone finds out from the kernel that it is full.
        if holders <= 1 || has.saturating_add(more) <= share {
            return Ok(());
        }
        Err(Refusal::Share { map, taken, capacity, namespace: Arc::clone(namespace), has, share })
    }
}

#[cfg(test)]
mod tests;
