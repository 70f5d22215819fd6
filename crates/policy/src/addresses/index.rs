// SPDX-License-Identifier: Apache-2.0
//! Names by address, to avoid scanning all nodes for each pod, or all pods for each node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An address may have several names, and a name several addresses.
#[derive(Debug)]
pub(super) struct Index<N> {
    by_address: BTreeMap<IpAddr, BTreeSet<N>>,
}

impl<N> Default for Index<N> {
    fn default() -> Self {
        Self { by_address: BTreeMap::new() }
    }
}

impl<N: Ord + Clone> Index<N> {
    /// Moves a name from its old addresses to its new ones.
    pub(super) fn replace<'a>(
        &mut self,
        name: &N,
        before: impl IntoIterator<Item = &'a IpAddr>,
        now: impl IntoIterator<Item = &'a IpAddr>,
    ) {
        for ip in before {
            if let Some(names) = self.by_address.get_mut(ip) {
                names.remove(name);
                if names.is_empty() {
                    self.by_address.remove(ip);
                }
            }
        }
        for ip in now {
            self.by_address.entry(*ip).or_default().insert(name.clone());
        }
    }

    /// The names at an address, in order.
    pub(super) fn at(&self, ip: IpAddr) -> impl Iterator<Item = &N> {
        self.by_address.get(&ip).into_iter().flatten()
    }
}
