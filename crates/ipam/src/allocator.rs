// SPDX-License-Identifier: Apache-2.0
//! Which pod of this node has which address.
//!
//! A claim is remembered whether or not a pool has the address, and each new pool starts out with the claims inside it.
//! So endpoints restored before the node's pod CIDRs are known keep their addresses.

use crate::pool::Pool;
use ipnet::IpNet;
use parking_lot::Mutex;
use statedb::{Row, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// One address per requested family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node has no pod CIDR of that family, or none yet.
    #[error(
        "this node has no {family} pod CIDR yet: see podCIDRs of its CiliumNode (ipam: cluster-pool) or Node (ipam: kubernetes)"
    )]
    NotReady {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// Every address is taken.
    #[error(
        "pool {pool} is exhausted: all {capacity} addresses for pods are in use; give the node a larger pod CIDR or move pods to other nodes"
    )]
    Exhausted {
        /// The prefixes.
        pool: String,
        /// Number of addresses for pods.
        capacity: u128,
    },
    /// The address belongs to another owner.
    #[error("address {ip} belongs to {owner}")]
    Taken {
        /// Address.
        ip: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// The address is not in this node's pod CIDRs.
    #[error("address {0} is in none of this node's pod CIDRs")]
    Foreign(IpAddr),
}

/// How full a pool is. One row per pod CIDR of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pod CIDR.
    pub prefix: IpNet,
    /// Number of addresses for pods.
    pub capacity: u128,
    /// Number of those in use.
    pub used: u128,
}

impl Row for PoolUsage {
    type Key = IpNet;
    fn key(&self) -> IpNet {
        self.prefix
    }
}

/// Hands out addresses. Clones share state; operations are fast and never block.
#[derive(Clone, Debug)]
pub struct Allocator {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    pools: Vec<Pool>,
    /// Owners by address, in a pool or not.
    owners: BTreeMap<IpAddr, String>,
    usage: Writer<PoolUsage>,
}

impl Allocator {
    pub(crate) fn new(usage: Writer<PoolUsage>) -> Self {
        let state = State { pools: Vec::new(), owners: BTreeMap::new(), usage };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Sets the pools to the node's pod CIDRs, less the node's own addresses. Allocations stand.
    pub(crate) fn configure(&self, prefixes: &[IpNet], own: impl Iterator<Item = IpAddr>) {
        let mut state = self.state.lock();
        let own: BTreeSet<IpAddr> = own.collect();
        let prefixes: BTreeSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        // A prefix within another must not become a second source of the same addresses.
        let nested = |prefix: &IpNet| prefixes.iter().any(|other| other != prefix && other.contains(prefix));
        let mut before = std::mem::take(&mut state.pools);
        for prefix in prefixes.iter().filter(|prefix| !nested(prefix)) {
            let pool = match before.iter().position(|pool| pool.prefix() == *prefix) {
                Some(i) => {
                    let mut kept = before.swap_remove(i);
                    kept.withhold(own.iter());
                    kept
                }
                None => Pool::new(*prefix, own.iter(), state.owners.keys()),
            };
            state.pools.push(pool);
        }
        state.publish();
    }

    /// Allocates one address per requested family, all or none. The owner is `namespace/name` of a pod.
    ///
    /// # Errors
    /// When a family has no pool or its pools are exhausted.
    pub fn allocate(&self, owner: &str, ipv4: bool, ipv6: bool) -> Result<Allocation, Error> {
        let mut state = self.state.lock();
        let mut allocation = Allocation::default();
        if ipv4 && let IpAddr::V4(ip) = state.allocate(owner, false)? {
            allocation.ipv4 = Some(ip);
        }
        if ipv6 {
            match state.allocate(owner, true) {
                Ok(IpAddr::V6(ip)) => allocation.ipv6 = Some(ip),
                Ok(IpAddr::V4(_)) => {}
                Err(error) => {
                    if let Some(ip) = allocation.ipv4 {
                        state.release(ip.into());
                    }
                    return Err(error);
                }
            }
        }
        state.publish();
        Ok(allocation)
    }

    /// Claims this address; a no-op for its owner.
    ///
    /// # Errors
    ///
    /// It belongs to someone else, to the node itself, or is not in this node's prefixes.
    pub fn claim(&self, owner: &str, ip: IpAddr) -> Result<(), Error> {
        let mut state = self.state.lock();
        if let Some(present) = state.owners.get(&ip) {
            let owner_has_it = present == owner;
            return if owner_has_it { Ok(()) } else { Err(Error::Taken { ip, owner: present.clone() }) };
        }
        let family_has_pools = state.pools.iter().any(|pool| pool.prefix().addr().is_ipv6() == ip.is_ipv6());
        let pool = state.pools.iter_mut().find(|pool| pool.prefix().contains(&ip));
        match pool.map(|pool| pool.take(ip)) {
            Some(false) => return Err(Error::Taken { ip, owner: "the node".into() }),
            None if family_has_pools => return Err(Error::Foreign(ip)),
            Some(true) | None => {}
        }
        state.owners.insert(ip, owner.to_owned());
        state.publish();
        Ok(())
    }

    /// Releases an owner's address. Returns whether the owner had it; if not, it was free.
    ///
    /// # Errors
    ///
    /// It belongs to someone else.
    pub fn release(&self, owner: &str, ip: IpAddr) -> Result<bool, Error> {
        let mut state = self.state.lock();
        if let Some(other) = state.owners.get(&ip).filter(|present| *present != owner) {
            return Err(Error::Taken { ip, owner: other.clone() });
        }
        let released = state.release(ip);
        state.publish();
        Ok(released)
    }

    /// All addresses in use, with their owners.
    #[must_use]
    pub fn owners(&self) -> BTreeMap<IpAddr, String> {
        self.state.lock().owners.clone()
    }
}

impl State {
    fn allocate(&mut self, owner: &str, ipv6: bool) -> Result<IpAddr, Error> {
        let of_family = |pool: &Pool| pool.prefix().addr().is_ipv6() == ipv6;
        let found = self.pools.iter_mut().filter(|pool| of_family(pool)).find_map(Pool::take_any);
        if let Some(ip) = found {
            self.owners.insert(ip, owner.to_owned());
            return Ok(ip);
        }
        let pools: Vec<&Pool> = self.pools.iter().filter(|pool| of_family(pool)).collect();
        if pools.is_empty() {
            return Err(Error::NotReady { family: if ipv6 { "IPv6" } else { "IPv4" } });
        }
        let pool = pools.iter().map(|pool| pool.prefix().to_string()).collect::<Vec<_>>().join(", ");
        let capacity = pools.iter().map(|pool| pool.capacity()).sum();
        Err(Error::Exhausted { pool, capacity })
    }

    fn release(&mut self, ip: IpAddr) -> bool {
        let released = self.owners.remove(&ip).is_some();
        if released {
            for pool in &mut self.pools {
                pool.give_back(ip);
            }
        }
        released
    }

    fn publish(&mut self) {
        self.usage.replace(self.pools.iter().map(|pool| PoolUsage {
            prefix: pool.prefix(),
            capacity: pool.capacity(),
            used: pool.taken(),
        }));
        self.usage.mark_initialized();
    }
}

#[cfg(test)]
mod tests;
