// SPDX-License-Identifier: Apache-2.0
//! Frontends to the kernel's maps: one target for all three maps, so that their order is decided here.
//!
//! A program that reads at any moment, between any two writes, finds for each frontend a backend behind every slot below
//! the count:
//!
//! ```text
//! growing:    backends, members, ids of both by address (where answers are direct), source ranges, lookup table, slots, frontend
//! shrinking:  lookup table, frontend, slots, source ranges, members, backends
//! ```
//!
//! Around all frontends of an address that is nobody else's there is its mark, which says that the address is a Service's at every port:
//!
//! ```text
//! coming:     mark, first frontend
//! going:      last frontend, mark
//! ```
//!
//! An entry that is right is not written again. When a backend gets no more new connections, or an address becomes a
//! frontend or ceases to be one, what was decided before may be wrong, so the epoch of that address is raised after the maps
//! have changed. A frontend that becomes narrower for its clients concerns flows of any address, so that the node's is raised.
//!
//! A frontend that sends some of its clients on to another of its address (`Scope`) is written after that one, which goes after it.
//!
//! When a map is nearly full, what is left is shared out among namespaces (`shares`).

mod holdings;
mod ids;
mod installed;
mod ranges;
mod shares;
mod slots;
mod sweep;
mod tables;
mod teller;

use crate::encode;
use crate::maglev::Maglev;
use crate::teller::Teller;
use abi::{Addr, lb, maps};
use datapath::{Due, Epochs, Kernel, Map, Trie};
use holdings::{Cause, Users};
use installed::Installed;
use model::{BackendId, BackendState, Frontend, FrontendKey, L4Addr, Protocol, Scope};
use ranges::Ranges;
use shares::Shares;
use statedb::Operation;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tables::Tables;
use tokio::sync::Notify;

/// The maps of this feature.
#[derive(Clone, Debug)]
pub struct Maps {
    pub(crate) services: Map<maps::Services>,
    pub(crate) slots: Map<maps::Slots>,
    pub(crate) backends: Map<maps::Backends>,
    pub(crate) ids: Map<maps::BackendIds>,
    pub(crate) ranges: Trie<maps::SourceRanges>,
    pub(crate) maglev: Map<maps::Maglev>,
}

/// Frontends and backends with the numbers they have in the maps.
pub(crate) struct Numbers {
    pub(crate) services: Vec<(FrontendKey, u32)>,
    pub(crate) backends: Vec<(L4Addr, u32)>,
}

impl Maps {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// A map cannot be opened.
    pub fn open<K: Kernel>(kernel: &K) -> datapath::Result<Self> {
        Ok(Self {
            services: kernel.map()?,
            slots: kernel.map()?,
            backends: kernel.map()?,
            ids: kernel.map()?,
            ranges: kernel.trie()?,
            maglev: kernel.map()?,
        })
    }

    /// The numbers in use, which a new process goes on to use.
    pub(crate) fn numbers(&self) -> datapath::Result<Numbers> {
        let services = self.services.entries()?;
        let backends = self.backends.entries()?;
        Ok(Numbers {
            services: services.iter().filter_map(|(k, v)| Some((encode::frontend_key(k)?, v.id))).collect(),
            backends: backends.iter().filter_map(|(id, v)| Some((encode::backend_addr(v)?, *id))).collect(),
        })
    }
}

/// A frontend could not be brought into the maps, or out of them.
#[derive(Debug, thiserror::Error)]
#[error("service {service}, frontend {frontend}")]
pub struct Error {
    /// The Service, or `?` when the frontend is not ours.
    pub service: String,
    pub frontend: String,
    /// Which map, and why.
    pub source: Cause,
}

/// Flags that say who may use a frontend.
const ADMITTING: u32 = lb::flags::EXPOSED | lb::flags::TWO_SCOPES | lb::flags::SOURCE_RANGES | lb::flags::DENY_RANGES;

/// Brings frontends into the maps.
#[derive(Debug)]
pub(crate) struct Target {
    maps: Maps,
    ranges: Ranges,
    tables: Tables,
    epochs: Epochs,
    installed: BTreeMap<FrontendKey, Installed>,
    /// Which of `installed` name a backend.
    users: Users,
    /// Which of them find it by its address.
    direct: Users,
    shares: Shares,
    teller: Teller,
    /// Before the first prune, the maps hold frontends of the last process that nobody has told us of: no backend is
    /// known to be without a use.
    pruned: bool,
    due: Due,
    /// Told when backends have left the maps that sockets may be connected to.
    gone: Arc<Notify>,
}

impl Target {
    /// Reads what the maps have of source ranges and lookup tables.
    pub(crate) fn new(
        maps: Maps,
        epochs: Epochs,
        maglev: Maglev,
        gone: Arc<Notify>,
        teller: Teller,
    ) -> datapath::Result<Self> {
        let (ranges, tables) = (Ranges::read(maps.ranges.clone())?, Tables::read(maps.maglev.clone(), maglev)?);
        let found = Self::found(&maps, ranges.total(), tables.total())?;
        Ok(Self {
            shares: Shares::new(Self::capacity(&maps), found),
            ranges,
            tables,
            maps,
            epochs,
            installed: BTreeMap::new(),
            users: Users::default(),
            direct: Users::default(),
            teller,
            pruned: false,
            due: Due::default(),
            gone,
        })
    }

    fn put(&mut self, row: &Frontend) -> datapath::Result<()> {
        let put = self.bring(row);
        self.account(&row.key);
        put
    }

    fn bring(&mut self, row: &Frontend) -> datapath::Result<()> {
        let key = encode::service_key(&row.key);
        let wanted = encode::service(row);
        let present = self.maps.services.get(&key)?;
        let held = present.filter(|p| p.id == wanted.id).map_or(0, |p| p.count);
        self.remember(row, wanted.count.max(held));
        self.remember_former(row, present);
        let takers: BTreeSet<BackendId> = encode::slots(row).collect();
        for backend in row.backends.iter() {
            let value = encode::backend(backend);
            write(&self.maps.backends, &backend.id.0, &value)?;
            if backend.state == BackendState::Quarantined {
                self.gone.notify_one();
            }
            let member = lb::SlotKey::member(row.id, backend.id.0);
            write(&self.maps.slots, &member, &encode::member(backend.id, &takers))?;
        }
        self.put_ids(row)?;
        // Now, since another attempt may find nothing left to change.
        if present.is_some_and(|p| (p.flags ^ wanted.flags) & ADMITTING != 0 || !self.ranges.are_right(row)) {
            self.due.node();
        }
        self.ranges.add(row)?;
        self.tables.put(row)?;
        if row.owns_address {
            self.mark(key.addr)?;
        }
        if present.is_none_or(|p| p.id != wanted.id) {
            self.due.peer(key.addr);
        }
        if wanted.count >= held {
            self.put_slots(row)?;
            write(&self.maps.services, &key, &wanted)?;
        } else {
            write(&self.maps.services, &key, &wanted)?;
            self.put_slots(row)?;
        }
        self.ranges.trim(row)?;
        self.tables.trim(row)?;
        if let Some(known) = self.installed.get_mut(&row.key).filter(|_| !row.owns_address) {
            known.owns_address = false;
            self.unmark(row.key.addr.ip)?;
        }
        self.drop_former(&row.key)?;
        self.drop_excess(row, wanted.count)?;
        self.due.raise(&self.epochs)
    }

    /// The frontend with those of its backends alone that the maps have at it.
    fn without_absent(&self, row: &Frontend) -> datapath::Result<Frontend> {
        let mut present = Vec::new();
        for backend in row.backends.iter() {
            if self.maps.slots.get(&lb::SlotKey::member(row.id, backend.id.0))?.is_some() {
                present.push(backend.clone());
            }
        }
        Ok(Frontend { backends: present.into(), ..row.clone() })
    }

    /// From now on there is nothing but services at that address.
    fn mark(&mut self, addr: Addr) -> datapath::Result<()> {
        let key = lb::ServiceKey::mark(addr);
        let present = self.maps.services.get(&key)?;
        if present != Some(lb::Service::MARK) {
            self.due.peer(addr);
            self.maps.services.insert(&key, &lb::Service::MARK)?;
        }
        if present.is_none() {
            self.add_mark();
        }
        Ok(())
    }

    /// The mark goes when no frontend that owns the address can be in the map. Most of those at a node's address find none.
    fn unmark(&mut self, ip: IpAddr) -> datapath::Result<()> {
        let key = lb::ServiceKey::mark(ip.into());
        if !self.pruned || self.maps.services.get(&key)?.is_none() {
            return Ok(());
        }
        // No frontend has the port 0, so this comes before all of the address.
        let before = FrontendKey::external(L4Addr { ip, port: 0, protocol: Protocol::Tcp });
        let mut at_address = self.installed.range(before..).take_while(|(key, _)| key.addr.ip == ip);
        if !at_address.any(|(_, known)| known.owns_address) {
            self.due.peer(key.addr);
            self.maps.services.remove(&key)?;
            self.remove_mark();
        }
        Ok(())
    }

    fn remove(&mut self, frontend: &FrontendKey) -> datapath::Result<()> {
        let key = encode::service_key(frontend);
        let present = self.maps.services.get(&key)?;
        if let Some(present) = present {
            self.due.peer(key.addr);
            self.maps.services.remove(&key)?;
            self.remove_slots(present.id, 0..present.count)?;
        }
        self.drop_former(frontend)?;
        if let Some(known) = self.installed.get(frontend) {
            let (id, slots, backends) = (known.id, known.slots, known.backends.clone());
            self.remove_all_slots(id, slots, &backends)?;
            for backend in backends {
                self.release(*frontend, backend)?;
            }
            self.forget(frontend);
        }
        self.unmark(frontend.addr.ip)?;
        self.due.raise(&self.epochs)
    }

    fn error(&self, frontend: &FrontendKey, source: datapath::Error) -> Error {
        let service = self.installed.get(frontend).map_or_else(|| "?".to_owned(), |known| known.service.to_string());
        Error { service, frontend: frontend.to_string(), source: source.into() }
    }

    /// Whether less of the frontend can be had: its former backends make room for the next attempt, or it is there and stays as it is.
    fn can_shrink(&self, row: &Frontend, cause: &Cause) -> bool {
        match cause {
            Cause::Kernel(error) => matches!(error, datapath::Error::MapFull { .. }),
            Cause::Alone => false,
            Cause::Share(_) => self.maps.services.get(&encode::service_key(&row.key)).is_ok_and(|p| p.is_some()),
        }
    }
}

/// In which order those of one batch are done.
fn turn(operation: &Operation<Frontend>) -> u8 {
    match operation {
        Operation::Update(row) if row.key.scope != Scope::External => 0,
        Operation::Delete(frontend) if frontend.scope != Scope::External => 2,
        _ => 1,
    }
}

/// Writes an entry unless it is there already.
fn write<M: datapath::Layout>(map: &Map<M>, key: &M::Key, value: &M::Value) -> datapath::Result<()> {
    if map.get(key)?.as_ref() == Some(value) { Ok(()) } else { map.insert(key, value) }
}

impl statedb::Target<Frontend> for Target {
    type Error = Error;

    async fn update(&mut self, row: &Frontend) -> Result<(), Error> {
        let put = self.admit(row).and_then(|()| self.put(row).map_err(Cause::from));
        let Err(cause) = put else { return Ok(()) };
        self.note(row, &cause);
        let error = |source| Error { service: row.service.to_string(), frontend: row.key.to_string(), source };
        if self.can_shrink(row, &cause) {
            self.without_absent(row).and_then(|row| self.put(&row)).map_err(|source| error(source.into()))?;
        }
        Err(error(cause))
    }

    async fn apply(&mut self, operations: &[Operation<Frontend>]) -> Vec<(FrontendKey, Error)> {
        let mut ordered: Vec<_> = operations.iter().collect();
        ordered.sort_by_key(|operation| turn(operation));
        let mut failures = Vec::new();
        for operation in ordered {
            let result = match operation {
                Operation::Update(row) => self.update(row).await,
                Operation::Delete(frontend) => self.delete(frontend).await,
            };
            failures.extend(result.err().map(|error| (operation.key(), error)));
        }
        failures
    }

    async fn delete(&mut self, frontend: &FrontendKey) -> Result<(), Error> {
        self.remove(frontend).map_err(|source| self.error(frontend, source))
    }

    async fn prune(&mut self, desired: &statedb::Snapshot<Frontend>) -> Result<(), Error> {
        let rows: BTreeMap<_, _> = desired.iter().map(|row| (encode::service_key(&row.key), row.as_ref())).collect();
        self.sweep(&rows).map_err(|source| Error {
            service: "(all)".to_owned(),
            frontend: "(all)".to_owned(),
            source: source.into(),
        })
    }

    fn has_made_room(&mut self) -> bool {
        self.shares.has_made_room()
    }
}

#[cfg(test)]
mod tests;
