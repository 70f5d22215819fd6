// SPDX-License-Identifier: Apache-2.0
//! The table that a watch is mirrored into, and which object produced which row. No I/O.

use super::Ingested;
use kube::runtime::watcher::Event;
use statedb::{Row, Writer};
use std::borrow::BorrowMut;
use std::collections::HashMap;

/// Namespace (empty if none) and name.
type Name = (String, String);

/// `W` is the table's writer, or has it on loan.
pub(super) struct Mirror<R: Row, W> {
    writer: W,
    kind: String,
    /// The row of each object that has one.
    rows: HashMap<Name, R::Key>,
    /// Invalid objects, with the version that was logged.
    bad: HashMap<Name, String>,
    /// Objects of a list in progress.
    listing: Option<Listing<R>>,
    initialized: bool,
}

const REST_IN_FORCE: &str = "the rest of it";
const EARLIER_IN_FORCE: &str = "what an earlier version of it said";

struct Listing<R: Row> {
    rows: Vec<R>,
    keys: HashMap<Name, R::Key>,
    bad: HashMap<Name, String>,
}

impl<R: Row, W: BorrowMut<Writer<R>>> Mirror<R, W> {
    pub(super) fn new(writer: W, kind: String) -> Self {
        Self { writer, kind, rows: HashMap::new(), bad: HashMap::new(), listing: None, initialized: false }
    }

    /// Applies an event. Readers see it at the next [`Mirror::commit`].
    pub(super) fn apply<K: kube::Resource>(&mut self, event: &Event<K>, ingest: impl Fn(&K) -> Ingested<R>) {
        match event {
            Event::Init => {
                self.commit();
                self.listing = Some(Listing { rows: Vec::new(), keys: HashMap::new(), bad: HashMap::new() });
            }
            Event::InitApply(object) => self.listed(object, ingest(object)),
            Event::InitDone => self.list_done(),
            Event::Apply(object) => self.changed(object, ingest(object)),
            Event::Delete(object) => {
                let name = name(object);
                self.bad.remove(&name);
                self.drop_row(&name);
            }
        }
    }

    /// Publishes to the table's readers.
    pub(super) fn commit(&mut self) {
        if self.initialized {
            self.writer.borrow_mut().mark_initialized();
        } else {
            self.writer.borrow_mut().commit();
        }
    }

    fn listed<K: kube::Resource>(&mut self, object: &K, ingested: Ingested<R>) {
        let name = name(object);
        let row = match ingested {
            Ingested::Row(row) => Some(row),
            Ingested::Part(row, reason) => {
                self.complain_of_listed(&name, object, &reason, REST_IN_FORCE);
                Some(row)
            }
            Ingested::Nothing => None,
            Ingested::Bad(reason) => {
                self.complain_of_listed(&name, object, &reason, EARLIER_IN_FORCE);
                let key = self.rows.get(&name);
                key.and_then(|key| self.writer.borrow().snapshot().get(key)).map(|row| R::clone(&row))
            }
        };
        if let (Some(row), Some(listing)) = (row, &mut self.listing) {
            listing.keys.insert(name, row.key());
            listing.rows.push(row);
        }
    }

    fn complain_of_listed<K: kube::Resource>(&mut self, name: &Name, object: &K, reason: &str, in_force: &'static str) {
        let version = self.complain(name, object, reason, in_force);
        if let Some(listing) = &mut self.listing {
            listing.bad.insert(name.clone(), version);
        }
    }

    fn list_done(&mut self) {
        if let Some(listing) = self.listing.take() {
            self.writer.borrow_mut().replace(listing.rows);
            self.rows = listing.keys;
            self.bad = listing.bad;
            self.initialized = true;
        }
    }

    fn changed<K: kube::Resource>(&mut self, object: &K, ingested: Ingested<R>) {
        let name = name(object);
        match ingested {
            Ingested::Row(row) => {
                self.bad.remove(&name);
                self.insert(name, row);
            }
            Ingested::Part(row, reason) => {
                let version = self.complain(&name, object, &reason, REST_IN_FORCE);
                self.bad.insert(name.clone(), version);
                self.insert(name, row);
            }
            Ingested::Nothing => {
                self.bad.remove(&name);
                self.drop_row(&name);
            }
            Ingested::Bad(reason) => {
                let version = self.complain(&name, object, &reason, EARLIER_IN_FORCE);
                self.bad.insert(name, version);
            }
        }
    }

    fn insert(&mut self, name: Name, row: R) {
        let key = row.key();
        if self.rows.get(&name).is_some_and(|old| *old != key) {
            self.drop_row(&name);
        }
        self.rows.insert(name, key);
        self.writer.borrow_mut().insert(row);
    }

    fn drop_row(&mut self, name: &Name) {
        if let Some(key) = self.rows.remove(name) {
            self.writer.borrow_mut().remove(&key);
        }
    }

    /// Logs that an object is invalid and what holds instead, unless this version has been logged. Returns the version.
    fn complain<K: kube::Resource>(&self, name: &Name, object: &K, reason: &str, in_force: &'static str) -> String {
        let version = object.meta().resource_version.clone().unwrap_or_default();
        if self.bad.get(name) != Some(&version) {
            let (namespace, name) = name;
            tracing::warn!(kind = self.kind, namespace, name, error = reason, in_force, "object is invalid");
        }
        version
    }
}

fn name<K: kube::Resource>(object: &K) -> Name {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
