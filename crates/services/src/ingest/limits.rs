// SPDX-License-Identifier: Apache-2.0
//! How much of the kernel's maps one Service may take, so that no author of one takes all from the others. What is beyond is left out and
//! told; never does more traffic get in for it.

use super::{Problem, Service, ServicePort};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::SourceRanges;
use std::sync::Arc;

/// External addresses, and addresses of load balancers.
const ADDRESSES: usize = 64;
/// Addresses by ports.
const FRONTENDS: usize = 4096;
/// Prefixes of clients.
const PREFIXES: usize = 1024;
const BACKENDS: usize = 1 << 15;
/// Backends at all frontends. Each takes up to two entries: as one that takes new connections, and as a member.
const BACKENDS_AT_FRONTENDS: usize = 1 << 17;

/// How many backends a Service may have at each of so many frontends.
pub(crate) const fn backends(frontends: usize) -> usize {
    match BACKENDS_AT_FRONTENDS.checked_div(frontends) {
        Some(most) if most < BACKENDS => most,
        _ => BACKENDS,
    }
}

/// How many endpoints are looked at for so many backends: some get no connections, or are for others. Beyond that a Service with many ports
/// and many endpoints would cost each node their product.
pub(crate) const fn candidates(backends: usize) -> usize {
    backends.saturating_mul(4)
}

/// Leaves out what is too much.
pub(super) fn apply(service: &mut Service) {
    let problems = &mut service.problems;
    cut("spec.externalIPs", &mut service.external_ips, ADDRESSES, "addresses", problems);
    cut("status.loadBalancer.ingress.ip", &mut service.load_balancer_ips, ADDRESSES, "addresses", problems);
    let addresses = service.cluster_ips.len() + service.external_ips.len() + service.load_balancer_ips.len();
    let at_nodes = usize::from(service.ports.iter().any(|port: &ServicePort| port.node_port.is_some()));
    let ports = FRONTENDS.checked_div(addresses + at_nodes).unwrap_or(FRONTENDS);
    cut("spec.ports", &mut service.ports, ports, "ports at its addresses", problems);
    if let Some(ranges) = service.source_ranges.take() {
        service.source_ranges = Some(clients(ranges, problems));
    }
}

fn cut<T>(field: &str, all: &mut Vec<T>, most: usize, what: &str, problems: &mut Vec<Problem>) {
    if all.len() > most {
        problems.push(Problem::new(field, format!("has {} {what}; the first {most} are served", all.len())));
        all.truncate(most);
    }
}

/// Of those who may, the first ones may; who may not cannot be told from the others, so that nobody may.
fn clients(ranges: Arc<SourceRanges>, problems: &mut Vec<Problem>) -> Arc<SourceRanges> {
    let count = ranges.prefixes.len();
    if count <= PREFIXES {
        return ranges;
    }
    let field = "spec.loadBalancerSourceRanges";
    if ranges.deny {
        problems
            .push(Problem::new(field, format!("has {count} prefixes, more than {PREFIXES}; all clients are refused")));
        let everybody = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        return Arc::new(SourceRanges { prefixes: everybody.to_vec(), deny: true });
    }
    problems.push(Problem::new(field, format!("has {count} prefixes; the first {PREFIXES} are let in")));
    Arc::new(SourceRanges { prefixes: ranges.prefixes.iter().take(PREFIXES).copied().collect(), deny: false })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
    use super::*;
    use model::Protocol;
    use std::net::IpAddr;

    fn told(service: &Service) -> Vec<String> {
        service.problems.iter().map(ToString::to_string).collect()
    }

    fn ranges(count: u8, deny: bool) -> Option<Arc<SourceRanges>> {
        let prefix = |n: u16| IpNet::from(IpAddr::from([10, count, (n >> 8) as u8, n as u8]));
        let prefixes = (0..u16::from(count) * 256).map(prefix).collect();
        Some(Arc::new(SourceRanges { prefixes, deny }))
    }

    #[test]
    fn the_more_frontends_the_fewer_backends() {
        assert_eq!([0, 1, 4].map(backends), [BACKENDS; 3]);
        assert_eq!([8, FRONTENDS].map(|frontends| backends(frontends) * frontends), [BACKENDS_AT_FRONTENDS; 2]);
    }

    #[test]
    fn addresses_and_ports_together_have_a_limit() {
        let port = |port| ServicePort { name: None, protocol: Protocol::Tcp, port, node_port: None };
        let cluster_ips = vec![IpAddr::from([10, 96, 0, 1])];
        let mut service = Service { cluster_ips, ports: (1..=5000).map(port).collect(), ..Service::default() };
        apply(&mut service);
        assert_eq!(service.ports.len(), FRONTENDS);
        assert_eq!(told(&service), ["spec.ports: has 5000 ports at its addresses; the first 4096 are served"]);
        service.external_ips = (0..100).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        apply(&mut service);
        assert_eq!((service.external_ips.len(), service.ports.len()), (64, 63));
        assert_eq!(told(&service)[1], "spec.externalIPs: has 100 addresses; the first 64 are served");
    }

    #[test]
    fn too_many_clients_let_nobody_in_who_is_not_named_and_nobody_who_is_to_be_refused() {
        let mut service = Service { source_ranges: ranges(4, false), ..Service::default() };
        apply(&mut service);
        assert_eq!((service.source_ranges.clone(), told(&service)), (ranges(4, false), vec![]));
        service.source_ranges = ranges(5, false);
        apply(&mut service);
        assert_eq!(
            service.source_ranges.as_ref().map(|ranges| (ranges.prefixes.len(), ranges.deny)),
            Some((1024, false))
        );
        service.source_ranges = ranges(5, true);
        apply(&mut service);
        let all = service.source_ranges.as_ref().map(|ranges| ranges.prefixes.iter().all(|p| p.prefix_len() == 0));
        assert_eq!((all, told(&service).len()), (Some(true), 2));
        let says = "spec.loadBalancerSourceRanges: has 1280 prefixes, more than 1024; all clients are refused";
        assert_eq!(told(&service)[1], says);
    }

    #[test]
    fn addresses_of_every_kind_and_of_nodes_count_and_what_is_just_enough_is_served() {
        let port = |port| ServicePort { name: None, protocol: Protocol::Tcp, port, node_port: Some(port) };
        let ips = |net: u8, count: u8| (0..count).map(|n| IpAddr::from([192, 0, net, n])).collect::<Vec<_>>();
        let (cluster_ips, ports) = (ips(1, 2), (1..=1024).map(port).collect());
        let mut service = Service { cluster_ips, external_ips: ips(2, 64), ports, ..Service::default() };
        apply(&mut service);
        // Two, sixty-four and that of the node.
        assert_eq!((service.external_ips.len(), service.ports.len()), (64, 61));
        assert_eq!(told(&service).len(), 1);
        service.load_balancer_ips = ips(3, 61);
        apply(&mut service);
        assert_eq!(service.ports.len(), FRONTENDS / 128);
        assert_eq!(told(&service).len(), 2);
        apply(&mut service);
        assert_eq!(told(&service).len(), 2, "that many are served");
    }
}
