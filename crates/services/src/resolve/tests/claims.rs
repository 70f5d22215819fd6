// SPDX-License-Identifier: Apache-2.0
//! Who may have which address, and what becomes of redirects and host ports.

use super::kinds::{address_row, node_row, pod_row};
use super::*;
use crate::config::Ports;
use crate::intercepts::InterceptedPort;
use crate::served::HealthCheck;
use model::config::Value as _;
use model::{Algorithm, BackendSource, Forwarding};
use serde_json::{Value, json};
use std::time::Duration;

/// A policy in the namespace of the Services here, for pods with the label `app=x`.
fn redirect(frontend: &Value, ports: &Value) -> Redirect {
    let backend = json!({"localEndpointSelector": {"matchLabels": {"app": "x"}}, "toPorts": ports});
    let spec = json!({"redirectFrontend": frontend, "redirectBackend": backend});
    let object = json!({"metadata": {"namespace": "default", "name": "p", "uid": "u"}, "spec": spec});
    crate::ingest_redirect(&Config::default(), &serde_json::from_value(object).unwrap()).unwrap().unwrap()
}

/// What redirects lead to.
fn target() -> Pod {
    Pod {
        name: PodName::new("default", "x-1"),
        labels: [("app".to_owned(), "x".to_owned())].into(),
        ips: vec!["10.0.1.9".parse().unwrap()],
        ready: true,
        ..Pod::default()
    }
}

/// Address and kind of each frontend.
fn kinds(bench: &Bench) -> Vec<String> {
    bench.rows().values().map(|row| format!("{} {}", row.key, row.kind)).collect()
}

fn row(bench: &Bench, key: &str) -> Frontend {
    bench.rows().into_values().find(|row| row.key.to_string() == key).unwrap()
}

#[test]
fn a_redirect_of_a_service_takes_the_ports_that_it_names_at_the_cluster_address() {
    let port =
        |name: Option<&str>, port: &str, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
    let matcher =
        |ports: Value| json!({"serviceMatcher": {"namespace": "default", "serviceName": "dns", "toPorts": ports}});
    let mut r = resolver();
    let ports = [("dns", Protocol::Udp, 53), ("dns-tcp", Protocol::Tcp, 53), ("metrics", Protocol::Tcp, 9153)];
    let external_ips = vec!["192.0.2.9".parse().unwrap()];
    r.service(&up(Service { external_ips, ..service_row("dns", &["10.96.0.10"], &ports) }));
    r.pods.insert(target());
    let named = redirect(&matcher(json!([port(Some("dns"), "53", "UDP")])), &json!([port(Some("dns"), "1053", "UDP")]));
    r.redirects.insert(named);
    r.resolve();
    let redirected = |r: &Bench| {
        let all = r.rows();
        let all = all.values().filter(|row| row.kind == ServiceKind::LocalRedirect);
        all.map(|row| format!("{} {}", row.key, row.backends[0].addr)).collect::<Vec<_>>()
    };
    assert_eq!(redirected(&r), ["10.96.0.10:53/UDP 10.0.1.9:1053/UDP"]);
    assert_eq!(row(&r, "10.96.0.10:53/UDP").backends[0].source, BackendSource::Pod);
    assert_eq!(r.rows().len(), 6);
    // One port without a name is that of a Service with one port only.
    let single = redirect(&matcher(json!([])), &json!([port(None, "1053", "TCP")]));
    r.redirects.insert(single);
    r.resolve();
    assert_eq!(redirected(&r), [""; 0]);
    r.service(&up(service_row("dns", &["10.96.0.10"], &ports[1..2])));
    r.resolve();
    assert_eq!(redirected(&r), ["10.96.0.10:53/TCP 10.0.1.9:1053/TCP"]);
}

#[test]
fn an_address_that_an_author_named_is_lost_to_a_pod_prefix_while_there_is_one() {
    let mut r = resolver();
    let ports = json!([{"port": "80", "protocol": "TCP"}]);
    let address = json!({"addressMatcher": {"ip": "10.0.9.8", "toPorts": ports}});
    r.redirects.insert(redirect(&address, &json!([{"port": "8080", "protocol": "TCP"}])));
    r.pods.insert(target());
    let external_ips = vec!["10.0.9.9".parse().unwrap()];
    r.service(&up(Service { external_ips, ..service_row("web", &["10.96.0.1"], &HTTP) }));
    r.resolve();
    let all = ["10.0.9.8:80/TCP LocalRedirect", "10.0.9.9:80/TCP ExternalIPs", "10.96.0.1:80/TCP ClusterIP"];
    assert_eq!(kinds(&r), all);
    r.nodes.insert(Node { pod_cidrs: vec!["10.0.9.0/24".parse().unwrap()], ..node_row("n2", &["192.168.0.12"], &[]) });
    r.resolve();
    assert_eq!(kinds(&r), all[2..]);
    r.nodes.remove(&node_name("n2"));
    r.resolve();
    assert_eq!(kinds(&r), all);
}

#[test]
fn a_service_with_routes_leads_pods_to_the_proxy_and_a_redirect_of_its_own_comes_first() {
    let mut r = resolver();
    r.service(&up(service_row("web", &["10.96.0.1"], &[("", Protocol::Tcp, 80), ("x", Protocol::Tcp, 81)])));
    let port = InterceptedPort {
        port: 80,
        proxies: vec![("10.0.1.8:10001".parse().unwrap(), false)],
        clients: ["10.0.1.1".parse().unwrap()].into(),
    };
    r.intercepts.insert(Intercept { service: service_name("web"), ports: vec![port] });
    r.resolve();
    let all = ["10.96.0.1:80/TCP LocalRedirect", "10.96.0.1:80/TCP/u ClusterIP", "10.96.0.1:81/TCP ClusterIP"];
    assert_eq!(kinds(&r), all);
    assert_eq!(row(&r, "10.96.0.1:80/TCP").service, service_name("web"));
    assert_ne!(row(&r, "10.96.0.1:80/TCP").id, row(&r, "10.96.0.1:80/TCP/u").id);

    r.pods.insert(target());
    let matcher = json!({"serviceMatcher": {"namespace": "default", "serviceName": "web", "toPorts": []}});
    r.redirects.insert(redirect(&matcher, &json!([{"port": "8080", "protocol": "TCP"}])));
    r.resolve();
    assert_eq!(row(&r, "10.96.0.1:80/TCP").service, service_name("web"), "ports do not belong together");
    r.service(&up(service_row("web", &["10.96.0.1"], &[("", Protocol::Tcp, 80)])));
    r.resolve();
    assert_eq!(row(&r, "10.96.0.1:80/TCP").service.name.as_ref(), "p:local-redirect");

    r.redirects.remove(&ServiceName::new("default", "p"));
    r.intercepts.remove(&service_name("web"));
    r.resolve();
    assert_eq!(kinds(&r), ["10.96.0.1:80/TCP ClusterIP"]);
}

#[test]
fn a_redirected_address_is_no_nodes_and_no_services() {
    let mut r = resolver();
    let ports = json!([{"port": "80", "protocol": "TCP"}]);
    let at = |ip: &str| {
        redirect(
            &json!({"addressMatcher": {"ip": ip, "toPorts": ports}}),
            &json!([{"port": "8080", "protocol": "TCP"}]),
        )
    };
    r.pods.insert(target());
    r.nodes.insert(node_row("n2", &["192.168.0.12"], &[]));
    let load_balancer_ips = vec!["192.0.2.8".parse().unwrap()];
    r.service(&up(Service { load_balancer_ips, ..service_row("web", &["10.96.0.1"], &[("a", Protocol::Tcp, 81)]) }));
    for (ip, redirects) in [("169.254.1.1", true), ("192.168.0.12", false), ("10.96.0.1", false), ("192.0.2.8", true)] {
        r.redirects.insert(at(ip));
        r.resolve();
        let key = format!("{ip}:80/TCP LocalRedirect");
        assert_eq!(kinds(&r).contains(&key), redirects, "{ip}");
    }
    // Of a load balancer it is what the Service has not.
    let load_balancer_ips = vec!["192.0.2.8".parse().unwrap()];
    r.service(&up(Service { load_balancer_ips, ..service_row("web", &["10.96.0.1"], &HTTP) }));
    r.resolve();
    assert_eq!(row(&r, "192.0.2.8:80/TCP").kind, ServiceKind::LoadBalancer);
}

#[test]
fn an_external_address_is_refused_for_each_reason_by_itself() {
    let mut r = resolver();
    let node = Node { pod_cidrs: vec!["10.0.2.0/24".parse().unwrap()], ..node_row("n2", &["192.168.0.12"], &[]) };
    r.nodes.insert(node);
    // At another port than the thief's.
    r.service(&up(service_row("dns", &["10.96.0.10"], &[("dns", Protocol::Udp, 53)])));
    let own = "10.96.0.1";
    let ips = ["10.0.2.7", "10.96.0.10", "192.0.2.9", "192.168.0.12", own].map(|ip| ip.parse().unwrap()).to_vec();
    let ports = [("kubelet", Protocol::Tcp, 10250), ("http", Protocol::Tcp, 80)];
    r.service(&up(Service { external_ips: ips, ..service_row("thief", &[own], &ports) }));
    r.resolve();
    assert_eq!(
        kinds(&r),
        [
            "10.96.0.1:80/TCP ClusterIP",
            "10.96.0.1:10250/TCP ClusterIP",
            "10.96.0.10:53/UDP ClusterIP",
            "192.0.2.9:80/TCP ExternalIPs",
            "192.0.2.9:10250/TCP ExternalIPs",
            "192.168.0.12:80/TCP ExternalIPs",
        ]
    );
}

#[test]
fn an_external_address_stays_with_the_older_service_whatever_the_younger_is_called() {
    let named = |name: &str, ip: &str, created| {
        let external_ips = vec!["192.0.2.9".parse().unwrap()];
        Service { external_ips, created, ..service_row(name, &[ip], &HTTP) }
    };
    let mut r = resolver();
    r.service(&up(named("web", "10.96.0.1", 1)));
    r.service(&up(named("a-thief", "10.96.0.2", 2)));
    r.resolve();
    assert_eq!(row(&r, "192.0.2.9:80/TCP").service, service_name("web"));
    r.service(&up(named("a-thief", "10.96.0.2", 1)));
    r.resolve();
    assert_eq!(row(&r, "192.0.2.9:80/TCP").service, service_name("a-thief"), "of one second");
}

#[test]
fn ports_of_nodes_that_are_given_away_can_be_taken_whoever_came_first() {
    let given_away = vec![Ports::parse("80").unwrap(), Ports::parse("10240-10259").unwrap()];
    let mut r = Bench::new(
        &Config { external_ips_node_ports: given_away, ..proxy() },
        Numbers { services: vec![], backends: vec![] },
    );
    let ips = ["192.168.0.12", "192.168.0.13"].map(|ip| ip.parse().unwrap()).to_vec();
    let ports = [("kubelet", Protocol::Tcp, 10250), ("ssh", Protocol::Tcp, 22), ("http", Protocol::Tcp, 80)];
    let external = |r: &Bench| -> Vec<String> {
        kinds(r).into_iter().filter_map(|kind| kind.strip_suffix(" ExternalIPs").map(str::to_owned)).collect()
    };
    r.nodes.insert(node_row("n2", &["192.168.0.12"], &[]));
    r.service(&up(Service { external_ips: ips, ..service_row("web", &["10.96.0.1"], &ports) }));
    r.resolve();
    let of_nobody = ["192.168.0.13:22/TCP", "192.168.0.13:80/TCP", "192.168.0.13:10250/TCP"];
    assert_eq!(external(&r), [&["192.168.0.12:80/TCP"][..], &of_nobody].concat());
    // A node that joins later has its ports from then on.
    r.nodes.insert(node_row("n3", &["192.168.0.13"], &[]));
    r.resolve();
    assert_eq!(external(&r), ["192.168.0.12:80/TCP", "192.168.0.13:80/TCP"]);
    r.nodes.remove(&node_name("n3"));
    r.resolve();
    assert_eq!(external(&r).len(), 4);
    // What one node alone knows of is as on all others: a floating address that a Service names is not lost where it is.
    r.addresses.insert(address_row("192.168.0.13", true));
    r.resolve();
    assert_eq!(external(&r), ["192.168.0.12:80/TCP", "192.168.0.13:22/TCP", "192.168.0.13:80/TCP"]);
}

/// What is claimed while the tables of redirects and Services are not of one moment.
#[test]
fn a_redirect_has_a_cluster_address_only_while_a_service_of_its_namespace_has_it() {
    let at = |scope| FrontendKey {
        addr: L4Addr { ip: "10.96.0.10".parse().unwrap(), port: 53, protocol: Protocol::Udp },
        scope,
    };
    let claim = |name: ServiceName, kind, scope| {
        let frontend = Frontend { kind, ..Frontend::new(at(scope), 0, name.clone(), [].into()) };
        Served { frontends: vec![frontend], ..Served::new(name) }
    };
    for (namespace, redirected) in [("default", true), ("other", false)] {
        let (mut services, service_rows) = statedb::table("services");
        let (mut redirects, redirect_rows) = statedb::table("redirects");
        let (_, pods) = statedb::table::<Served>("pods");
        let (_, intercepts) = statedb::table::<Served>("intercepts");
        let (_, slices) = statedb::table("slices");
        let (_, nodes) = statedb::table("nodes");
        let (_, addresses) = statedb::table::<NodeAddress>("addresses");
        let keys = |served: &Served| served.keys().collect::<Vec<_>>();
        let resolver = Resolver {
            services: service_rows.index(keys),
            pods: pods.index(keys),
            redirects: redirect_rows.index(keys),
            intercepts: intercepts.index(keys),
            cluster_ips: service_rows.index(cluster_ips),
            owned: Owned::new(&nodes, &slices, &Config::default()),
            addresses: addresses.index(|address| [address.address]),
            numbers: Arc::new(Mutex::new(Ids::restore([]))),
        };
        let policy = || ServiceName::new("default", "p:local-redirect");
        services.insert(claim(ServiceName::new(namespace, "dns"), ServiceKind::ClusterIp, Scope::External));
        services.commit();
        let of = |scope| resolver.claimed(at(scope)).map(|row| row.service.clone());
        redirects.insert(claim(policy(), ServiceKind::LocalRedirect, Scope::External));
        redirects.commit();
        let owner = if redirected { policy() } else { ServiceName::new(namespace, "dns") };
        assert_eq!(of(Scope::External), Some(owner), "{namespace}");
        redirects.insert(claim(policy(), ServiceKind::ClusterIp, Scope::Unredirected));
        redirects.commit();
        assert_eq!(of(Scope::Unredirected), redirected.then(policy), "{namespace}");
        assert_eq!(of(Scope::External), Some(ServiceName::new(namespace, "dns")));
    }
}

#[test]
fn host_ports_follow_the_nodes_addresses_and_lead_to_their_pod() {
    let mut r = resolver();
    r.nodes.insert(node_row("n1", &[], &[("topology.kubernetes.io/zone", "z1")]));
    r.pods.insert(pod_row("10.0.0.9", None, false));
    let other = HostPort { ip: None, port: 9443, container_port: 443, protocol: Protocol::Tcp };
    let name = PodName::new("shop", "other");
    r.pods.insert(Pod { name, host_ports: vec![other], ..pod_row("10.0.0.8", None, false) });
    r.resolve();
    assert!(r.rows().is_empty(), "there is no address yet");
    r.addresses.insert(address_row("192.168.0.11", true));
    r.resolve();
    assert_eq!(kinds(&r), ["192.168.0.11:8443/TCP HostPort", "192.168.0.11:9443/TCP HostPort"]);
    let row = row(&r, "192.168.0.11:8443/TCP");
    assert!(row.exposed && !row.owns_address);
    let backend = &row.backends[0];
    assert_eq!((backend.addr.to_string(), backend.source), ("10.0.0.9:443/TCP".to_owned(), BackendSource::Pod));
    assert_eq!((backend.node.as_deref(), backend.zone.as_deref()), (Some("n1"), Some("z1")));
}

#[test]
fn a_frontend_has_what_its_service_says() {
    let mut r = resolver();
    let web = Service {
        load_balancer_ips: vec!["192.0.2.8".parse().unwrap()],
        external_ips: vec!["192.0.2.9".parse().unwrap()],
        external_policy: TrafficPolicy::Local,
        internal_policy: TrafficPolicy::Local,
        affinity: Some(Duration::from_secs(9)),
        algorithm: Some(Algorithm::Maglev),
        forwarding: Some(Forwarding::Dsr),
        health_check_node_port: Some(30999),
        ..service_row("web", &["10.96.0.1"], &HTTP)
    };
    r.service(&up(web.clone()));
    r.resolve();
    let row = row(&r, "192.0.2.8:80/TCP");
    assert_eq!((row.external_policy, row.internal_policy), (TrafficPolicy::Local, TrafficPolicy::Local));
    assert_eq!((row.algorithm, row.forwarding), (Algorithm::Maglev, Forwarding::Dsr));
    assert_eq!((row.affinity, row.health_check_node_port), (Some(Duration::from_secs(9)), Some(30999)));
    assert_eq!(row.port_name.as_deref(), Some("http"));
    assert_eq!(r.rows().len(), 5);
    r.service(&up(Service { only: Some(ServiceKind::LoadBalancer), ..web }));
    r.resolve();
    assert_eq!(kinds(&r), ["192.0.2.8:80/TCP LoadBalancer", "192.0.2.8:80/TCP/i LoadBalancer"]);
}

#[test]
fn a_balancer_is_told_of_the_ready_endpoints_of_this_node() {
    let health = |config: &Config, port| {
        let mut r = Bench::new(config, Numbers { services: vec![], backends: vec![] });
        r.service(&up(Service { health_check_node_port: port, ..service_row("web", &["10.96.0.1"], &HTTP) }));
        let elsewhere = SliceEndpoint { node: Some("n2".into()), ..endpoint("10.0.0.3", true, true, false) };
        let here = [endpoint("10.0.0.1", true, true, false), endpoint("10.0.0.2", false, true, false)];
        r.slice(&up(slice_row("web-1", "web", &TARGET, [here.to_vec(), vec![elsewhere]].concat())));
        r.resolve();
        r.derived.served.rows.snapshot().iter().next().unwrap().health
    };
    let check = Some(HealthCheck { port: 30999, local_endpoints: 1 });
    assert_eq!(health(&proxy(), Some(30999)), check);
    assert_eq!(health(&proxy(), None), None);
    assert_eq!(health(&Config { health_checks: false, ..proxy() }, Some(30999)), None);
    assert_eq!(health(&Config { kube_proxy_replacement: false, ..proxy() }, Some(30999)), None);
}

#[test]
fn what_ends_keeps_its_connections_whatever_its_hints_say() {
    let mut r = Bench::new(&Config { topology: true, ..proxy() }, Numbers { services: vec![], backends: vec![] });
    r.nodes.insert(node_row("n1", &[], &[("topology.kubernetes.io/zone", "z1")]));
    r.service(&up(service_row("web", &["10.96.0.1"], &HTTP)));
    let hinted = |ip: &str, zone: &str, ready| SliceEndpoint {
        for_zones: vec![zone.into()],
        ..endpoint(ip, ready, true, !ready)
    };
    let all = vec![hinted("10.0.0.1", "z1", true), hinted("10.0.0.2", "z2", true), hinted("10.0.0.3", "z2", false)];
    r.slice(&up(slice_row("web-1", "web", &TARGET, all)));
    r.resolve();
    assert_eq!(lines(&r), ["10.96.0.1:80/TCP: 10.0.0.1:8080/TCP (10.0.0.3:8080/TCP)"]);
}

#[test]
fn frontends_for_clients_inside_count_as_well() {
    let mut r = resolver();
    let names: Vec<String> = (0..256).map(|n| format!("p{n}")).collect();
    let ports = |first: u16| -> Vec<_> { (first..).zip(&names).map(|(n, name)| (&**name, Protocol::Tcp, n)).collect() };
    let endpoints = (0..600).map(|n: u16| endpoint(&format!("10.0.{}.{}", n >> 8, n & 255), true, true, false));
    r.slices.insert(slice_row("web-1", "web", &ports(8000), endpoints.collect()));
    for (external_policy, most) in [(TrafficPolicy::Cluster, 512), (TrafficPolicy::Local, 256)] {
        r.service(&up(Service { external_policy, ..service_row("web", &["10.96.0.1"], &ports(1000)) }));
        r.resolve();
        assert!(r.rows().values().all(|row| row.backends.len() == most), "{external_policy}");
    }
}
