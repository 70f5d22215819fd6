// SPDX-License-Identifier: Apache-2.0
//! What is left in the maps when all frontends are known.

use super::Target;
use crate::encode;
use abi::{Addr, lb};
use model::Frontend;
use std::collections::{BTreeMap, BTreeSet};

impl Target {
    /// Removes everything that no desired frontend needs, and no frontend that is still in the map.
    pub(super) fn sweep(&mut self, rows: &BTreeMap<lb::ServiceKey, &Frontend>) -> datapath::Result<()> {
        let mut counts: BTreeMap<u32, u32> = rows.values().map(|row| (row.id, encode::service(row).count)).collect();
        let (marks, frontends): (Vec<_>, Vec<_>) =
            self.maps.services.entries()?.into_iter().partition(|(key, _)| key.is_mark());
        let mut kept_frontends: BTreeMap<lb::ServiceKey, lb::Service> = BTreeMap::new();
        for (key, present) in frontends {
            if rows.contains_key(&key) {
                let count = counts.entry(present.id).or_default();
                *count = present.count.max(*count);
                kept_frontends.insert(key, present);
            } else {
                self.due.peer(key.addr);
                self.maps.services.remove(&key)?;
            }
        }
        let owning = rows.iter().filter(|(_, row)| row.owns_address);
        let addresses: BTreeSet<Addr> = owning.map(|(key, _)| key.addr).collect();
        for (key, _) in marks.into_iter().filter(|(key, _)| !addresses.contains(&key.addr)) {
            self.due.peer(key.addr);
            self.maps.services.remove(&key)?;
        }
        let mut used: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (key, backend) in self.maps.slots.entries()? {
            if counts.get(&key.service).is_some_and(|count| key.is_member() || key.slot < *count) {
                used.entry(key.service).or_default().insert(backend);
            } else {
                self.outdate(backend)?;
                self.maps.slots.remove(&key)?;
            }
        }
        for service in self.ranges.services().into_iter().filter(|service| !counts.contains_key(service)) {
            self.ranges.remove_all(service)?;
        }
        for service in self.tables.services().into_iter().filter(|service| !counts.contains_key(service)) {
            self.tables.remove_all(service)?;
        }
        self.learn(rows, &kept_frontends, &used);
        let kept: BTreeSet<u32> = used.into_values().flatten().collect();
        for id in self.maps.backends.keys()? {
            if !kept.contains(&id) && !self.uses.contains_key(&id) {
                self.remove_backend(id)?;
            }
        }
        self.sweep_ids()?;
        self.pruned = true;
        self.gone.notify_one();
        // What the last process had at frontends that have been updated since: only now is it known.
        let has_excess =
            |row: &&Frontend| self.installed.get(&row.key).is_some_and(|known| !known.excess(row).is_empty());
        let excessive = rows.values().copied().filter(has_excess).collect::<Vec<_>>();
        excessive.into_iter().try_for_each(|row| self.put(row))?;
        self.due.raise(&self.epochs)
    }

    /// Takes over what the maps hold of desired frontends that have not been updated yet, and forgets the others. `used` are backends by
    /// number of the frontend.
    fn learn(
        &mut self,
        rows: &BTreeMap<lb::ServiceKey, &Frontend>,
        present: &BTreeMap<lb::ServiceKey, lb::Service>,
        used: &BTreeMap<u32, BTreeSet<u32>>,
    ) {
        for (key, row) in rows {
            let present = present.get(key).copied();
            self.remember(row, encode::service(row).count);
            self.remember_former(row, present);
            let Some(known) = self.installed.get_mut(&row.key) else { continue };
            let numbers = BTreeSet::from([row.id, present.map_or(row.id, |present| present.id)]);
            known.backends.extend(numbers.iter().filter_map(|id| used.get(id)).flatten());
        }
        self.installed.retain(|frontend, _| rows.contains_key(&encode::service_key(frontend)));
        self.uses.clear();
        for id in self.installed.values().flat_map(|known| &known.backends) {
            *self.uses.entry(*id).or_default() += 1;
        }
    }
}
