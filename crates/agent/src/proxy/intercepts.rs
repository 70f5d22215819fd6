// SPDX-License-Identifier: Apache-2.0
//! What pods of this node send to Services that have routes goes to the node's own proxies.

use super::Proxy;
use gateway::{Intercepted, ObjectName};
use model::{Pod, ServiceName};
use services::{Intercept, InterceptedPort};
use statedb::{Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A row for each Service of which a proxy takes something.
pub(super) fn derive(tasks: &Tasks, proxies: &Reader<Proxy>, pods: &Reader<Pod>) -> Reader<Intercept> {
    let by_pod = proxies.clone();
    let inputs = Inputs::of(proxies, services)
        .and(pods, move |pod| by_pod.snapshot().get(&pod.name).map(|proxy| services(&proxy)).unwrap_or_default());
    let (by_service, pods) = (proxies.index(services), pods.clone());
    let row = move |service: &ServiceName, _: Option<&Intercept>| {
        let pods = pods.snapshot();
        let taking = by_service.get(service).into_iter();
        let taking: Vec<_> = taking.filter_map(|proxy| Some((pods.get(&proxy.pod)?, proxy))).collect();
        let ports = ports(service, &taking);
        (!ports.is_empty()).then(|| Intercept { service: service.clone(), ports })
    };
    statedb::derive(tasks, "intercepts", inputs, row).rows
}

/// Services of which a proxy takes something.
fn services(proxy: &Proxy) -> BTreeSet<ServiceName> {
    proxy.intercepted.iter().map(|one| named(&one.service)).collect()
}

fn named(service: &ObjectName) -> ServiceName {
    ServiceName::new(Arc::clone(&service.namespace), Arc::clone(&service.name))
}

/// What the proxies take of a Service.
fn ports(service: &ServiceName, taking: &[(Arc<Pod>, Arc<Proxy>)]) -> Vec<InterceptedPort> {
    let mut by_port: BTreeMap<u16, Vec<(&Pod, &Proxy, &Intercepted)>> = BTreeMap::new();
    for (pod, proxy) in taking {
        for one in proxy.intercepted.iter().filter(|one| named(&one.service) == *service) {
            by_port.entry(one.port).or_default().push((pod, proxy, one));
        }
    }
    by_port.into_iter().map(|(port, takers)| intercepted(port, &takers)).collect()
}

/// Any of the proxies may be given a connection, so those pods count that all of them know; proxies that end soon count only if there are
/// no others.
fn intercepted(port: u16, takers: &[(&Pod, &Proxy, &Intercepted)]) -> InterceptedPort {
    let all_leave = takers.iter().all(|(_, proxy, _)| proxy.leaving);
    let counting = takers.iter().filter(|(_, proxy, _)| all_leave || !proxy.leaving);
    let clients: Option<BTreeSet<IpAddr>> =
        counting.map(|(.., one)| one.clients.clone()).reduce(|some, others| &some & &others);
    let addresses = takers.iter().flat_map(|(pod, proxy, one)| {
        let ips = pod.ips.iter().filter(|ip| ip.is_ipv4() == one.address.is_ipv4());
        ips.map(|ip| (SocketAddr::new(*ip, one.address.port()), proxy.leaving))
    });
    InterceptedPort { port, proxies: addresses.collect(), clients: clients.unwrap_or_default() }
}
