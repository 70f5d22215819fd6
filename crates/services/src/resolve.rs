// SPDX-License-Identifier: Apache-2.0
//! Source rows to frontends. It knows no map and no clock. What it says of an address depends on the present rows only, never on
//! the order in which they came; the numbers it gives out are the one exception.

use crate::ids::Ids;
use crate::ingest::{EndpointSlice, Port, Service, SliceEndpoint};
use model::{Backend, BackendId, BackendState, Frontend, FrontendKey, L4Addr, ServiceName, TrafficPolicy};
use parking_lot::Mutex;
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tracing::warn;

/// Numbers of services and backends.
#[derive(Debug)]
pub(crate) struct Numbers {
    services: Ids<FrontendKey>,
    backends: Ids<L4Addr>,
}

impl Numbers {
    /// Starts from the numbers that the maps hold.
    pub(crate) fn new(
        services: impl IntoIterator<Item = (FrontendKey, u32)>,
        backends: impl IntoIterator<Item = (L4Addr, u32)>,
    ) -> Self {
        Self { services: Ids::restore(services), backends: Ids::restore(backends) }
    }
}

/// Keeps the table of frontends equal to what follows from Services and EndpointSlices.
///
/// It is empty before both are complete: a Service without its slices would look like one without backends, and the pinned
/// maps, which are still right, would be emptied.
pub(crate) fn derive(
    tasks: &Tasks,
    services: &Reader<Service>,
    slices: &Reader<EndpointSlice>,
    numbers: Numbers,
) -> Derived<Frontend> {
    let of_slice = services.clone();
    let inputs = Inputs::of(services, addresses).and(slices, move |slice| {
        let service = of_slice.snapshot().get(&slice.service);
        service.map(|service| addresses(&service)).unwrap_or_default()
    });
    let numbers = Arc::new(Mutex::new(numbers));
    let resolver = Resolver {
        services: services.index(addresses),
        slices: slices.index(|slice| [slice.service.clone()]),
        numbers: Arc::clone(&numbers),
    };
    let frontends = statedb::derive(tasks, "frontends", inputs, move |addr, before| resolver.resolve(*addr, before));
    let rows = frontends.rows.clone();
    tasks.spawn("services-numbers", async move {
        rows.initialized().await;
        let mut numbers = numbers.lock();
        numbers.services.forget_unclaimed();
        numbers.backends.forget_unclaimed();
    });
    frontends
}

struct Resolver {
    /// By the addresses that they ask for. More than one is possible for a moment, while a Service is replaced by another with
    /// the same address: the first by name has it, the others wait.
    services: Index<Service, FrontendKey>,
    slices: Index<EndpointSlice, ServiceName>,
    numbers: Arc<Mutex<Numbers>>,
}

impl Resolver {
    fn resolve(&self, addr: FrontendKey, before: Option<&Frontend>) -> Option<Frontend> {
        let owners = self.services.get(&addr);
        if owners.len() > 1 {
            let names: Vec<_> = owners.iter().map(|service| service.name.to_string()).collect();
            warn!(frontend = %addr, services = names.join(", "), "Services claim the same address; the first one keeps it");
        }
        let numbers = &mut *self.numbers.lock();
        let frontend = owners.first().and_then(|service| self.frontend(service, addr, numbers));
        // Only now, so that a backend which stays keeps its number.
        if let Some(before) = before {
            numbers.services.release(&addr);
            before.backends.iter().for_each(|backend| numbers.backends.release(&backend.addr));
        }
        frontend
    }

    fn frontend(&self, service: &Service, key: FrontendKey, numbers: &mut Numbers) -> Option<Frontend> {
        let port = service.ports.iter().find(|p| p.port == key.addr.port && p.protocol == key.addr.protocol)?;
        let mut candidates = candidates(port, key.addr.ip, &self.slices.get(&service.name));
        if service.only_node.is_some() {
            candidates.retain(|_, candidate| candidate.node == service.only_node);
        }
        let backends = choose(candidates)
            .into_iter()
            .map(|(addr, node, state)| {
                let id = BackendId(numbers.backends.claim(&addr));
                Backend { node, ..Backend::new(id, addr, state) }
            })
            .collect();
        Some(Frontend {
            port_name: port.name.clone(),
            internal_policy: if service.only_node.is_some() { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
            local_only: service.only_node.is_some(),
            ..Frontend::new(key, numbers.services.claim(&key), service.name.clone(), backends)
        })
    }
}

fn addresses(service: &Service) -> Vec<FrontendKey> {
    let of_ip = |ip: &IpAddr| {
        let ip = *ip;
        service.ports.iter().map(move |p| FrontendKey::external(L4Addr { ip, port: p.port, protocol: p.protocol }))
    };
    service.cluster_ips.iter().flat_map(of_ip).collect()
}

/// The endpoints of all slices for one port and family, by address. An endpoint may be in two slices while it moves
/// from one to the other; what either says in its favour counts.
fn candidates(port: &Port, frontend: IpAddr, slices: &[Arc<EndpointSlice>]) -> BTreeMap<L4Addr, SliceEndpoint> {
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

/// Which candidates are backends: those that are ready, and those that keep their connections while they terminate.
fn choose(candidates: BTreeMap<L4Addr, SliceEndpoint>) -> Vec<(L4Addr, Option<Arc<str>>, BackendState)> {
    let state = |c: &SliceEndpoint| match (c.ready, c.terminating, c.serving) {
        (true, ..) => Some(BackendState::Active),
        (false, true, true) => Some(BackendState::Terminating),
        (false, true, false) => Some(BackendState::TerminatingNotServing),
        (false, false, _) => None,
    };
    candidates.into_iter().filter_map(|(addr, c)| state(&c).map(|state| (addr, c.node, state))).collect()
}

#[cfg(test)]
mod tests;
