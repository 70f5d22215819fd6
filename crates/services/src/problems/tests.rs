// SPDX-License-Identifier: Apache-2.0
//! What authors of Services are told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
use super::*;
use crate::ingest::ingest_service;
use serde_json::json;

fn service(name: &str, cluster_ip: &str, spec: &serde_json::Value) -> Service {
    let mut object = json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
        "spec": {"clusterIP": cluster_ip, "type": "NodePort", "ports": [{"port": 80}]}});
    spec.as_object().unwrap().iter().for_each(|(key, value)| object["spec"][key] = value.clone());
    ingest_service(&Config::default(), &serde_json::from_value(object).unwrap()).unwrap().unwrap()
}

#[tokio::test]
async fn who_asks_for_what_another_has_is_told_until_the_other_goes() {
    let (mut services, reader) = statedb::table("services");
    let tasks = Tasks::new(Default::default());
    let (mut nodes, nodes_reader) = statedb::table("nodes");
    let (mut slices, slices_reader) = statedb::table("slices");
    nodes.mark_initialized();
    slices.mark_initialized();
    let derived =
        problems(&tasks, &Config::default(), &Tables { services: reader, slices: slices_reader, nodes: nodes_reader });
    let thief = json!({"externalIPs": ["10.96.0.10"], "ports": [{"port": 80, "nodePort": 30080}]});
    services.insert(service("a-thief", "10.96.0.1", &thief));
    services.mark_initialized();
    derived.caught_up().await;
    assert!(derived.rows.snapshot().is_empty());
    services.insert(service("dns", "10.96.0.10", &json!({})));
    services.insert(service("web", "10.96.0.2", &json!({"ports": [{"port": 80, "nodePort": 30080}]})));
    services.commit();
    derived.caught_up().await;
    let told: Vec<_> = derived.rows.snapshot().iter().flat_map(|row| row.warnings().collect::<Vec<_>>()).collect();
    let notes: Vec<_> = told.iter().map(|warning| warning.note.as_str()).collect();
    assert_eq!(
        notes,
        [
            "Not all of the Service is honoured: spec.externalIPs: 10.96.0.10:80/TCP is that of the Service shop/dns",
            "Not all of the Service is honoured: spec.ports.nodePort: port 30080 is that of the Service shop/a-thief",
        ]
    );
    assert_eq!((told[0].about.name.as_deref(), told[0].about.uid.as_deref()), (Some("a-thief"), Some("uid-a-thief")));
    services.remove(&ServiceName::new("shop", "dns"));
    services.remove(&ServiceName::new("shop", "a-thief"));
    services.commit();
    derived.caught_up().await;
    assert!(derived.rows.snapshot().is_empty());
}

#[tokio::test]
async fn who_names_an_address_of_the_cluster_is_told_at_each_port_until_it_is_no_more() {
    let (mut services, services_reader) = statedb::table("services");
    let (mut nodes, nodes_reader) = statedb::table("nodes");
    let (mut slices, slices_reader) = statedb::table("slices");
    let tasks = Tasks::new(Default::default());
    let tables = Tables { services: services_reader, slices: slices_reader, nodes: nodes_reader };
    let config = Config { external_ips_node_ports: vec![], ..Config::default() };
    let derived = problems(&tasks, &config, &tables);
    let ips = ["10.0.1.7", "10.96.0.10", "192.168.0.11", "198.51.100.1", "203.0.113.5"];
    let ports = json!([{"name": "a", "port": 6443}, {"name": "b", "port": 10250}]);
    let with_ssh = json!([{"name": "a", "port": 6443}, {"name": "b", "port": 10250}, {"name": "c", "port": 22}]);
    services.insert(service("thief", "10.96.0.1", &json!({"externalIPs": ips, "ports": with_ssh})));
    services.insert(service("dns", "10.96.0.10", &json!({"ports": [{"port": 53, "protocol": "UDP"}]})));
    let balanced = service("balanced", "10.96.0.2", &json!({"ports": ports}));
    services.insert(Service { load_balancer_ips: vec!["192.168.0.12".parse().unwrap()], ..balanced });
    services.mark_initialized();
    nodes.insert(crate::owned::tests::node("n1", "192.168.0.11", "10.0.1.0/24"));
    nodes.insert(crate::owned::tests::node("n2", "192.168.0.12", "10.0.2.0/24"));
    nodes.mark_initialized();
    slices.insert(crate::owned::tests::api_server("198.51.100.1"));
    slices.mark_initialized();
    derived.caught_up().await;
    let row = |name: &str| ServiceName::new("shop", name);
    let told_of = |name| {
        let row = derived.rows.snapshot().get(&row(name));
        row.map(|row| row.problems.iter().map(|problem| problem.reason.clone()).collect::<Vec<_>>())
    };
    let told = || told_of("thief");
    let all = [
        "10.0.1.7:22/TCP is that of a pod",
        "10.0.1.7:6443/TCP is that of a pod",
        "10.0.1.7:10250/TCP is that of a pod",
        "10.96.0.10:22/TCP is that of the Service shop/dns",
        "10.96.0.10:6443/TCP is that of the Service shop/dns",
        "10.96.0.10:10250/TCP is that of the Service shop/dns",
        "192.168.0.11:22/TCP is that of a node, and not among external-ips-node-ports",
        "192.168.0.11:6443/TCP is that of a node",
        "192.168.0.11:10250/TCP is that of a node",
        "198.51.100.1:6443/TCP is that of the API server",
    ];
    assert_eq!(told().unwrap(), all);
    let of_node = ["192.168.0.12:6443/TCP is that of a node", "192.168.0.12:10250/TCP is that of a node"];
    assert_eq!(told_of("balanced").unwrap(), of_node);
    for name in ["n1", "n2"] {
        nodes.remove(&model::NodeName { cluster: "default".into(), name: name.into() });
    }
    nodes.commit();
    slices.remove(&crate::owned::tests::api_server("198.51.100.1").name);
    slices.commit();
    services.remove(&row("dns"));
    services.commit();
    derived.caught_up().await;
    assert_eq!((told(), told_of("balanced")), (None, None));
}

/// What authors are told of Services.
async fn told(all: Vec<Service>) -> Vec<ServiceProblems> {
    let (mut services, reader) = statedb::table("services");
    let (mut nodes, nodes_reader) = statedb::table("nodes");
    let (mut slices, slices_reader) = statedb::table("slices");
    let tasks = Tasks::new(Default::default());
    let derived =
        problems(&tasks, &Config::default(), &Tables { services: reader, slices: slices_reader, nodes: nodes_reader });
    all.into_iter().for_each(|row| services.insert(row));
    services.mark_initialized();
    nodes.mark_initialized();
    slices.mark_initialized();
    derived.caught_up().await;
    derived.rows.snapshot().iter().map(|row| ServiceProblems::clone(row)).collect()
}

#[tokio::test]
async fn an_address_that_a_controller_gave_counts_more_than_one_that_an_author_wrote() {
    let ip: IpAddr = "192.0.2.9".parse().unwrap();
    let author = service("a-author", "10.96.0.1", &json!({"externalIPs": ["192.0.2.9"]}));
    let given = Service { load_balancer_ips: vec![ip], ..service("given", "10.96.0.2", &json!({})) };
    let rows = told(vec![author, given]).await;
    let [row] = &*rows else { unreachable!("{rows:?}") };
    assert_eq!(
        (&*row.service.name, row.problems[0].reason.as_str()),
        ("a-author", "192.0.2.9:80/TCP is that of the Service shop/given")
    );
    let about = row.warnings().next().unwrap().about;
    let text = |field: &Option<String>| field.clone().unwrap();
    assert_eq!(
        (text(&about.api_version), text(&about.kind), text(&about.namespace)),
        ("v1".to_owned(), "Service".to_owned(), "shop".to_owned())
    );
    let condition = row.corrected_condition("2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    assert_eq!((&*condition.status, &*condition.type_), ("False", "cilium.io/ServiceHonoured"));
    assert!(condition.message.contains("spec.externalIPs: 192.0.2.9:80/TCP"), "{}", condition.message);
}

#[test]
fn a_field_asks_for_an_address_at_the_ports_and_protocols_of_the_service_only() {
    let ports = json!([{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]);
    let row = service("web", "10.96.0.1", &json!({"externalIPs": ["192.0.2.9"], "ports": ports}));
    for (claim, field) in [
        ("0.0.0.0:30080/TCP", Some("spec.ports.nodePort")),
        ("0.0.0.0:30080/UDP", None),
        ("0.0.0.0:80/TCP", None),
        ("10.96.0.1:80/TCP", Some("spec.clusterIPs")),
        ("10.96.0.1:53/UDP", Some("spec.clusterIPs")),
        ("10.96.0.1:53/TCP", None),
        ("10.96.0.1:81/TCP", None),
        ("192.0.2.9:80/TCP", Some(EXTERNAL_IPS)),
        ("192.0.2.8:80/TCP", None),
    ] {
        let claims = claims(&row);
        let (addr, protocol) = claim.split_once('/').unwrap();
        let addr: std::net::SocketAddr = addr.parse().unwrap();
        let protocol = if protocol == "UDP" { model::Protocol::Udp } else { model::Protocol::Tcp };
        let claim = L4Addr { ip: addr.ip(), port: addr.port(), protocol };
        assert_eq!(field_of(&row, &claim), field, "{claim}");
        assert_eq!(claims.get(&claim).copied(), field, "{claim}");
    }
}

#[tokio::test]
async fn endpoints_that_are_not_used_are_told_for_as_long_as_they_are_there() {
    let (mut services, reader) = statedb::table("services");
    let (mut nodes, nodes_reader) = statedb::table("nodes");
    let (mut slices, slices_reader) = statedb::table("slices");
    let tasks = Tasks::new(Default::default());
    let tables = Tables { services: reader, slices: slices_reader, nodes: nodes_reader };
    let derived = problems(&tasks, &Config::default(), &tables);
    services.insert(service("web", "10.96.0.1", &json!({"trafficDistribution": "PreferClose"})));
    services.mark_initialized();
    nodes.mark_initialized();
    let slice = |n: u8, endpoints: serde_json::Value| {
        let object = json!({"metadata": {"name": format!("web-{n}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints});
        crate::ingest_slice(&Config::default(), &serde_json::from_value(object).unwrap()).unwrap()
    };
    slices.insert(slice(0, json!([{"addresses": ["10.0.0.1"]}])));
    slices.mark_initialized();
    derived.caught_up().await;
    let row = || derived.rows.snapshot().get(&ServiceName::new("shop", "web")).unwrap();
    let reasons = || row().warnings().map(|warning| warning.reason).collect::<Vec<_>>();
    assert_eq!(reasons(), ["ServiceNotHonoured"]);
    for n in 1..=SLICES + 2 {
        slices.insert(slice(n as u8, json!([{"addresses": ["x"]}, {"addresses": ["10.0.0.1"]}])));
    }
    slices.commit();
    derived.caught_up().await;
    assert_eq!((reasons(), row().endpoints.len()), (vec!["ServiceNotHonoured", "EndpointsNotUsed"], SLICES + 1));
    let note = row().warnings().nth(1).unwrap().note;
    let says = "Not all endpoints of the Service are used: EndpointSlice web-1 endpoints[0].addresses[0]: \"x\" is not an IP address. ";
    assert!(note.starts_with(says) && note.ends_with("EndpointSlices: 2 more are not used as a whole"), "{note}");
    let said = row().corrected_condition("2026-01-01T00:00:00Z".parse().unwrap()).unwrap().message;
    assert!(said.contains("spec.trafficDistribution") && said.contains("EndpointSlice web-4"), "{said}");
    for n in 1..=SLICES + 2 {
        slices.remove(&slice(n as u8, json!([])).name);
    }
    slices.commit();
    derived.caught_up().await;
    assert_eq!(reasons(), ["ServiceNotHonoured"]);
}
