// SPDX-License-Identifier: Apache-2.0
//! What is left in the maps when all frontends are known.

use super::{Target, ids};
use crate::encode;
use abi::{Addr, lb};
use model::{Forwarding, Frontend};
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
        let (kept_marks, marks): (Vec<_>, Vec<_>) =
            marks.into_iter().partition(|(key, _)| addresses.contains(&key.addr));
        for (key, _) in marks {
            self.due.peer(key.addr);
            self.maps.services.remove(&key)?;
        }
        let mut used: BTreeMap<u32, Used> = BTreeMap::new();
        for (key, value) in self.maps.slots.entries()? {
            let backend = encode::backend_of(key, value);
            if counts.get(&key.service).is_some_and(|count| key.is_member() || key.slot < *count) {
                used.entry(key.service).or_default().add(key, backend);
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
        self.recount(kept_marks.len());
        let kept: BTreeSet<u32> = used.into_values().flat_map(|used| used.backends).collect();
        for id in self.maps.backends.keys()? {
            if !kept.contains(&id) && !self.users.contains(id) {
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

    /// Takes over what the maps hold of desired frontends that have not been updated yet, and forgets the others. `used` is by number of the
    /// frontend.
    fn learn(
        &mut self,
        rows: &BTreeMap<lb::ServiceKey, &Frontend>,
        present: &BTreeMap<lb::ServiceKey, lb::Service>,
        used: &BTreeMap<u32, Used>,
    ) {
        for (key, row) in rows {
            let present = present.get(key).copied();
            let numbers = BTreeSet::from([row.id, present.map_or(row.id, |present| present.id)]);
            let held: Vec<&Used> = numbers.iter().filter_map(|id| used.get(id)).collect();
            let others = self.ranges.count(row.id) + self.tables.count(row.id);
            if present.is_none() && held.is_empty() && others == 0 && !self.installed.contains_key(&row.key) {
                // Nothing of it came in so far.
                continue;
            }
            let known = self.know(row);
            known.slots = known.slots.max(used.get(&row.id).map_or(0, |used| used.slots));
            known.backends.extend(held.iter().flat_map(|used| &used.backends));
            if row.forwarding == Forwarding::Dsr {
                known.direct.clone_from(&known.backends);
                known.ids = known.ids.max(ids::count(row));
            }
            self.remember_former(row, present);
        }
        self.installed.retain(|frontend, _| rows.contains_key(&encode::service_key(frontend)));
    }
}

/// What the slots of a frontend hold.
#[derive(Debug, Default)]
struct Used {
    /// One more than the last of those that are no members'.
    slots: u32,
    backends: BTreeSet<u32>,
}

impl Used {
    fn add(&mut self, key: lb::SlotKey, backend: u32) {
        self.backends.insert(backend);
        if !key.is_member() {
            self.slots = self.slots.max(key.slot.saturating_add(1));
        }
    }
}
