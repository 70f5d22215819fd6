// SPDX-License-Identifier: Apache-2.0
//! Slots and members of frontends, and the backends that go with the last of them.

use super::holdings::Use;
use super::{Target, ids};
use crate::encode;
use abi::lb;
use model::{Forwarding, Frontend, FrontendKey};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Target {
    /// Removes what the frontend had under other numbers.
    pub(super) fn drop_former(&mut self, frontend: &FrontendKey) -> datapath::Result<()> {
        let Some(known) = self.installed.get(frontend) else { return Ok(()) };
        let (former, backends) = (known.former.clone(), known.backends.clone());
        for (id, slots) in former {
            self.remove_all_slots(id, slots, &backends)?;
            if let Some(known) = self.installed.get_mut(frontend) {
                known.former.remove(&id);
            }
        }
        Ok(())
    }

    pub(super) fn remove_all_slots(
        &mut self,
        service: u32,
        slots: u32,
        members: &BTreeSet<u32>,
    ) -> datapath::Result<()> {
        self.ranges.remove_all(service)?;
        self.tables.remove_all(service)?;
        self.remove_slots(service, 0..slots)?;
        members.iter().try_for_each(|backend| self.remove_slot(lb::SlotKey::member(service, *backend)))
    }

    pub(super) fn put_slots(&mut self, row: &Frontend) -> datapath::Result<()> {
        let taken: BTreeSet<u32> = encode::slots(row).map(|id| id.0).collect();
        for (slot, backend) in (0..).zip(encode::slots(row)) {
            let key = encode::slot_key(row.id, slot);
            let present = self.maps.slots.get(&key)?;
            if let Some(former) = present.filter(|p| !taken.contains(p)) {
                self.outdate(former)?;
            }
            if present != Some(backend.0) {
                self.maps.slots.insert(&key, &backend.0)?;
            }
        }
        Ok(())
    }

    /// Removes the slots above the count, and the backends that nothing refers to any more.
    pub(super) fn drop_excess(&mut self, row: &Frontend, count: u32) -> datapath::Result<()> {
        let Some(known) = self.installed.get(&row.key) else { return Ok(()) };
        let (excess, slots) = (known.excess(row), known.slots);
        self.remove_slots(row.id, count..slots)?;
        for backend in excess {
            self.remove_slot(lb::SlotKey::member(row.id, backend))?;
            self.release(row.key, backend)?;
        }
        if let Some(known) = self.installed.get_mut(&row.key) {
            known.slots = count;
            // Where the way changes, those that are there stay with their backends.
            known.ids =
                if row.forwarding == Forwarding::Dsr { ids::count(row) } else { known.ids.min(known.direct.len()) };
        }
        Ok(())
    }

    pub(super) fn remove_slots(&mut self, service: u32, slots: std::ops::Range<u32>) -> datapath::Result<()> {
        slots.rev().try_for_each(|slot| self.remove_slot(encode::slot_key(service, slot)))
    }

    pub(super) fn remove_slot(&mut self, key: lb::SlotKey) -> datapath::Result<()> {
        if let Some(value) = self.maps.slots.get(&key)? {
            let backend = encode::backend_of(key, value);
            self.outdate(backend)?;
            if key.is_member() {
                self.forget_id(key.service, backend)?;
            }
            self.maps.slots.remove(&key)?;
            if key.is_member() {
                self.gone.notify_one();
            }
        }
        Ok(())
    }

    /// Flows to the backend were decided when it was one.
    pub(super) fn outdate(&mut self, backend: u32) -> datapath::Result<()> {
        if let Some(backend) = self.maps.backends.get(&backend)? {
            self.due.peer(backend.addr);
        }
        Ok(())
    }

    /// Removes a backend, and what finds it by its address.
    pub(super) fn remove_backend(&mut self, backend: u32) -> datapath::Result<()> {
        let Some(value) = self.maps.backends.get(&backend)? else { return Ok(()) };
        self.due.peer(value.addr);
        self.remove_id(&encode::backend_key(&value), backend)?;
        self.maps.backends.remove(&backend).map(drop)
    }

    /// One use less of a backend; without any it goes.
    pub(super) fn release(&mut self, frontend: FrontendKey, backend: u32) -> datapath::Result<()> {
        if self.users.is_last(backend) && self.pruned {
            self.remove_backend(backend)?;
        }
        let Some(known) = self.installed.get_mut(&frontend) else { return Ok(()) };
        let (had, had_id) = (known.backends.remove(&backend), known.direct.remove(&backend));
        let namespace = Arc::clone(&known.service.namespace);
        for (had, what) in [(had, Use::Backend), (had_id, Use::Id)] {
            if had {
                self.remove_user(what, &namespace, backend);
            }
        }
        Ok(())
    }
}
