// SPDX-License-Identifier: Apache-2.0
//! Addresses of deleted Services. A Service that is recreated gets its own back; others get them only when nothing else is left.

use model::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How many addresses are remembered, the latest ones.
const LIMIT: usize = 65_536;

/// When an address was given back: lower is longer ago.
pub(super) type Seniority = u64;

#[derive(Debug, Default)]
pub(super) struct Former {
    by_address: BTreeMap<IpAddr, (Seniority, ServiceName)>,
    by_service: BTreeMap<ServiceName, BTreeSet<IpAddr>>,
    by_seniority: BTreeMap<Seniority, IpAddr>,
    next: Seniority,
}

impl Former {
    /// Records that a Service with an address is gone. Returns the address that is forgotten in exchange, if any.
    pub(super) fn add(&mut self, service: &ServiceName, address: IpAddr) -> Option<IpAddr> {
        self.forget(address);
        self.next += 1;
        self.by_address.insert(address, (self.next, service.clone()));
        self.by_service.entry(service.clone()).or_default().insert(address);
        self.by_seniority.insert(self.next, address);
        let oldest = self.by_seniority.first_key_value().map(|(_, address)| *address);
        oldest.filter(|oldest| self.by_address.len() > LIMIT && self.forget(*oldest))
    }

    /// The address is owned again. Returns whether it was remembered.
    pub(super) fn forget(&mut self, address: IpAddr) -> bool {
        let Some((seniority, service)) = self.by_address.remove(&address) else { return false };
        self.by_seniority.remove(&seniority);
        if let Some(addresses) = self.by_service.get_mut(&service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_service.remove(&service);
            }
        }
        true
    }

    /// The addresses of the last Service with that name.
    pub(super) fn of(&self, service: &ServiceName) -> impl Iterator<Item = IpAddr> {
        self.by_service.get(service).into_iter().flatten().copied()
    }

    pub(super) fn seniority(&self, address: IpAddr) -> Option<Seniority> {
        self.by_address.get(&address).map(|(seniority, _)| *seniority)
    }

    /// The remembered addresses in a range.
    pub(super) fn range(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = (IpAddr, Seniority)> {
        self.by_address.range(first..=last).map(|(address, (seniority, _))| (*address, *seniority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::new("n", name)
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn only_the_last_are_remembered() {
        let mut former = Former::default();
        let limit = u32::try_from(LIMIT).unwrap_or(u32::MAX);
        for n in 0..limit {
            assert_eq!(former.add(&service("a"), address(n)), None);
        }
        assert_eq!(former.add(&service("b"), address(limit)), Some(address(0)));
        assert_eq!(former.add(&service("b"), address(1)), None, "it is remembered again, for another");
        assert_eq!(former.of(&service("b")).collect::<Vec<_>>(), [address(1), address(limit)]);
        assert_eq!(former.of(&service("a")).next(), Some(address(2)));
    }
}
