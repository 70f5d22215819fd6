// SPDX-License-Identifier: Apache-2.0
//! Gives a Service the addresses it lacks.

use super::Allocator;
use super::pools::PoolState;
use crate::range::Family;
use crate::service::{Service, Wanted};
use crate::verdict::{Reason, Verdict, refusal};
use model::ServiceName;
use std::net::IpAddr;

impl Allocator {
    /// Gives a Service what it lacks, as far as possible, and sets its verdict.
    pub(super) fn satisfy(&mut self, name: &ServiceName) {
        self.reclaim(name);
        self.waiting.remove(name);
        self.work.touched.insert(name.clone());
        let Some(service) = self.services.get(name).map(|state| state.service.clone()) else { return };
        let Some(claim) = service.claim().filter(|_| self.is_ours(&service)) else {
            return self.judge(name, None);
        };
        // It keeps its last verdict.
        if service.deleting {
            return;
        }
        let mut refusals: Vec<Verdict> =
            claim.fault.iter().map(|fault| refusal(Reason::InvalidRequest, fault)).collect();
        let mut lacking = Vec::new();
        match &claim.wanted {
            Wanted::Addresses(addresses) => {
                for address in addresses {
                    if let Err(refusal) = self.give_this(&service, *address) {
                        refusals.push(refusal);
                        lacking.push(*address);
                    }
                }
            }
            Wanted::Families(families) => {
                refusals.extend(families.iter().filter_map(|family| self.give_any(&service, *family).err()));
            }
        }
        if !refusals.is_empty() {
            self.waiting.insert(&service, lacking);
        }
        self.judge(name, Some(Verdict::of(refusals)));
    }

    fn judge(&mut self, name: &ServiceName, verdict: Option<Verdict>) {
        if let Some(state) = self.services.get_mut(name) {
            state.verdict = verdict;
        }
    }

    fn has(&self, name: &ServiceName, family: Family) -> bool {
        self.services.get(name).is_some_and(|state| state.has(family))
    }

    fn holds(&self, name: &ServiceName, address: IpAddr) -> bool {
        self.services.get(name).is_some_and(|state| state.held.contains(&address) || state.strays.contains(&address))
    }

    fn give_this(&mut self, service: &Service, address: IpAddr) -> Result<(), Verdict> {
        if self.holds(&service.name, address) {
            return Ok(());
        }
        let pools: Vec<&PoolState> = self.pools.of(address).collect();
        let Some(pool) = pools.iter().find(|pool| pool.is_open()) else {
            return Err(refusal(Reason::NoPool, closed(address, pools.first().copied())));
        };
        let name = &pool.pool.name;
        if !pool.selects(service.subject()) {
            let message = format!("the CiliumLoadBalancerIPPool {name} of {address} does not select this Service");
            return Err(refusal(Reason::PoolSelectorMismatch, message));
        }
        if pool.withholds(address) {
            let message = format!(
                "{address} is kept back: by spec.allowFirstLastIPs of CiliumLoadBalancerIPPool {name}, or for the cluster itself"
            );
            return Err(refusal(Reason::AlreadyAllocated, message));
        }
        if let Some((other, why)) = self.obstacle(service, address) {
            return Err(taken(service, address, &other, &why));
        }
        self.hold(&service.name, address);
        Ok(())
    }

    fn give_any(&mut self, service: &Service, family: Family) -> Result<(), Verdict> {
        if self.has(&service.name, family) {
            return Ok(());
        }
        let address = match self.shareable(service, family) {
            Some(address) => address,
            None => self.free(service, family)?,
        };
        self.hold(&service.name, address);
        Ok(())
    }

    /// An address of another Service that this one may share.
    fn shareable(&self, service: &Service, family: Family) -> Option<IpAddr> {
        let others = self.by_sharing_key.get(&service.sharing()?.key)?.iter().filter(|name| **name != service.name);
        let addresses = others.filter_map(|name| self.services.get(name)).flat_map(|state| state.held.iter().copied());
        let gives =
            |address: IpAddr| self.pools.of(address).any(|pool| pool.is_open() && pool.selects(service.subject()));
        let mut candidates = addresses.filter(|address| Family::of(*address) == family && gives(*address));
        candidates.find(|address| self.obstacle(service, *address).is_none())
    }

    /// Returns to a Service what its predecessor of the same name had, if that is free.
    pub(super) fn reclaim(&mut self, name: &ServiceName) {
        let former: Vec<IpAddr> = self.former.of(name).collect();
        for address in former {
            let Some(state) = self.services.get(name) else { return };
            let family = Family::of(address);
            let claim = state.service.claim().filter(|_| self.is_ours(&state.service) && !state.service.deleting);
            let lacks = claim.is_some_and(|claim| claim.wants_any(family)) && !state.has(family);
            let subject = state.service.subject();
            let gives = |pool: &PoolState| pool.is_open() && pool.selects(subject) && !pool.withholds(address);
            if lacks && self.pools.of(address).any(gives) {
                self.hold(name, address);
            }
        }
    }

    /// The next free address of a pool.
    fn free(&self, service: &Service, family: Family) -> Result<IpAddr, Verdict> {
        let pools: Vec<&PoolState> =
            self.pools.for_service(service.subject()).filter(|pool| pool.has(family)).collect();
        pools.iter().find_map(|pool| pool.next(family)).ok_or_else(|| exhausted(&pools, family))
    }
}

fn exhausted(pools: &[&PoolState], family: Family) -> Verdict {
    if pools.is_empty() {
        let message = format!("no enabled CiliumLoadBalancerIPPool with {family} selects this Service");
        return refusal(Reason::NoPool, message);
    }
    let names: Vec<&str> = pools.iter().take(3).map(|pool| &*pool.pool.name).collect();
    let more = if pools.len() > names.len() { " and others" } else { "" };
    let message = format!("no {family} address is left in CiliumLoadBalancerIPPool {}{more}", names.join(", "));
    refusal(Reason::OutOfIps, message)
}

fn closed(address: IpAddr, pool: Option<&PoolState>) -> String {
    match pool {
        None => format!("no CiliumLoadBalancerIPPool has {address}"),
        Some(state) => {
            let why = if state.conflict.is_some() { "conflicts with another" } else { "is disabled" };
            format!("the CiliumLoadBalancerIPPool {} of {address} {why}", state.pool.name)
        }
    }
}

fn taken(service: &Service, address: IpAddr, other: &ServiceName, why: &str) -> Verdict {
    if service.sharing().is_none() {
        return refusal(Reason::AlreadyAllocated, format!("{address} is the address of Service {other}"));
    }
    let message = format!("{address} is the address of Service {other}, which cannot share it: {why}");
    refusal(Reason::AlreadyAllocatedIncompatibleService, message)
}
