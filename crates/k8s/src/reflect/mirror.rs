// SPDX-License-Identifier: Apache-2.0
//! The table that a watch is mirrored into, and which object produced which row. No I/O.

use super::Ingested;
use kube::runtime::watcher::Event;
use statedb::{Row, Writer};
use std::collections::HashMap;

/// Namespace (empty if none) and name.
type Name = (String, String);

pub(super) struct Mirror<R: Row> {
    writer: Writer<R>,
    kind: String,
    /// The row of each object that has one.
    rows: HashMap<Name, R::Key>,
    /// Invalid objects, with the version that was logged.
    bad: HashMap<Name, String>,
    /// Objects of a list in progress.
    listing: Option<Listing<R>>,
    initialized: bool,
}

struct Listing<R: Row> {
    rows: Vec<R>,
    keys: HashMap<Name, R::Key>,
    bad: HashMap<Name, String>,
}

impl<R: Row> Mirror<R> {
    pub(super) fn new(writer: Writer<R>, kind: String) -> Self {
        Self { writer, kind, rows: HashMap::new(), bad: HashMap::new(), listing: None, initialized: false }
    }

    /// Applies an event. Readers see it at the next [`Mirror::commit`].
    pub(super) fn apply<K: kube::Resource>(&mut self, event: Event<K>, ingest: impl Fn(&K) -> Ingested<R>) {
        match event {
            Event::Init => {
                self.commit();
                self.listing = Some(Listing { rows: Vec::new(), keys: HashMap::new(), bad: HashMap::new() });
            }
            Event::InitApply(object) => self.listed(&object, ingest(&object)),
            Event::InitDone => self.list_done(),
            Event::Apply(object) => self.changed(&object, ingest(&object)),
            Event::Delete(object) => {
                let name = name(&object);
                self.bad.remove(&name);
                self.drop_row(&name);
            }
        }
    }

    /// Publishes to the table's readers.
    pub(super) fn commit(&mut self) {
        if self.initialized {
            self.writer.mark_initialized();
        } else {
            self.writer.commit();
        }
    }

    fn listed<K: kube::Resource>(&mut self, object: &K, ingested: Ingested<R>) {
        let name = name(object);
        let row = match ingested {
            Ingested::Row(row) => Some(row),
            Ingested::Nothing => None,
            Ingested::Bad(reason) => {
                let version = self.complain(&name, object, &reason);
                if let Some(listing) = &mut self.listing {
                    listing.bad.insert(name.clone(), version);
                }
                let key = self.rows.get(&name);
                key.and_then(|key| self.writer.snapshot().get(key)).map(|row| R::clone(&row))
            }
        };
        if let (Some(row), Some(listing)) = (row, &mut self.listing) {
            listing.keys.insert(name, row.key());
            listing.rows.push(row);
        }
    }

    fn list_done(&mut self) {
        if let Some(listing) = self.listing.take() {
            self.writer.replace(listing.rows);
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
                let key = row.key();
                if self.rows.get(&name).is_some_and(|old| *old != key) {
                    self.drop_row(&name);
                }
                self.rows.insert(name, key);
                self.writer.insert(row);
            }
            Ingested::Nothing => {
                self.bad.remove(&name);
                self.drop_row(&name);
            }
            Ingested::Bad(reason) => {
                let version = self.complain(&name, object, &reason);
                self.bad.insert(name, version);
            }
        }
    }

    fn drop_row(&mut self, name: &Name) {
        if let Some(key) = self.rows.remove(name) {
            self.writer.remove(&key);
        }
    }

    /// Logs that an object is invalid, unless this version has been logged. Returns the version.
    fn complain<K: kube::Resource>(&self, name: &Name, object: &K, reason: &str) -> String {
        let version = object.meta().resource_version.clone().unwrap_or_default();
        if self.bad.get(name) != Some(&version) {
            let (namespace, name) = name;
            tracing::warn!(
                kind = self.kind,
                namespace,
                name,
                error = reason,
                "object is invalid, what an earlier version of it said stays in force"
            );
        }
        version
    }
}

fn name<K: kube::Resource>(object: &K) -> Name {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
