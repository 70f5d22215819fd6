// SPDX-License-Identifier: Apache-2.0
//! The one question this feature asks another: an address for a pod. The agent answers it with `ipam`, which this crate
//! does not know.

use crate::rest::AddressPair;
use model::EndpointId;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::time::Instant;

/// Requested address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// One address per requested family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Allocated {
    /// The addresses that it holds.
    pub(crate) fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The node has no pool yet, but may get one.
    #[error("no addresses yet: {0}")]
    NotReady(String),
    /// Every address is in use. The text names the pool and says what to do.
    #[error("no address is free: {0}")]
    Exhausted(String),
    /// The address belongs to another owner.
    #[error("address {ip} belongs to {owner}")]
    Taken {
        /// Address.
        ip: IpAddr,
        owner: String,
    },
    /// An endpoint uses it, so it cannot be released.
    #[error("address {ip} is in use by endpoint {id}")]
    InUse {
        /// Address.
        ip: IpAddr,
        /// The endpoint.
        id: EndpointId,
    },
    /// The address is not in this node's pool.
    #[error("address {0} is in none of this node's pools")]
    Foreign(IpAddr),
}

/// Hands out addresses. All operations are fast and in memory.
pub trait Addresses: Send + Sync + 'static {
    /// Allocates one address per requested family, all or none. The owner is `namespace/name` of the pod.
    ///
    /// # Errors
    ///
    /// There is none.
    fn allocate(&self, owner: &str, families: Families) -> Result<Allocated, AddressError>;

    /// Claims that address. Claiming twice for the same owner succeeds.
    ///
    /// # Errors
    ///
    /// It belongs to another owner, or is not ours to hand out.
    fn claim(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError>;

    /// Releases an owner's address. Releasing a free address succeeds.
    ///
    /// # Errors
    ///
    /// It belongs to another owner.
    fn release(&self, owner: &str, ip: IpAddr) -> Result<(), AddressError>;
}

/// Addresses that were handed out and await their endpoint.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    by_address: Mutex<BTreeMap<IpAddr, Lease>>,
}

#[derive(Clone, Debug)]
struct Lease {
    owner: String,
    ends: Instant,
}

impl Leases {
    /// Starts a lease for each address, and returns its name.
    pub(crate) fn begin(&self, owner: &str, addresses: Allocated, lasts: Duration) -> AddressPair {
        let mut leases = self.by_address.lock();
        let mut begin = |ip: IpAddr| {
            leases.insert(ip, Lease { owner: owner.to_owned(), ends: Instant::now() + lasts });
            let id: [u8; 16] = rand::rng().random();
            crate::queue::hex(&id)
        };
        AddressPair {
            ipv4: addresses.ipv4,
            ipv4_expiration_uuid: addresses.ipv4.map(|ip| begin(ip.into())),
            ipv6: addresses.ipv6,
            ipv6_expiration_uuid: addresses.ipv6.map(|ip| begin(ip.into())),
            ..AddressPair::default()
        }
    }

    /// Ends the lease of an address because its endpoint has arrived. Returns whether that owner had one.
    pub(crate) fn redeem(&self, owner: &str, ip: IpAddr) -> bool {
        let mut leases = self.by_address.lock();
        let ours = leases.get(&ip).is_some_and(|lease| lease.owner == owner);
        if ours {
            leases.remove(&ip);
        }
        ours
    }

    /// The owner of an address's lease.
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<String> {
        self.by_address.lock().get(&ip).map(|lease| lease.owner.clone())
    }

    /// Ends all expired leases and returns their addresses.
    pub(crate) fn expired(&self) -> Vec<(IpAddr, String)> {
        let now = Instant::now();
        let mut leases = self.by_address.lock();
        let over: Vec<_> =
            leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(ip, l)| (*ip, l.owner.clone())).collect();
        for (ip, _) in &over {
            leases.remove(ip);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_with_its_time_unless_its_endpoint_comes() {
        let leases = Leases::default();
        let addresses = Allocated { ipv4: Some(Ipv4Addr::new(10, 0, 0, 1)), ipv6: Some(Ipv6Addr::LOCALHOST) };
        let pair = leases.begin("a/b", addresses, Duration::from_secs(600));
        assert!(pair.ipv4_expiration_uuid.is_some() && pair.ipv6_expiration_uuid.is_some());
        assert!(!leases.redeem("c/d", Ipv4Addr::new(10, 0, 0, 1).into()));
        assert!(leases.redeem("a/b", Ipv4Addr::new(10, 0, 0, 1).into()));
        assert!(leases.expired().is_empty());
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(leases.expired(), [(Ipv6Addr::LOCALHOST.into(), "a/b".to_owned())]);
        assert!(leases.expired().is_empty());
    }
}
