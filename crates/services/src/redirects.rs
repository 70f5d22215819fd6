// SPDX-License-Identifier: Apache-2.0
//! What local redirect policies make of addresses on this node: the table `local-redirects`. A policy without a pod that is ready here
//! claims nothing, so that a Service goes on as it is, and an address is itself.

use crate::ids::Ids;
use crate::ingest::{Redirect, RedirectFrom, target};
use crate::served::{self, BackendNumbers, Served};
use ipnet::IpNet;
use k8s::kube::core::SelectorExt as _;
use model::{
    Backend, BackendId, BackendSource, BackendState, Frontend, FrontendKey, L4Addr, NodeName, Pod, Scope, ServiceKind,
    ServiceName, SourceRanges,
};
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The tables that it follows from.
pub(crate) struct Tables {
    pub(crate) redirects: Reader<Redirect>,
    pub(crate) pods: Reader<Pod>,
    pub(crate) served: Reader<Served>,
    pub(crate) node: NodeName,
}

/// Keeps the table equal to what follows from policies, pods of this node, and Services as they are served without policies.
pub(crate) fn derive(tasks: &Tasks, tables: &Tables, numbers: BackendNumbers) -> Derived<Served> {
    let by_namespace = tables.redirects.index(|redirect| [redirect.name.namespace.clone()]);
    let by_service = tables.redirects.index(|redirect| redirect.from.service().cloned());
    let names = |redirects: Vec<Arc<Redirect>>| redirects.iter().map(|redirect| name(redirect)).collect::<Vec<_>>();
    let inputs = Inputs::of(&tables.redirects, |redirect| [name(redirect)])
        .and(&tables.pods, move |pod| names(by_namespace.get(&pod.name.namespace)))
        .and(&tables.served, move |served| names(by_service.get(&served.name)));
    let by_name = tables.redirects.index(|redirect| [name(redirect)]);
    let resolver = Resolver {
        pods: tables.pods.index(|pod| [pod.name.namespace.clone()]),
        served: tables.served.clone(),
        node: tables.node.name.as_str().into(),
    };
    statedb::derive(tasks, "local-redirects", inputs, move |policy, before| {
        let numbers = &mut *numbers.lock();
        let row = by_name.get(policy).first().map(|redirect| resolver.resolve(redirect, numbers));
        // Only now, so that a backend which stays keeps its number.
        before.into_iter().for_each(|before| served::release(before, numbers));
        row
    })
}

/// What the name of a policy ends in among Services.
pub(crate) const SUFFIX: &str = ":local-redirect";

/// What a policy is called among Services. None of them has a colon in its name.
pub(crate) fn name(redirect: &Redirect) -> ServiceName {
    ServiceName::new(redirect.name.namespace.clone(), format!("{}{SUFFIX}", redirect.name.name))
}

struct Resolver {
    pods: Index<Pod, Arc<str>>,
    served: Reader<Served>,
    node: Arc<str>,
}

impl Resolver {
    fn resolve(&self, redirect: &Redirect, numbers: &mut Ids<L4Addr>) -> Served {
        let mut row = Served { created: redirect.created, ..Served::new(name(redirect)) };
        let pods = self.pods.get(&redirect.name.namespace);
        let ips: BTreeSet<IpAddr> =
            pods.iter().filter(|pod| is_backend(redirect, pod)).flat_map(|pod| &pod.ips).copied().collect();
        for frontend in self.frontends(redirect) {
            let Some(port) = frontend.target else { continue };
            let same_family = ips.iter().filter(|ip| ip.is_ipv4() == frontend.key.addr.ip.is_ipv4());
            let backends: Arc<[Backend]> =
                same_family.map(|ip| self.backend(*ip, port, &frontend.key, numbers)).collect();
            if !backends.is_empty() {
                redirected(redirect, &frontend, backends, &mut row, numbers);
            }
        }
        row
    }

    /// The frontends that the policy names, each with the port of its pods.
    fn frontends(&self, redirect: &Redirect) -> Vec<Named> {
        match &redirect.from {
            RedirectFrom::Address(ip, ports) => ports
                .iter()
                .map(|port| Named {
                    key: FrontendKey::external(L4Addr { ip: *ip, port: port.port, protocol: port.protocol }),
                    target: target(&redirect.ports, port.name.as_deref(), port.protocol, ports.len() == 1),
                    without: None,
                })
                .collect(),
            RedirectFrom::Service(service, ports) => {
                let Some(served) = self.served.snapshot().get(service) else { return Vec::new() };
                let named = |frontend: &&Frontend| {
                    let addr = &frontend.key.addr;
                    let is_it = || ports.iter().any(|port| (port.port, port.protocol) == (addr.port, addr.protocol));
                    frontend.kind == ServiceKind::ClusterIp && (ports.is_empty() || is_it())
                };
                let frontends: Vec<&Frontend> = served.frontends.iter().filter(named).collect();
                let numbers: BTreeSet<_> = frontends.iter().map(|f| (f.key.addr.port, f.key.addr.protocol)).collect();
                let named = |frontend: &&Frontend| Named {
                    key: frontend.key,
                    target: target(
                        &redirect.ports,
                        frontend.port_name.as_deref(),
                        frontend.key.addr.protocol,
                        numbers.len() == 1,
                    ),
                    without: Some((*frontend).clone()),
                };
                frontends.iter().map(named).collect()
            }
        }
    }

    fn backend(&self, ip: IpAddr, port: u16, key: &FrontendKey, numbers: &mut Ids<L4Addr>) -> Backend {
        let addr = L4Addr { ip, port, protocol: key.addr.protocol };
        let id = BackendId(numbers.claim(&addr));
        let node = Some(Arc::clone(&self.node));
        Backend { node, source: BackendSource::Pod, ..Backend::new(id, addr, BackendState::Active) }
    }
}

/// A frontend that a policy names.
struct Named {
    key: FrontendKey,
    /// The port of the policy's pods that it leads to.
    target: Option<u16>,
    /// What it is without the policy.
    without: Option<Frontend>,
}

/// Adds the frontend, with these pods behind it, to the row of the policy.
fn redirected(
    redirect: &Redirect,
    named: &Named,
    backends: Arc<[Backend]>,
    row: &mut Served,
    numbers: &mut Ids<L4Addr>,
) {
    let spared = redirect.spares_its_pods.then(|| {
        let prefixes = backends.iter().map(|backend| IpNet::from(backend.addr.ip)).collect();
        Arc::new(SourceRanges { prefixes, deny: true })
    });
    row.frontends.push(Frontend {
        port_name: named.without.as_ref().and_then(|frontend| frontend.port_name.clone()),
        kind: ServiceKind::LocalRedirect,
        owns_address: named.without.is_some(),
        // What the node asks at an address is not for the author of a policy, who owns the Service that it names.
        pods_only: named.without.is_none(),
        spares_backends: spared.is_some(),
        source_ranges: spared.clone(),
        ..Frontend::new(named.key, 0, row.name.clone(), Arc::clone(&backends))
    });
    row.lists.push(backends);
    if let Some(without) = named.without.as_ref().filter(|_| spared.is_some()) {
        let key = FrontendKey { scope: Scope::Unredirected, ..named.key };
        for backend in without.backends.iter() {
            numbers.claim(&backend.addr);
        }
        row.lists.push(Arc::clone(&without.backends));
        row.frontends.push(Frontend { key, ..without.clone() });
    }
}

/// Whether the policy chooses the pod. One in the node's network has no address of its own.
fn is_backend(redirect: &Redirect, pod: &Pod) -> bool {
    pod.ready && !pod.host_network && !pod.ended && redirect.pods.matches(&pod.labels)
}
