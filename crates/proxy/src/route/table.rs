// SPDX-License-Identifier: Apache-2.0
//! Tables of routes: by name, then by host, then by path.

use super::action::RouteRule;
use super::entries::Entries;
use super::expression::Expressions;
use super::host::HostMap;
use super::paths::{Entry, Paths};
use super::sought::Sought;
use crate::invalid::Invalid;
use imbl::HashMap;
use l7::{HostMatch, Name, Route};
use std::sync::Arc;

/// The routes of one or more listeners.
pub(crate) type Table = HostMap<Paths>;

/// What a request has met.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) route: Arc<RouteRule>,
    /// How much of the path the match was about, in bytes.
    pub(crate) prefix: usize,
}

impl Table {
    /// The route for a request. `host` is in lower case and without a port.
    pub(crate) fn find(&self, host: &str, sought: &Sought<'_>) -> Option<Found> {
        let found = self.candidates(host).find_map(|paths| paths.find(sought, |_, _| {}))?;
        Some(Found { route: Arc::clone(found.route()), prefix: found.prefix_length(sought.path()) })
    }
}

/// All tables. A clone shares what does not change, so that a change costs as much as the routes that it is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    tables: HashMap<Name, Table>,
    filed: HashMap<Name, Arc<Filed>>,
    expressions: Expressions,
}

/// A route as it is filed, for the time when it is taken out.
#[derive(Debug)]
struct Filed {
    rule: Arc<RouteRule>,
    entries: Entries,
}

impl Tables {
    pub(crate) fn get(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// All routes, as they were given.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.filed.values().map(|filed| &filed.rule.given)
    }

    /// Whether there is a route of that name.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.filed.contains_key(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.filed.len()
    }

    /// Puts a route in, in place of the one of its name.
    ///
    /// # Errors
    ///
    /// A field cannot be used. The route of before stays.
    pub(crate) fn set(&mut self, route: &Arc<Route>) -> Result<(), Invalid> {
        let rule = Arc::new(RouteRule::parse(route)?);
        let entries = Entry::all(&rule, &mut self.expressions)?;
        self.remove(&route.name);
        let filed = Filed { rule, entries };
        for (table, host) in places(route) {
            self.change(table, host, |paths| filed.entries.iter().for_each(|entry| paths.insert(entry)));
        }
        self.filed.insert(route.name.clone(), Arc::new(filed));
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        let Some(filed) = self.filed.remove(name) else { return };
        for (table, host) in places(&filed.rule.given) {
            self.change(table, host, |paths| filed.entries.iter().for_each(|entry| paths.remove(entry)));
        }
    }

    fn change(&mut self, table: &Name, host: &HostMatch, change: impl FnOnce(&mut Paths)) {
        let hosts = self.tables.entry(table.clone()).or_default();
        let mut paths = hosts.get(host).cloned().unwrap_or_default();
        change(&mut paths);
        if !paths.is_empty() {
            return hosts.set(host, paths);
        }
        hosts.remove(host);
        if hosts.is_empty() {
            self.tables.remove(table);
        }
    }
}

/// Each table and host of a route once, whatever it says.
fn places(route: &Route) -> std::collections::BTreeSet<(&Name, &HostMatch)> {
    route.attachments.iter().flat_map(|a| a.hosts.iter().map(move |host| (&a.table, host))).collect()
}
