// SPDX-License-Identifier: Apache-2.0
//! Services that lack something, by what might satisfy them.

use crate::service::{Service, Wanted};
use k8s::k8s_openapi::jiff::Timestamp;
use model::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;

/// A Service's place in the queue: requests for specific addresses first, then by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    any: bool,
    created: Timestamp,
    pub(super) name: ServiceName,
}

impl Turn {
    pub(super) fn of(service: &Service) -> Self {
        let any = service.claim().is_some_and(|claim| matches!(claim.wanted, Wanted::Families(_)));
        Self { any, created: service.created, name: service.name.clone() }
    }

    /// Whether any address would do.
    pub(super) fn is_for_any(&self) -> bool {
        self.any
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    turns: BTreeMap<ServiceName, Turn>,
    /// Those that any address would satisfy.
    queue: BTreeSet<Turn>,
    /// Those waiting for a specific address.
    by_address: BTreeMap<IpAddr, BTreeSet<ServiceName>>,
    addresses: BTreeMap<ServiceName, Vec<IpAddr>>,
}

impl Waiting {
    /// Records that the Service lacks these addresses, or any.
    pub(super) fn insert(&mut self, service: &Service, lacking: Vec<IpAddr>) {
        self.remove(&service.name);
        let turn = Turn::of(service);
        if turn.any {
            self.queue.insert(turn.clone());
        }
        for address in &lacking {
            self.by_address.entry(*address).or_default().insert(service.name.clone());
        }
        self.addresses.insert(service.name.clone(), lacking);
        self.turns.insert(service.name.clone(), turn);
    }

    pub(super) fn remove(&mut self, name: &ServiceName) {
        if let Some(turn) = self.turns.remove(name) {
            self.queue.remove(&turn);
        }
        for address in self.addresses.remove(name).unwrap_or_default() {
            if let Some(names) = self.by_address.get_mut(&address) {
                names.remove(name);
                if names.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Turn> {
        self.turns.values()
    }

    pub(super) fn get(&self, name: &ServiceName) -> Option<&Turn> {
        self.turns.get(name)
    }

    pub(super) fn for_address(&self, address: IpAddr) -> impl Iterator<Item = &Turn> {
        self.by_address.get(&address).into_iter().flatten().filter_map(|name| self.turns.get(name))
    }

    /// The next in the queue after a place.
    pub(super) fn next_after(&self, turn: Option<&Turn>) -> Option<Turn> {
        let after = turn.map_or(Bound::Unbounded, Bound::Excluded);
        self.queue.range((after, Bound::Unbounded)).next().cloned()
    }
}
