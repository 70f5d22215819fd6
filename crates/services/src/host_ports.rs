// SPDX-License-Identifier: Apache-2.0
//! Ports of this node that its pods ask for (`hostPort`): the table `host-ports`.

pub(crate) mod taken;

use crate::Config;
use crate::here::{Here, Sources};
use crate::ids::Ids;
use crate::served::{self, BackendNumbers, Served};
use model::{
    Backend, BackendId, BackendSource, BackendState, Frontend, FrontendKey, HostPort, L4Addr, Pod, PodName,
    ServiceKind, ServiceName,
};
use statedb::{Derived, Inputs, Reader, Tasks};
use std::net::IpAddr;
use std::sync::Arc;

/// Keeps the table equal to what follows from pods of this node.
pub(crate) fn derive(
    tasks: &Tasks,
    config: &Config,
    pods: &Reader<Pod>,
    here: &Sources,
    numbers: BackendNumbers,
) -> Derived<Served> {
    let (pods, here, on) = (pods.clone(), here.clone(), config.exposes());
    let all = pods.clone();
    let inputs = Inputs::of(&pods, |pod| [name(&pod.name)]).and(&here.addresses, move |_| {
        all.snapshot().iter().filter(|pod| !pod.host_ports.is_empty()).map(|pod| name(&pod.name)).collect::<Vec<_>>()
    });
    let by_name = pods.index(|pod| [name(&pod.name)]);
    statedb::derive(tasks, "host-ports", inputs, move |service, before| {
        let numbers = &mut *numbers.lock();
        let pod = by_name.get(service).into_iter().next().filter(|pod| on && serves(pod));
        let row = pod.map(|pod| resolve(service, &pod, &here.here(), numbers));
        before.into_iter().for_each(|before| served::release(before, numbers));
        row
    })
}

/// What the name of a pod ends in among Services.
const SUFFIX: &str = ":host-port";

/// What it is called among Services. None of them has a colon in its name.
fn name(pod: &PodName) -> ServiceName {
    ServiceName::new(pod.namespace.clone(), format!("{}{SUFFIX}", pod.name))
}

fn serves(pod: &Pod) -> bool {
    !(pod.host_network || pod.ended || pod.host_ports.is_empty())
}

fn resolve(service: &ServiceName, pod: &Pod, here: &Here, numbers: &mut Ids<L4Addr>) -> Served {
    let mut served = Served::new(service.clone());
    for port in &pod.host_ports {
        let places = addresses(port, here);
        if let Some(ip) = port.ip.filter(|_| places.is_empty()) {
            served.elsewhere.push(L4Addr { ip, port: port.port, protocol: port.protocol });
        }
        for ip in &pod.ips {
            let addr = L4Addr { ip: *ip, port: port.container_port, protocol: port.protocol };
            let backends: Arc<[Backend]> = [backend(addr, here, numbers)].into();
            let at = |ip| FrontendKey::external(L4Addr { ip, port: port.port, protocol: port.protocol });
            let places = places.iter().copied().filter(|place| place.is_ipv4() == ip.is_ipv4());
            served.frontends.extend(places.map(|place| Frontend {
                kind: ServiceKind::HostPort,
                exposed: !place.is_loopback(),
                owns_address: false,
                ..Frontend::new(at(place), 0, service.clone(), Arc::clone(&backends))
            }));
            served.lists.push(backends);
        }
    }
    served
}

/// The address that the pod names, if it is this node's, or all at which ports of nodes are served. A loopback address is for the host's own
/// programs.
fn addresses(port: &HostPort, here: &Here) -> Vec<IpAddr> {
    match port.ip {
        None => here.node_port_ips.clone(),
        Some(ip) if ip.is_loopback() => vec![ip],
        Some(ip) => here.ips.iter().copied().filter(|own| *own == ip).take(1).collect(),
    }
}

fn backend(addr: L4Addr, here: &Here, numbers: &mut Ids<L4Addr>) -> Backend {
    let id = BackendId(numbers.claim(&addr));
    let (node, zone) = (Some(here.name.clone()), here.zone.clone());
    Backend { node, zone, source: BackendSource::Pod, ..Backend::new(id, addr, BackendState::Active) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_at_the_address_that_the_pod_names_and_at_the_loopback_for_the_host_alone() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let here = Here {
            ips: vec![ip("192.0.2.1"), ip("2001:db8::1")],
            node_port_ips: vec![ip("192.0.2.1"), ip("2001:db8::1")],
            ..Here::default()
        };
        let served = |at: Option<&str>| {
            let port = HostPort { ip: at.map(ip), port: 8088, container_port: 80, protocol: model::Protocol::Tcp };
            let pod = Pod { ips: vec![ip("10.0.0.7"), ip("fd00::7")], host_ports: vec![port], ..Pod::default() };
            let row = resolve(&ServiceName::new("net", "web"), &pod, &here, &mut Ids::restore([]));
            let elsewhere: Vec<_> = row.elsewhere.iter().map(L4Addr::to_string).collect();
            let missing = if row.frontends.is_empty() { vec![format!("{}:8088/TCP", at.unwrap())] } else { vec![] };
            assert_eq!(elsewhere, missing);
            row.frontends.iter().map(|frontend| (frontend.key.addr.ip, frontend.exposed)).collect::<Vec<_>>()
        };
        assert_eq!(served(None), [(ip("192.0.2.1"), true), (ip("2001:db8::1"), true)]);
        assert_eq!(served(Some("192.0.2.1")), [(ip("192.0.2.1"), true)]);
        assert_eq!(served(Some("127.0.0.1")), [(ip("127.0.0.1"), false)]);
        assert_eq!(served(Some("::1")), [(ip("::1"), false)]);
        assert_eq!(served(Some("192.0.2.9")), [], "another node's");
    }
}
