// SPDX-License-Identifier: Apache-2.0
//! Ports of Services whose requests from pods of this node the node's proxy routes: the table `intercepted-services`. The cluster addresses
//! lead some pods to the proxy, and all others to where they lead without.

use crate::ids::Ids;
use crate::served::{self, BackendNumbers, Served};
use ipnet::IpNet;
use model::{
    Backend, BackendId, BackendSource, BackendState, Frontend, FrontendKey, L4Addr, NodeName, Protocol, Scope,
    ServiceKind, ServiceName, SourceRanges,
};
use statedb::{Derived, Inputs, Reader, Tasks};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A Service whose requests the node's proxy routes. One row per such Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// Namespace and name.
    pub service: ServiceName,
    /// Its ports that have routes.
    pub ports: Vec<InterceptedPort>,
}

/// A TCP port of a Service that has routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptedPort {
    /// Number.
    pub port: u16,
    /// Where proxies take its connections, and whether each is about to end.
    pub proxies: Vec<(SocketAddr, bool)>,
    /// Pods of this node whose connections they take.
    pub clients: BTreeSet<IpAddr>,
}

impl statedb::Row for Intercept {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.service.clone()
    }
}

/// Keeps the table equal to what follows from proxies and from Services as they are served without them.
pub(crate) fn derive(
    tasks: &Tasks,
    intercepts: &Reader<Intercept>,
    served: &Reader<Served>,
    node: &NodeName,
    numbers: BackendNumbers,
) -> Derived<Served> {
    let inputs =
        Inputs::of(intercepts, |row: &Intercept| [name(&row.service)]).and(served, |served| [name(&served.name)]);
    let by_name = intercepts.index(|row| [name(&row.service)]);
    let (served, node) = (served.clone(), Arc::<str>::from(node.name.as_str()));
    statedb::derive(tasks, "intercepted-services", inputs, move |name, before| {
        let numbers = &mut *numbers.lock();
        let row = by_name.get(name).first().and_then(|intercept| {
            let served = served.snapshot().get(&intercept.service)?;
            Some(resolve(name, intercept, &served, &node, numbers))
        });
        // Only now, so that a backend which stays keeps its number.
        before.into_iter().for_each(|before| served::release(before, numbers));
        row
    })
}

/// What it is called among redirects. No Service has a colon in its name.
fn name(service: &ServiceName) -> ServiceName {
    ServiceName { name: format!("{}:routes", service.name).into(), ..service.clone() }
}

fn resolve(
    name: &ServiceName,
    intercept: &Intercept,
    served: &Served,
    node: &Arc<str>,
    numbers: &mut Ids<L4Addr>,
) -> Served {
    // Whoever redirects the Service himself has it.
    let mut row = Served { created: i64::MAX, ..Served::new(name.clone()) };
    let at_cluster_ip = served.frontends.iter().filter(|frontend| frontend.kind == ServiceKind::ClusterIp);
    for frontend in at_cluster_ip.filter(|frontend| frontend.key.addr.protocol == Protocol::Tcp) {
        let Some(port) = intercept.ports.iter().find(|port| port.port == frontend.key.addr.port) else { continue };
        let ipv4 = frontend.key.addr.ip.is_ipv4();
        let proxies = port.proxies.iter().filter(|(address, _)| address.is_ipv4() == ipv4);
        let backends: Arc<[Backend]> = proxies.map(|proxy| backend(*proxy, node, numbers)).collect();
        let clients: Vec<_> =
            port.clients.iter().filter(|ip| ip.is_ipv4() == ipv4).map(|ip| IpNet::from(*ip)).collect();
        if backends.iter().any(|backend| backend.state == BackendState::Active) && !clients.is_empty() {
            divert(&mut row, frontend, backends, clients, numbers);
        } else {
            backends.iter().for_each(|backend| numbers.release(&backend.addr));
        }
    }
    row
}

fn backend((address, leaving): (SocketAddr, bool), node: &Arc<str>, numbers: &mut Ids<L4Addr>) -> Backend {
    let addr = L4Addr { ip: address.ip(), port: address.port(), protocol: Protocol::Tcp };
    let id = BackendId(numbers.claim(&addr));
    let state = if leaving { BackendState::Terminating } else { BackendState::Active };
    Backend { node: Some(Arc::clone(node)), source: BackendSource::Pod, ..Backend::new(id, addr, state) }
}

/// These clients go to these backends; everybody else goes where the frontend leads.
fn divert(
    row: &mut Served,
    without: &Frontend,
    backends: Arc<[Backend]>,
    clients: Vec<IpNet>,
    numbers: &mut Ids<L4Addr>,
) {
    row.frontends.push(Frontend {
        port_name: without.port_name.clone(),
        kind: ServiceKind::LocalRedirect,
        pods_only: true,
        spares_backends: true,
        source_ranges: Some(Arc::new(SourceRanges { prefixes: clients, deny: false })),
        ..Frontend::new(without.key, 0, without.service.clone(), Arc::clone(&backends))
    });
    row.lists.push(backends);
    for backend in without.backends.iter() {
        numbers.claim(&backend.addr);
    }
    row.lists.push(Arc::clone(&without.backends));
    let key = FrontendKey { scope: Scope::Unredirected, ..without.key };
    row.frontends.push(Frontend { key, ..without.clone() });
}

#[cfg(test)]
mod tests;
