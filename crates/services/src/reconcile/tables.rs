// SPDX-License-Identifier: Apache-2.0
//! The map of lookup tables, in parts.

use crate::maglev::Maglev;
use abi::{lb, maps};
use datapath::Map;
use model::{Algorithm, Frontend};
use std::collections::BTreeMap;

/// The map, and how many parts of each service it may hold.
#[derive(Debug)]
pub(super) struct Tables {
    map: Map<maps::Maglev>,
    maglev: Maglev,
    held: BTreeMap<u32, u32>,
}

impl Tables {
    pub(super) fn read(map: Map<maps::Maglev>, maglev: Maglev) -> datapath::Result<Self> {
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for key in map.keys()? {
            let count = held.entry(key.service).or_default();
            *count = (*count).max(key.part.saturating_add(1));
        }
        Ok(Self { map, maglev, held })
    }

    /// Writes the table of a frontend that chooses by one.
    pub(super) fn put(&mut self, row: &Frontend) -> datapath::Result<()> {
        if row.algorithm != Algorithm::Maglev {
            return Ok(());
        }
        for (part, value) in (0..).zip(self.maglev.parts(row.takers())) {
            let count = self.held.entry(row.id).or_default();
            *count = (*count).max(part + 1);
            super::write(&self.map, &lb::MaglevKey { service: row.id, part }, &value)?;
        }
        Ok(())
    }

    /// Removes the table of a frontend that has none any more, and what is behind its end.
    pub(super) fn trim(&mut self, row: &Frontend) -> datapath::Result<()> {
        self.remove(row.id, if self.count_of(row) > 0 { self.parts() } else { 0 })
    }

    /// Removes what a service has.
    pub(super) fn remove_all(&mut self, service: u32) -> datapath::Result<()> {
        self.remove(service, 0)
    }

    /// How many parts it may hold of a service.
    pub(super) fn count(&self, service: u32) -> usize {
        self.held.get(&service).map_or(0, |parts| usize::try_from(*parts).unwrap_or(usize::MAX))
    }

    /// How many parts it may hold of all.
    pub(super) fn total(&self) -> usize {
        self.held.keys().map(|service| self.count(*service)).sum()
    }

    /// How many parts a frontend wants.
    pub(super) fn count_of(&self, row: &Frontend) -> usize {
        let has_table = row.algorithm == Algorithm::Maglev && row.takers().next().is_some();
        if has_table { usize::try_from(self.parts()).unwrap_or(usize::MAX) } else { 0 }
    }

    fn parts(&self) -> u32 {
        self.maglev.size.div_ceil(crate::encode::len(lb::MAGLEV_PART))
    }

    /// The services of which it may hold something.
    pub(super) fn services(&self) -> Vec<u32> {
        self.held.keys().copied().collect()
    }

    /// Removes parts from the end, until as many are left.
    fn remove(&mut self, service: u32, left: u32) -> datapath::Result<()> {
        while let Some(count) = self.held.get(&service).copied().filter(|count| *count > left) {
            self.map.remove(&lb::MaglevKey { service, part: count - 1 })?;
            self.held.insert(service, count - 1);
        }
        if left == 0 {
            self.held.remove(&service);
        }
        Ok(())
    }
}
