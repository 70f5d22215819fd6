// SPDX-License-Identifier: Apache-2.0
//! Which Services have which addresses: by decision, and by status. An address is free once both agree, since an address taken away
//! from a Service is still in use until its status has been written.

use crate::range::Range;
use model::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

type Names = BTreeMap<IpAddr, BTreeSet<ServiceName>>;

#[derive(Debug, Default)]
pub(super) struct Occupancy {
    /// Those it is allocated to.
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

    /// Those it is allocated to, and those that still have it.
    pub(super) fn occupants(&self, address: IpAddr) -> impl Iterator<Item = &ServiceName> {
        self.holders(address).chain(self.named.get(&address).into_iter().flatten())
    }

    /// The addresses of a range that are in use.
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
