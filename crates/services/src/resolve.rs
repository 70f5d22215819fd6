// SPDX-License-Identifier: Apache-2.0
//! Source rows to frontends. Pure: it knows no map and no clock. It is incremental (a change costs what depends on
//! it), and what it says depends on the present rows only, never on the order in which they came; the numbers it
//! gives out are the one exception.

use crate::ids::Ids;
use crate::ingest::{EndpointSlice, Port, Service, SliceEndpoint, SliceName};
use model::{Backend, BackendId, Frontend, FrontendKey, L4Addr, ServiceKind, ServiceName};
use statedb::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The present rows, and the frontends that follow from them.
#[derive(Debug)]
pub(crate) struct Resolver {
    services: BTreeMap<ServiceName, Arc<Service>>,
    slices: BTreeMap<ServiceName, BTreeMap<SliceName, Arc<EndpointSlice>>>,
    slice_owner: BTreeMap<SliceName, ServiceName>,
    /// Which Services ask for an address. More than one is possible for a moment, while a Service is replaced by
    /// another with the same address: the first by name has it, the others wait.
    claims: BTreeMap<FrontendKey, BTreeSet<ServiceName>>,
    claimed: BTreeMap<ServiceName, BTreeSet<FrontendKey>>,
    frontends: BTreeMap<FrontendKey, Frontend>,
    dirty: BTreeSet<ServiceName>,
    service_ids: Ids<FrontendKey>,
    backend_ids: Ids<L4Addr>,
}

/// What has changed since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    /// Frontends that are new or different.
    pub(crate) upserts: Vec<Frontend>,
    /// Frontends that are gone.
    pub(crate) deletes: Vec<FrontendKey>,
    /// Addresses that more than one Service asks for; the first has it.
    pub(crate) conflicts: Vec<(FrontendKey, Vec<ServiceName>)>,
}

impl Resolver {
    /// Starts from the numbers that the maps hold.
    pub(crate) fn new(
        services: impl IntoIterator<Item = (FrontendKey, u32)>,
        backends: impl IntoIterator<Item = (L4Addr, u32)>,
    ) -> Self {
        Self {
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_owner: BTreeMap::new(),
            claims: BTreeMap::new(),
            claimed: BTreeMap::new(),
            frontends: BTreeMap::new(),
            dirty: BTreeSet::new(),
            service_ids: Ids::restore(services),
            backend_ids: Ids::restore(backends),
        }
    }

    /// Takes note of a change of a Service.
    pub(crate) fn service(&mut self, change: &Change<Service>) {
        let name = match change {
            Change::Upsert(row) => {
                self.services.insert(row.name.clone(), row.clone());
                &row.name
            }
            Change::Delete(row) => {
                self.services.remove(&row.name);
                &row.name
            }
        };
        self.dirty.insert(name.clone());
    }

    /// Takes note of a change of an EndpointSlice.
    pub(crate) fn slice(&mut self, change: &Change<EndpointSlice>) {
        let (Change::Upsert(row) | Change::Delete(row)) = change;
        if let Some(owner) = self.slice_owner.remove(&row.name) {
            if let Some(of_owner) = self.slices.get_mut(&owner) {
                of_owner.remove(&row.name);
                if of_owner.is_empty() {
                    self.slices.remove(&owner);
                }
            }
            self.dirty.insert(owner);
        }
        if let Change::Upsert(row) = change {
            self.slice_owner.insert(row.name.clone(), row.service.clone());
            self.slices.entry(row.service.clone()).or_default().insert(row.name.clone(), row.clone());
            self.dirty.insert(row.service.clone());
        }
    }

    /// Frontends that follow from the changes noted since the last call.
    pub(crate) fn resolve(&mut self) -> Delta {
        let mut affected = BTreeSet::new();
        for name in std::mem::take(&mut self.dirty) {
            self.update_claims(&name, &mut affected);
        }
        let mut delta = Delta::default();
        for addr in affected {
            self.resolve_frontend(addr, &mut delta);
        }
        delta
    }

    /// Frees the numbers of entries in the maps that no Service has asked for; call it when all rows have been seen.
    pub(crate) fn forget_unclaimed(&mut self) {
        self.service_ids.forget_unclaimed();
        self.backend_ids.forget_unclaimed();
    }

    fn update_claims(&mut self, name: &ServiceName, affected: &mut BTreeSet<FrontendKey>) {
        let wanted: BTreeSet<_> = self.services.get(name).into_iter().flat_map(|s| addresses(s)).collect();
        let had = self.claimed.remove(name).unwrap_or_default();
        for addr in had.difference(&wanted) {
            if let Some(owners) = self.claims.get_mut(addr) {
                owners.remove(name);
                if owners.is_empty() {
                    self.claims.remove(addr);
                }
            }
        }
        for addr in &wanted {
            self.claims.entry(*addr).or_default().insert(name.clone());
        }
        affected.extend(had.union(&wanted));
        if !wanted.is_empty() {
            self.claimed.insert(name.clone(), wanted);
        }
    }

    fn resolve_frontend(&mut self, addr: FrontendKey, delta: &mut Delta) {
        let owners = self.claims.get(&addr);
        if let Some(owners) = owners.filter(|o| o.len() > 1) {
            delta.conflicts.push((addr, owners.iter().cloned().collect()));
        }
        let owner = owners.and_then(|o| o.first()).and_then(|name| self.services.get(name)).cloned();
        let old = self.frontends.get(&addr).cloned();
        let new = owner.and_then(|service| self.frontend(&service, addr));
        // Only now, so that a backend which stays keeps its number.
        if let Some(old) = &old {
            self.service_ids.release(&addr);
            old.backends.iter().for_each(|b| self.backend_ids.release(&b.addr));
        }
        match new {
            Some(new) => {
                if old.as_ref() != Some(&new) {
                    delta.upserts.push(new.clone());
                }
                self.frontends.insert(addr, new);
            }
            None => {
                if self.frontends.remove(&addr).is_some() {
                    delta.deletes.push(addr);
                }
            }
        }
    }

    fn frontend(&mut self, service: &Service, addr: FrontendKey) -> Option<Frontend> {
        let port = service.ports.iter().find(|p| p.port == addr.port && p.protocol == addr.protocol)?;
        let slices = self.slices.get(&service.name);
        let mut candidates = candidates(port, addr.ip, slices.into_iter().flat_map(BTreeMap::values));
        if service.only_node.is_some() {
            candidates.retain(|_, candidate| candidate.node == service.only_node);
        }
        let backends = choose(candidates)
            .into_iter()
            .map(|(addr, node, active)| Backend { id: BackendId(self.backend_ids.claim(&addr)), addr, node, active })
            .collect();
        Some(Frontend {
            id: self.service_ids.claim(&addr),
            addr,
            service: service.name.clone(),
            port_name: port.name.clone(),
            kind: ServiceKind::ClusterIp,
            backends,
        })
    }
}

fn addresses(service: &Service) -> impl Iterator<Item = FrontendKey> {
    let of_ip = |ip: &IpAddr| {
        let ip = *ip;
        service.ports.iter().map(move |p| L4Addr { ip, port: p.port, protocol: p.protocol })
    };
    service.cluster_ips.iter().flat_map(of_ip)
}

/// The endpoints of all slices for one port and family, by address. An endpoint may be in two slices while it moves
/// from one to the other; what either says in its favour counts.
fn candidates<'a>(
    port: &Port,
    frontend: IpAddr,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
) -> BTreeMap<L4Addr, SliceEndpoint> {
    let mut all: BTreeMap<L4Addr, SliceEndpoint> = BTreeMap::new();
    for slice in slices {
        let same = |p: &&Port| p.name == port.name && p.protocol == port.protocol;
        for target in slice.ports.iter().filter(same) {
            for endpoint in slice.endpoints.iter().filter(|e| e.ip.is_ipv4() == frontend.is_ipv4()) {
                let addr = L4Addr { ip: endpoint.ip, port: target.port, protocol: port.protocol };
                let seen = all.entry(addr).or_insert_with(|| endpoint.clone());
                seen.ready |= endpoint.ready;
                seen.serving |= endpoint.serving;
                seen.terminating &= endpoint.terminating;
                seen.node = seen.node.take().or_else(|| endpoint.node.clone());
            }
        }
    }
    all
}

/// Which candidates are backends, and which of them get new connections: those that are ready; if there is none, those
/// that still serve while they terminate. A terminating one that is not chosen keeps the connections it has.
fn choose(candidates: BTreeMap<L4Addr, SliceEndpoint>) -> Vec<(L4Addr, Option<Arc<str>>, bool)> {
    let any_ready = candidates.values().any(|c| c.ready);
    let backends = candidates.into_iter().filter(|(_, c)| c.ready || c.terminating);
    backends.map(|(addr, c)| (addr, c.node, if any_ready { c.ready } else { c.serving && c.terminating })).collect()
}

#[cfg(test)]
mod tests;
