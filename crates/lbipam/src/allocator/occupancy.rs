// SPDX-License-Identifier: Apache-2.0
//! Which Services have which addresses: by decision, and by what their statuses say. An address is free when both say so, for what was
//! taken away from a Service is still its until that is written.

use crate::range::Range;
use model::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

type Names = BTreeMap<IpAddr, BTreeSet<ServiceName>>;

#[derive(Debug, Default)]
pub(super) struct Occupancy {
    /// Those that are to have it.
    holders: Names,
    /// Those whose status names it.
    named: Names,
}

impl Occupancy {
    pub(super) fn is_free(&self, address: IpAddr) -> bool {
        !self.holders.contains_key(&address) && !self.named.contains_key(&address)
    }

    pub(super) fn holders(&self, address: IpAddr) -> impl Iterator<Item = &ServiceName> {
        self.holders.get(&address).into_iter().flatten()
    }

    /// Those that are to have it, and those that have it still.
    pub(super) fn occupants(&self, address: IpAddr) -> impl Iterator<Item = &ServiceName> {
        self.holders(address).chain(self.named.get(&address).into_iter().flatten())
    }

    /// The addresses of a range that are not free.
    pub(super) fn within(&self, range: Range) -> BTreeSet<IpAddr> {
        let all = [&self.holders, &self.named].into_iter().flat_map(|names| names.range(range.first..=range.last));
        all.map(|(address, _)| *address).collect()
    }

    pub(super) fn hold(&mut self, name: &ServiceName, address: IpAddr) {
        self.holders.entry(address).or_default().insert(name.clone());
    }

    pub(super) fn release(&mut self, name: &ServiceName, address: IpAddr) {
        remove(&mut self.holders, name, address);
    }

    pub(super) fn name(&mut self, name: &ServiceName, address: IpAddr) {
        self.named.entry(address).or_default().insert(name.clone());
    }

    pub(super) fn unname(&mut self, name: &ServiceName, address: IpAddr) {
        remove(&mut self.named, name, address);
    }
}

fn remove(names: &mut Names, name: &ServiceName, address: IpAddr) {
    if let Some(all) = names.get_mut(&address) {
        all.remove(name);
        if all.is_empty() {
            names.remove(&address);
        }
    }
}
