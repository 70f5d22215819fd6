// SPDX-License-Identifier: Apache-2.0
//! What is known to be in the maps, frontend by frontend.

use super::holdings::Use;
use super::shares::Entries;
use super::{Target, ids};
use abi::lb;
use model::{Forwarding, Frontend, ServiceName};
use std::collections::{BTreeMap, BTreeSet};

/// What the maps may hold of a frontend: at least what is there, so that a failed write leaves nothing behind.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) service: ServiceName,
    pub(super) id: u32,
    pub(super) owns_address: bool,
    pub(super) slots: u32,
    /// Numbers that it had before, with their slots.
    pub(super) former: BTreeMap<u32, u32>,
    pub(super) backends: BTreeSet<u32>,
    /// Those of them whose ids are found by address.
    pub(super) direct: BTreeSet<u32>,
    /// At how many addresses the frontend itself finds one.
    pub(super) ids: usize,
    /// What it is charged for, but for backends, which frontends of a namespace share.
    pub(super) taken: Entries,
}

impl Installed {
    /// Backends that the maps may hold at the frontend and that are none of its.
    pub(super) fn excess(&self, row: &Frontend) -> Vec<u32> {
        let wanted: BTreeSet<u32> = row.backends.iter().map(|backend| backend.id.0).collect();
        self.backends.difference(&wanted).copied().collect()
    }
}

impl Target {
    /// Notes what the maps are about to hold.
    pub(super) fn remember(&mut self, row: &Frontend, slots: u32) {
        let known = self.know(row);
        known.slots = known.slots.max(slots);
        known.ids = known.ids.max(ids::count(row));
        let ids = || row.backends.iter().map(|b| b.id.0);
        let new: Vec<u32> = ids().filter(|id| known.backends.insert(*id)).collect();
        let is_direct = row.forwarding == Forwarding::Dsr;
        let direct: Vec<u32> = ids().filter(|id| is_direct && known.direct.insert(*id)).collect();
        new.into_iter().for_each(|id| self.add_user(Use::Backend, &row.service.namespace, id));
        direct.into_iter().for_each(|id| self.add_user(Use::Id, &row.service.namespace, id));
    }

    /// What is known of the frontend, under its present number and Service.
    pub(super) fn know(&mut self, row: &Frontend) -> &mut Installed {
        self.hand_over(row);
        let known = self.installed.entry(row.key).or_insert_with(|| Installed {
            service: row.service.clone(),
            id: row.id,
            owns_address: row.owns_address,
            slots: 0,
            former: BTreeMap::new(),
            backends: BTreeSet::new(),
            direct: BTreeSet::new(),
            ids: 0,
            taken: Entries::default(),
        });
        known.service.clone_from(&row.service);
        known.owns_address |= row.owns_address;
        if known.id != row.id {
            known.former.insert(known.id, known.slots);
            (known.id, known.slots) = (row.id, 0);
        }
        known
    }

    /// Notes under which number the map has the frontend, should that be another.
    pub(super) fn remember_former(&mut self, row: &Frontend, present: Option<lb::Service>) {
        let former = present.filter(|present| present.id != row.id);
        if let Some((known, former)) = self.installed.get_mut(&row.key).zip(former) {
            let slots = known.former.entry(former.id).or_default();
            *slots = former.count.max(*slots);
        }
    }
}
