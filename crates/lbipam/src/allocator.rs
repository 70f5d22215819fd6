// SPDX-License-Identifier: Apache-2.0
//! Who has which address. No I/O: rows go in, and what to write comes out.
//!
//! An address stays with a Service from the moment of the decision, written or not, until the Service is deleted or may no longer
//! have it. Addresses that statuses already name are adopted before anything new is given out.

mod former;
mod give;
mod occupancy;
mod pools;
mod settle;
mod waiting;

use crate::cluster::{Occupant, Use};
use crate::pool::{Pool, Spec};
use crate::range::Family;
use crate::service::Service;
use crate::status::{Counts, PoolUpdate, ServiceUpdate};
use crate::verdict::Verdict;
use former::Former;
use k8s::k8s_openapi::jiff::Timestamp;
use model::ServiceName;
use occupancy::Occupancy;
use pools::{Cluster, PoolName, PoolState, Pools, overlapped};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use waiting::Waiting;

/// Allocates addresses to Services.
#[derive(Debug, Default)]
pub struct Allocator {
    pools: Pools,
    cluster: Cluster,
    services: BTreeMap<ServiceName, ServiceState>,
    occupancy: Occupancy,
    by_sharing_key: BTreeMap<Arc<str>, BTreeSet<ServiceName>>,
    former: Former,
    waiting: Waiting,
    work: Work,
}

#[derive(Debug)]
struct ServiceState {
    service: Service,
    /// In the order they were allocated.
    held: Vec<IpAddr>,
    /// Addresses in its status whose pool cannot be determined.
    strays: Vec<IpAddr>,
    /// `None` until the first pool exists for it: the Service is not ours before that.
    verdict: Option<Verdict>,
}

impl ServiceState {
    fn has(&self, family: Family) -> bool {
        self.held.iter().chain(&self.strays).any(|address| Family::of(*address) == family)
    }
}

/// What has changed since the last call of `settle`.
#[derive(Debug, Default)]
struct Work {
    /// Services to look at.
    services: BTreeSet<ServiceName>,
    /// Those whose terms of sharing have changed.
    terms: BTreeSet<ServiceName>,
    /// Sharing keys of Services that have changed or released an address.
    keys: BTreeSet<Arc<str>>,
    /// Addresses that have become free.
    freed: BTreeSet<IpAddr>,
    /// Pools whose spec has changed, as they were before; `None` for a new one.
    specs: BTreeMap<PoolName, Option<Arc<Spec>>>,
    /// Pools whose status may have to change.
    pools: BTreeSet<PoolName>,
    /// Services whose status may have to change.
    touched: BTreeSet<ServiceName>,
}

/// What may have to be written.
#[derive(Debug, Default)]
pub struct Settled {
    /// Services for which [`Allocator::service_update`] may return something.
    pub services: BTreeSet<ServiceName>,
    /// Pools for which [`Allocator::pool_update`] may return something.
    pub pools: BTreeSet<Arc<str>>,
    /// How many Services were examined.
    pub considered: usize,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pools that overlap others.
    pub conflicting_pools: usize,
    /// Services managed here.
    pub services: usize,
    /// Those that lack an address.
    pub unsatisfied: usize,
}

impl Allocator {
    /// Adds or updates a pool.
    pub fn set_pool(&mut self, pool: Pool) {
        let name = pool.name.clone();
        self.work.pools.insert(name.clone());
        if let Some(before) = self.pools.set(pool) {
            self.work.specs.entry(name).or_insert(before);
        }
    }

    pub fn remove_pool(&mut self, name: &str) {
        if let Some(before) = self.pools.remove(name) {
            self.work.pools.remove(name);
            self.work.specs.entry(name.into()).or_insert(Some(before));
        }
    }

    /// Sets which addresses the cluster itself uses.
    pub fn set_occupant(&mut self, occupant: Occupant) {
        let before = self.cluster.insert(occupant.name, occupant.uses.clone());
        self.review_pools(&before.unwrap_or_default(), &occupant.uses);
    }

    /// Removes a node or ServiceCIDR and its addresses.
    pub fn remove_occupant(&mut self, name: &str) {
        let before = self.cluster.remove(name);
        self.review_pools(&before.unwrap_or_default(), &[]);
    }

    fn review_pools(&mut self, before: &[Use], now: &[Use]) {
        let changed: Vec<&Use> = match before == now {
            true => return,
            false => before.iter().chain(now).collect(),
        };
        for state in
            self.pools.iter().filter(|state| changed.iter().any(|used| overlapped(&state.pool.spec, used).is_some()))
        {
            let spec = Some(state.pool.spec.clone());
            self.work.specs.entry(state.pool.name.clone()).or_insert(spec);
            self.work.pools.insert(state.pool.name.clone());
        }
    }

    /// Adds or updates a Service.
    pub fn set_service(&mut self, service: Service) {
        let name = service.name.clone();
        let before = self.services.get(&name).map(|state| &state.service);
        if before == Some(&service) {
            return;
        }
        let terms = before.and_then(Service::sharing).cloned();
        let named = before.map(|before| before.present().collect()).unwrap_or_default();
        self.rename(&name, &named, &service.present().collect());
        if terms.as_ref() != service.sharing() {
            self.work.terms.insert(name.clone());
            terms.into_iter().for_each(|terms| self.unshare(&terms.key, &name));
            let present: Vec<IpAddr> = service.present().collect();
            present.into_iter().for_each(|address| self.review_holders_of(address));
            if let Some(terms) = service.sharing() {
                self.by_sharing_key.entry(terms.key.clone()).or_default().insert(name.clone());
                self.work.keys.insert(terms.key.clone());
            }
        }
        self.waiting.remove(&name);
        self.work.services.insert(name.clone());
        match self.services.get_mut(&name) {
            Some(state) => state.service = service,
            None => {
                let state = ServiceState { service, held: Vec::new(), strays: Vec::new(), verdict: None };
                self.services.insert(name, state);
            }
        }
    }

    /// Removes a Service. Its addresses are kept for a Service of the same name as long as there are others to give.
    pub fn remove_service(&mut self, name: &ServiceName) {
        let Some(state) = self.services.remove(name) else { return };
        let had: BTreeSet<IpAddr> = state.held.iter().copied().chain(state.service.present()).collect();
        for address in had {
            self.occupancy.release(name, address);
            self.occupancy.unname(name, address);
            self.review_holders_of(address);
            if self.occupancy.is_free(address) {
                let remembered = state.held.contains(&address).then(|| self.former.add(name, address));
                remembered.flatten().into_iter().for_each(|forgotten| self.pools.refresh(forgotten));
                self.vacated(address);
            }
        }
        if let Some(terms) = state.service.sharing() {
            self.unshare(&terms.key, name);
        }
        self.waiting.remove(name);
        self.work.services.remove(name);
        self.work.touched.remove(name);
    }

    /// The status to write to a Service, if its own is out of date.
    #[must_use]
    pub fn service_update(&self, name: &ServiceName, now: Timestamp) -> Option<ServiceUpdate> {
        let state = self.services.get(name).filter(|state| state.service.is_written())?;
        let given = state.held.iter().filter(|address| !self.is_delayed(&state.service, **address));
        let addresses = given.chain(&state.strays).copied().collect();
        ServiceUpdate::of(&state.service, addresses, state.verdict.as_ref(), now)
    }

    /// Whether another Service must lose an address before this one gets it: they shared it at the decision, and no longer do.
    fn is_delayed(&self, service: &Service, address: IpAddr) -> bool {
        service.present().all(|present| present != address) && self.obstacle(service, address).is_some()
    }

    /// The status to write to a pool, if its own is out of date.
    #[must_use]
    pub fn pool_update(&self, name: &str, now: Timestamp) -> Option<PoolUpdate> {
        self.pools.get(name)?.update(now)
    }

    /// Address counts of a pool.
    #[must_use]
    pub fn pool_counts(&self, name: &str) -> Option<Counts> {
        self.pools.get(name).map(PoolState::counts)
    }

    /// Counts pools and Services.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            conflicting_pools: self.pools.iter().filter(|state| state.conflict.is_some()).count(),
            services: self.services.values().filter(|state| state.verdict.is_some()).count(),
            unsatisfied: self.waiting.len(),
        }
    }

    fn unshare(&mut self, key: &Arc<str>, name: &ServiceName) {
        self.work.keys.insert(key.clone());
        if let Some(names) = self.by_sharing_key.get_mut(key) {
            names.remove(name);
            if names.is_empty() {
                self.by_sharing_key.remove(key);
            }
        }
    }

    fn hold(&mut self, name: &ServiceName, address: IpAddr) {
        let Some(state) = self.services.get_mut(name) else { return };
        state.held.push(address);
        // Others may share it.
        self.work.keys.extend(state.service.sharing().map(|terms| terms.key.clone()));
        let was_free = self.occupancy.is_free(address);
        self.occupancy.hold(name, address);
        if was_free {
            self.occupied(address);
        }
    }

    /// Takes an address away from a Service.
    fn release(&mut self, name: &ServiceName, address: IpAddr) {
        let Some(state) = self.services.get_mut(name) else { return };
        state.held.retain(|held| *held != address);
        self.work.keys.extend(state.service.sharing().map(|terms| terms.key.clone()));
        self.occupancy.release(name, address);
        if self.occupancy.is_free(address) {
            self.vacated(address);
        }
    }

    /// Records which addresses the status of a Service names, and named before.
    fn rename(&mut self, name: &ServiceName, before: &BTreeSet<IpAddr>, now: &BTreeSet<IpAddr>) {
        for address in now.difference(before) {
            let was_free = self.occupancy.is_free(*address);
            // Another controller may have written before us.
            self.work.services.extend(self.occupancy.holders(*address).filter(|holder| *holder != name).cloned());
            self.occupancy.name(name, *address);
            if was_free {
                self.occupied(*address);
            }
        }
        for address in before.difference(now) {
            self.occupancy.unname(name, *address);
            self.review_holders_of(*address);
            if self.occupancy.is_free(*address) {
                self.vacated(*address);
            }
        }
    }

    /// Marks those waiting for an address that was just written, and those that may now share it, to be looked at again.
    fn review_holders_of(&mut self, address: IpAddr) {
        for state in self.occupancy.holders(address).filter_map(|name| self.services.get(name)) {
            self.work.keys.extend(state.service.sharing().map(|terms| terms.key.clone()));
            self.work.touched.insert(state.service.name.clone());
        }
    }

    fn occupied(&mut self, address: IpAddr) {
        self.pools.take(address, self.former.seniority(address));
        self.former.forget(address);
        self.work.pools.extend(self.pools.names_of(address));
    }

    fn vacated(&mut self, address: IpAddr) {
        self.pools.give_back(address, self.former.seniority(address));
        self.work.freed.insert(address);
        self.work.pools.extend(self.pools.names_of(address));
    }
}

#[cfg(test)]
mod tests;
