// SPDX-License-Identifier: Apache-2.0
//! What frontends hold of the maps, by which their namespaces have more or less than their shares.

use super::installed::Installed;
use super::shares::{Entries, Refusal};
use super::{Target, ids};
use crate::encode;
use abi::lb;
use datapath::Map;
use model::{BackendState, Forwarding, Frontend, FrontendKey, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a frontend is not in the maps as it is to be.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] datapath::Error),
    /// Others are to have what is left.
    #[error(transparent)]
    Share(#[from] Refusal),
    /// It would send clients on to what is not there.
    #[error("its frontend for clients inside of the cluster is not there yet")]
    Alone,
}

impl Cause {
    /// Whether its author can do something about it.
    pub(super) const fn is_lack(&self) -> bool {
        matches!(self, Self::Share(Refusal::Share { .. }) | Self::Kernel(datapath::Error::MapFull { .. }))
    }
}

/// What frontends use of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Itself.
    Backend,
    /// Its id by address and port.
    Id,
}

impl Use {
    const fn one(self) -> Entries {
        match self {
            Self::Backend => Entries { backends: 1, ..NONE },
            Self::Id => Entries { ids: 1, ..NONE },
        }
    }
}

/// How many frontends use each backend.
#[derive(Debug, Default)]
pub(super) struct Users {
    all: BTreeMap<u32, usize>,
    by_namespace: BTreeMap<(Arc<str>, u32), usize>,
}

impl Users {
    pub(super) fn contains(&self, backend: u32) -> bool {
        self.all.contains_key(&backend)
    }

    /// Whether nobody would be left if one went.
    pub(super) fn is_last(&self, backend: u32) -> bool {
        self.all.get(&backend).is_none_or(|uses| *uses <= 1)
    }

    fn has(&self, namespace: &Arc<str>, backend: u32) -> bool {
        self.by_namespace.contains_key(&(Arc::clone(namespace), backend))
    }
}

/// One use more; whether it is the first.
fn more<K: Ord>(uses: &mut BTreeMap<K, usize>, key: K) -> bool {
    let count = uses.entry(key).or_default();
    *count += 1;
    *count == 1
}

/// One use less; whether it was the last.
fn fewer<K: Ord>(uses: &mut BTreeMap<K, usize>, key: &K) -> bool {
    let Some(count) = uses.get_mut(key) else { return false };
    *count = count.saturating_sub(1);
    let is_last = *count == 0;
    if is_last {
        uses.remove(key);
    }
    is_last
}

const NONE: Entries = Entries { services: 0, slots: 0, backends: 0, ids: 0, ranges: 0, tables: 0 };
const ONE_SERVICE: Entries = Entries { services: 1, ..NONE };

impl Target {
    /// What the maps can have.
    pub(super) fn capacity(maps: &super::Maps) -> Entries {
        let size = |entries: u32| usize::try_from(entries).unwrap_or(usize::MAX);
        Entries {
            services: size(maps.services.capacity()),
            slots: size(maps.slots.capacity()),
            backends: size(maps.backends.capacity()),
            ids: size(maps.ids.capacity()),
            ranges: size(maps.ranges.capacity()),
            tables: size(maps.maglev.capacity()),
        }
    }

    /// What they have, before it is known whose it is. Of slots it is what services say of theirs, twice for their members.
    pub(super) fn found(maps: &super::Maps, ranges: usize, tables: usize) -> datapath::Result<Entries> {
        let services = maps.services.entries()?;
        let slots = services.iter().map(|(_, service)| usize::try_from(service.count).unwrap_or_default() * 2).sum();
        let (backends, ids) = (maps.backends.keys()?.len(), maps.ids.keys()?.len());
        Ok(Entries { services: services.len(), slots, backends, ids, ranges, tables })
    }

    /// Whether there is room for a frontend, or it is the turn of its namespace.
    pub(super) fn admit(&mut self, row: &Frontend) -> Result<(), Cause> {
        let wanted = Entries {
            services: 1,
            slots: row.takers().count() + row.backends.len(),
            backends: row.backends.len(),
            ids: if row.forwarding == Forwarding::Dsr { ids::count(row) + row.backends.len() } else { 0 },
            ranges: super::ranges::count(row),
            tables: self.tables.count_of(row),
        };
        let inside = FrontendKey { scope: Scope::Internal, ..row.key };
        if row.two_scopes && inside != row.key && !has(&self.maps.services, &encode::service_key(&inside))? {
            return Err(Cause::Alone);
        }
        if self.shares.have_room(wanted) {
            return Ok(());
        }
        let more = match self.installed.get(&row.key) {
            Some(known) => self.beyond(known, row, wanted),
            None => self.beyond_present(row, wanted)?,
        };
        self.shares.admit(&row.service.namespace, more).map_err(Cause::from)
    }

    /// What a frontend wants more than it has. What is about to end makes room for what takes its place: a rollout needs nothing more.
    fn beyond(&self, known: &Installed, row: &Frontend, wanted: Entries) -> Entries {
        let ends = |state| matches!(state, BackendState::Terminating | BackendState::TerminatingNotServing);
        let staying: BTreeSet<u32> = row.backends.iter().filter(|b| !ends(b.state)).map(|b| b.id.0).collect();
        let new = |users: &Users| staying.iter().filter(|id| !users.has(&row.service.namespace, **id)).count();
        let backends = new(&self.users).saturating_sub(known.backends.difference(&staying).count());
        let slots = row.takers().count() + staying.len();
        let more = Entries { slots, ids: wanted.ids.saturating_sub(row.backends.len()), ..wanted }.beyond(known.taken);
        let new_ids = if wanted.ids > 0 { new(&self.direct) + more.ids } else { 0 };
        // Each that leaves gives up the one by its port and, unless another has its address, that of the frontend.
        let ids = new_ids.saturating_sub(2 * known.direct.difference(&staying).count());
        Entries { backends, ids, ..more }
    }

    /// What a frontend wants more than the maps have of it.
    fn beyond_present(&self, row: &Frontend, wanted: Entries) -> datapath::Result<Entries> {
        let present = self.maps.services.get(&encode::service_key(&row.key))?;
        let mut held = Entries {
            services: present.is_some().into(),
            ranges: self.ranges.count(row.id),
            tables: self.tables.count(row.id),
            slots: present.filter(|p| p.id == row.id).map_or(0, |p| usize::try_from(p.count).unwrap_or_default()),
            backends: 0,
            ids: 0,
        };
        for ip in encode::by_address(row).into_keys().filter(|_| wanted.ids > 0) {
            held.ids += usize::from(has(&self.maps.ids, &lb::BackendKey::of_service(row.id, ip.into()))?);
        }
        for backend in row.backends.iter() {
            let member = lb::SlotKey::member(row.id, backend.id.0);
            held.slots += usize::from(has(&self.maps.slots, &member)?);
            let is_used = self.users.has(&row.service.namespace, backend.id.0);
            held.backends += usize::from(is_used || has(&self.maps.backends, &backend.id.0)?);
            let key = encode::backend_key(&encode::backend(backend));
            held.ids += usize::from(wanted.ids > 0 && has(&self.maps.ids, &key)?);
        }
        Ok(wanted.beyond(held))
    }

    /// Notes what the frontend holds now.
    pub(super) fn account(&mut self, frontend: &FrontendKey) {
        let Some(known) = self.installed.get_mut(frontend) else { return };
        let now = Entries {
            services: 1,
            slots: usize::try_from(known.slots).unwrap_or(usize::MAX).saturating_add(known.backends.len()),
            backends: 0,
            ids: known.ids,
            ranges: self.ranges.count(known.id),
            tables: self.tables.count(known.id),
        };
        let before = std::mem::replace(&mut known.taken, now);
        self.shares.take(before, now);
        self.shares.charge(&known.service.namespace, before, now);
    }

    /// The frontend holds nothing any more.
    pub(super) fn forget(&mut self, frontend: &FrontendKey) {
        if let Some(known) = self.installed.remove(frontend) {
            self.shares.take(known.taken, NONE);
            self.shares.charge(&known.service.namespace, known.taken, NONE);
        }
    }

    /// What the frontend holds goes over to the namespace that it is of now.
    pub(super) fn hand_over(&mut self, row: &Frontend) {
        let to = &row.service.namespace;
        let Some(known) = self.installed.get(&row.key).filter(|known| known.service.namespace != *to) else { return };
        let from = &known.service.namespace;
        self.shares.charge(from, known.taken, NONE);
        self.shares.charge(to, NONE, known.taken);
        for (what, users, used) in
            [(Use::Backend, &mut self.users, &known.backends), (Use::Id, &mut self.direct, &known.direct)]
        {
            for backend in used {
                if fewer(&mut users.by_namespace, &(Arc::clone(from), *backend)) {
                    self.shares.charge(from, what.one(), NONE);
                }
                if more(&mut users.by_namespace, (Arc::clone(to), *backend)) {
                    self.shares.charge(to, NONE, what.one());
                }
            }
        }
    }

    fn users(&mut self, what: Use) -> &mut Users {
        match what {
            Use::Backend => &mut self.users,
            Use::Id => &mut self.direct,
        }
    }

    /// One frontend of the namespace more uses the backend.
    pub(super) fn add_user(&mut self, what: Use, namespace: &Arc<str>, backend: u32) {
        if more(&mut self.users(what).all, backend) {
            self.shares.take(NONE, what.one());
        }
        if more(&mut self.users(what).by_namespace, (Arc::clone(namespace), backend)) {
            self.shares.charge(namespace, NONE, what.one());
        }
    }

    /// One less uses it.
    pub(super) fn remove_user(&mut self, what: Use, namespace: &Arc<str>, backend: u32) {
        if fewer(&mut self.users(what).all, &backend) {
            self.shares.take(what.one(), NONE);
        }
        if fewer(&mut self.users(what).by_namespace, &(Arc::clone(namespace), backend)) {
            self.shares.charge(namespace, what.one(), NONE);
        }
    }

    /// There is one mark more, which is nobody's.
    pub(super) fn add_mark(&mut self) {
        self.shares.take(NONE, ONE_SERVICE);
    }

    /// There is one less.
    pub(super) fn remove_mark(&mut self) {
        self.shares.take(ONE_SERVICE, NONE);
    }

    /// Counts anew what everybody holds, with so many marks.
    pub(super) fn recount(&mut self, marks: usize) {
        self.shares.begin();
        (self.users, self.direct) = (Users::default(), Users::default());
        self.shares.take(NONE, Entries { services: marks, ..NONE });
        let mut used = Vec::new();
        for known in self.installed.values_mut() {
            known.taken = NONE;
            for (what, all) in [(Use::Backend, &known.backends), (Use::Id, &known.direct)] {
                used.extend(all.iter().map(|backend| (what, Arc::clone(&known.service.namespace), *backend)));
            }
        }
        used.iter().for_each(|(what, namespace, backend)| self.add_user(*what, namespace, *backend));
        let all: Vec<FrontendKey> = self.installed.keys().copied().collect();
        all.iter().for_each(|frontend| self.account(frontend));
    }
}

fn has<M: datapath::Layout>(map: &Map<M>, key: &M::Key) -> datapath::Result<bool> {
    map.get(key).map(|value| value.is_some())
}
