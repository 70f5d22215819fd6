// SPDX-License-Identifier: Apache-2.0
//! The one question between features that does not go through a table: `endpoint` asks `ipam` for a pod's address.

use endpoint::{AddressError, Addresses, Allocated, Families};
use ipam::{Allocator, Error};
use std::net::IpAddr;

/// Adapts `ipam`'s allocator to `endpoint`'s trait.
#[derive(Clone, Debug)]
pub(crate) struct FromPools(pub Allocator);

impl Addresses for FromPools {
    fn allocate(&self, owner: &str, families: Families) -> Result<Allocated, AddressError> {
        let allocation = self.0.allocate(owner, families.ipv4, families.ipv6).map_err(refusal)?;
        Ok(Allocated { ipv4: allocation.ipv4, ipv6: allocation.ipv6 })
    }

    fn claim(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError> {
        self.0.claim(owner, ip).map_err(refusal)
    }

    fn release(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError> {
        self.0.release(owner, ip).map(drop).map_err(refusal)
    }
}

fn refusal(error: Error) -> AddressError {
    match error {
        Error::NotReady { .. } => AddressError::NotReady(error.to_string()),
        Error::Taken { ip, owner } => AddressError::Taken { ip, owner },
        Error::Foreign(ip) => AddressError::Foreign(ip),
        other => AddressError::Exhausted(other.to_string()),
    }
}
