// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const PROXY: &str = "10.0.0.9:10001";

fn frontend(kind: ServiceKind, at: &str, numbers: &mut Ids<L4Addr>) -> Frontend {
    let addr = |text: &str| {
        let at: SocketAddr = text.parse().unwrap();
        L4Addr { ip: at.ip(), port: at.port(), protocol: Protocol::Tcp }
    };
    let backend = addr("10.0.1.1:8080");
    let backend = Backend::new(BackendId(numbers.claim(&backend)), backend, BackendState::Active);
    let service = ServiceName::new("shop", "cart");
    Frontend { kind, ..Frontend::new(FrontendKey::external(addr(at)), 0, service, [backend].into()) }
}

fn intercept(proxies: &[(&str, bool)], clients: &[&str]) -> Intercept {
    let proxies = proxies.iter().map(|(at, leaving)| (at.parse().unwrap(), *leaving)).collect();
    let clients = clients.iter().map(|ip| ip.parse().unwrap()).collect();
    Intercept { service: ServiceName::new("shop", "cart"), ports: vec![InterceptedPort { port: 80, proxies, clients }] }
}

/// Frontends with their backends, and who may use them, if not all.
fn diverted(intercept: &Intercept) -> Vec<String> {
    let mut numbers = Ids::restore(Vec::new());
    let mut served = Served::new(ServiceName::new("shop", "cart"));
    for (kind, at) in [
        (ServiceKind::ClusterIp, "10.96.0.7:80"),
        (ServiceKind::ClusterIp, "10.96.0.7:443"),
        (ServiceKind::NodePort, "192.168.0.1:30080"),
        (ServiceKind::LoadBalancer, "192.0.2.1:80"),
    ] {
        served.frontends.push(frontend(kind, at, &mut numbers));
    }
    let row = resolve(&name(&intercept.service), intercept, &served, &"here".into(), &mut numbers);
    served::release(&row, &mut numbers);
    let shown = row.frontends.iter().map(|frontend| {
        let backends: Vec<_> = frontend.backends.iter().map(|one| format!("{} {}", one.addr, one.state)).collect();
        let clients = frontend.source_ranges.as_ref().map(|ranges| {
            assert!(!ranges.deny && frontend.pods_only && frontend.spares_backends);
            ranges.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        });
        let clients = clients.map(|clients| format!(" for {clients}")).unwrap_or_default();
        format!("{} {}: {}{clients}", frontend.key, frontend.kind, backends.join(", "))
    });
    shown.collect()
}

#[test]
fn pods_whom_a_proxy_knows_go_to_it_and_others_where_they_went() {
    assert_eq!(
        diverted(&intercept(&[(PROXY, false), ("10.0.0.8:10001", true)], &["10.0.0.1", "fd00::1"])),
        [
            "10.96.0.7:80/TCP LocalRedirect: 10.0.0.9:10001/TCP active, 10.0.0.8:10001/TCP terminating for 10.0.0.1/32",
            "10.96.0.7:80/TCP/u ClusterIP: 10.0.1.1:8080/TCP active",
        ]
    );
}

#[test]
fn without_a_proxy_of_the_family_that_stays_or_without_pods_a_service_is_as_it_was() {
    for (proxies, clients) in [
        (&[(PROXY, true)][..], &["10.0.0.1"][..]),
        (&[("[fd00::9]:10001", false)], &["10.0.0.1"]),
        (&[(PROXY, false)], &["fd00::1"]),
        (&[(PROXY, false)], &[]),
        (&[], &["10.0.0.1"]),
    ] {
        assert_eq!(diverted(&intercept(proxies, clients)), [""; 0], "{proxies:?} {clients:?}");
    }
}
