// SPDX-License-Identifier: Apache-2.0
//! Tests of ingestion.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use k8s::kube::core::{Selector, SelectorExt as _};
use model::{Algorithm, Forwarding, Protocol, RoutingMode, ServiceKind, TrafficPolicy};
use serde_json::json;
use std::time::Duration;

fn service(extra: serde_json::Value) -> core::Service {
    let mut object = json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"], "ports": [{"port": 80}]},
    });
    merge(&mut object, extra);
    serde_json::from_value(object).unwrap()
}

fn slice(extra: serde_json::Value) -> discovery::EndpointSlice {
    let mut object = json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    merge(&mut object, extra);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(serde_json::Value::Null), v));
        }
        (into, from) => *into = from,
    }
}

#[test]
fn a_service_of_both_families_has_both_addresses() {
    let row = ingest_service(&Config::default(), &service(json!({}))).unwrap().unwrap();
    assert_eq!(row.cluster_ips, ["10.96.0.9".parse::<IpAddr>().unwrap(), "fd00::9".parse().unwrap()]);
    assert_eq!(row.ports, [ServicePort { name: None, protocol: Protocol::Tcp, port: 80, node_port: None }]);
    assert_eq!((row.nodes, row.problems), (Selector::default(), vec![]));
}

#[test]
fn an_old_api_server_gives_one_address_only() {
    let row = ingest_service(&Config::default(), &service(json!({"spec": {"clusterIPs": null}}))).unwrap().unwrap();
    assert_eq!(row.cluster_ips, ["10.96.0.9".parse::<IpAddr>().unwrap()]);
}

#[test]
fn services_without_a_cluster_address_give_no_row() {
    let none = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    let label = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    let external = json!({"spec": {"type": "ExternalName", "clusterIP": null, "clusterIPs": null}});
    let pending = json!({"spec": {"clusterIP": "", "clusterIPs": null}});
    for extra in [none, label, external, pending] {
        assert_eq!(ingest_service(&Config::default(), &service(extra.clone())), Ok(None), "{extra}");
    }
}

#[test]
fn another_proxys_services_and_slices_are_left_to_it() {
    let labels = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}});
    let (default, other) = (Config::default(), Config { proxy_name: "other".to_owned(), ..Config::default() });
    assert_eq!(ingest_service(&default, &service(labels.clone())), Ok(None));
    assert_eq!(ingest_slice(&default, &slice(labels.clone())), None);
    assert!(ingest_service(&other, &service(labels.clone())).unwrap().is_some());
    assert!(ingest_slice(&other, &slice(labels)).is_some());
    assert_eq!(ingest_service(&other, &service(json!({}))), Ok(None));
    let nobodys = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": ""}}});
    assert_eq!(ingest_service(&default, &service(nobodys)), Ok(None));
}

#[test]
fn a_field_that_cannot_be_used_is_named() {
    let error = |extra| ingest_service(&Config::default(), &service(extra)).unwrap_err().to_string();
    assert_eq!(
        error(json!({"spec": {"clusterIPs": ["10.96.0.300"]}})),
        "spec.clusterIPs: \"10.96.0.300\" is not an IP address"
    );
    assert_eq!(
        error(json!({"spec": {"ports": [{"port": 80, "protocol": "DCCP"}]}})),
        "spec.ports.protocol: \"DCCP\" is not TCP, UDP or SCTP"
    );
    assert_eq!(
        error(json!({"spec": {"ports": [{"port": 70000}]}})),
        "spec.ports.port: \"70000\" is not a port from 1 to 65535"
    );
}

/// A slice with these endpoints and ports, and what is told of it.
fn used(extra: serde_json::Value) -> (Vec<String>, Vec<u16>, Vec<String>) {
    let row = ingest_slice(&Config::default(), &slice(extra)).unwrap();
    let ips = row.endpoints.iter().map(|endpoint| endpoint.ip.to_string()).collect();
    let told = row.problems.iter().map(ToString::to_string).collect();
    (ips, row.ports.iter().map(|port| port.port).collect(), told)
}

#[test]
fn an_endpoint_or_a_port_that_cannot_be_used_is_told_and_the_others_are_used() {
    let at = |addresses: &[&str]| json!(addresses.iter().map(|ip| json!({"addresses": [ip]})).collect::<Vec<_>>());
    for (bad, said) in [
        ("web.example", "endpoints[1].addresses[0]: \"web.example\" is not an IP address"),
        ("fe80::1%eth0", "endpoints[1].addresses[0]: \"fe80::1%eth0\" is not an IP address"),
        ("010.0.0.3", "endpoints[1].addresses[0]: \"010.0.0.3\" is not an IP address"),
        ("fd00::1", "endpoints[1].addresses[0]: fd00::1 is not of the slice's addressType, IPv4"),
        ("127.0.0.1", "endpoints.addresses: 127.0.0.1 is no address of a single machine"),
    ] {
        let (ips, ports, told) = used(json!({"endpoints": at(&["10.0.0.1", bad, "10.0.0.2"])}));
        assert_eq!((ips, ports), (vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()], vec![8080]));
        assert_eq!(told, [format!("EndpointSlice web-1 {said}")]);
    }
    let ports = json!([{"name": "a", "port": 0}, {"name": "b", "port": 70000}, {"name": "c", "port": 1, "protocol": "DCCP"},
        {"name": "d", "port": 2}]);
    let (ips, ports, told) = used(json!({ "ports": ports }));
    assert_eq!((ips, ports), (vec!["10.0.0.1".to_owned()], vec![2]));
    let said = [
        "ports[0].port: \"0\" is not a port from 1 to 65535",
        "ports[1].port: \"70000\" is not a port from 1 to 65535",
        "ports[2].protocol: \"DCCP\" is not TCP, UDP or SCTP",
    ];
    assert_eq!(told, said.map(|said| format!("EndpointSlice web-1 {said}")));
    let (ips, _, told) = used(json!({"addressType": "IPX"}));
    assert_eq!((ips.len(), told), (0, vec!["EndpointSlice web-1 addressType: \"IPX\" is not IPv4 or IPv6".to_owned()]));
    let (ips, _, told) = used(json!({"endpoints": at(&["::ffff:10.0.0.9"])}));
    assert_eq!((ips, told), (vec!["10.0.0.9".to_owned()], vec![]), "so the API server writes it, too");
}

#[test]
fn of_many_endpoints_that_are_not_used_the_first_are_named_and_the_others_counted() {
    let endpoints = |count| json!(vec![json!({"addresses": ["x".repeat(5000)]}); count]);
    assert_eq!(used(json!({"endpoints": endpoints(5)})).2.len(), 5);
    let told = used(json!({"endpoints": endpoints(1000)})).2;
    assert_eq!((told.len(), told[5].as_str()), (6, "EndpointSlice web-1 endpoints: 995 more are not used"));
    assert!(told.iter().all(|problem| problem.len() < 1000), "{told:?}");
}

#[test]
fn who_tells_authors_knows_slices_of_the_api_server_and_what_is_not_used_of_others() {
    let judged = |extra| ingest_slice_to_judge(&Config::default(), &slice(extra));
    assert_eq!(judged(json!({})), None);
    let faulty = judged(json!({"endpoints": [{"addresses": ["x"]}, {"addresses": ["10.0.0.1"]}]})).unwrap();
    assert_eq!((faulty.problems.len(), faulty.endpoints.len(), faulty.ports.len()), (1, 0, 0));
    let of_api_server = judged(json!({"metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}}})).unwrap();
    assert_eq!((of_api_server.endpoints.len(), of_api_server.ports.len()), (1, 1));
}

#[test]
fn conditions_that_are_not_given_mean_ready() {
    let conditions = |conditions: serde_json::Value| {
        let object = slice(json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]}));
        let row = ingest_slice(&Config::default(), &object).unwrap();
        (row.endpoints[0].ready, row.endpoints[0].serving, row.endpoints[0].terminating)
    };
    assert_eq!(conditions(json!(null)), (true, true, false));
    assert_eq!(conditions(json!({"ready": false})), (false, false, false));
    assert_eq!(conditions(json!({"ready": false, "serving": true, "terminating": true})), (false, true, true));
}

#[test]
fn slices_that_are_nobodys_give_no_row() {
    let fqdn = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["web.example"]}]});
    let orphan = json!({"metadata": {"labels": {"kubernetes.io/service-name": ""}}});
    let headless = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    for extra in [fqdn, orphan, headless] {
        assert_eq!(ingest_slice(&Config::default(), &slice(extra.clone())), None, "{extra}");
    }
}

#[test]
fn a_slice_port_without_a_number_is_left_out() {
    let row = ingest_slice(&Config::default(), &slice(json!({"ports": [{"port": null}, {"name": "b", "port": 1}]})));
    let row = row.unwrap();
    assert_eq!(row.ports, [Port { name: Some("b".into()), protocol: Protocol::Tcp, port: 1 }]);
}

fn row(extra: serde_json::Value) -> Service {
    ingest_service(&Config::default(), &service(extra)).unwrap().unwrap()
}

fn problems(service: &Service) -> Vec<String> {
    service.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_load_balancer_has_its_ports_addresses_and_policies() {
    let spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30080}], "externalIPs": ["192.0.2.9"], "healthCheckNodePort": 31000,
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "loadBalancerSourceRanges": ["10.0.0.7/8 ", "10.0.0.0/8", "fd00::/16"],
    });
    let ingress = json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "lb.example"},
        {"ip": "fd00::1", "ipMode": "VIP"}]);
    let row = row(json!({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}));
    let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    assert_eq!(row.load_balancer_ips, ips(&["192.0.2.1", "fd00::1"]), "a proxy sends under other addresses");
    assert_eq!((row.external_ips, row.ports[0].node_port), (ips(&["192.0.2.9"]), Some(30080)));
    assert_eq!((row.external_policy, row.internal_policy), (TrafficPolicy::Local, TrafficPolicy::Local));
    assert_eq!((row.affinity, row.health_check_node_port), (Some(Duration::from_secs(60)), Some(31000)));
    let ranges = row.source_ranges.unwrap();
    let prefixes: Vec<_> = ranges.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!((prefixes, ranges.deny), (vec!["10.0.0.0/8".to_owned(), "fd00::/16".to_owned()], false));
    assert!(row.problems.is_empty());
}

#[test]
fn only_load_balancers_have_addresses_in_their_status_and_cluster_ips_no_node_ports() {
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let row = row(json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 30080}]}, "status": status}));
    assert_eq!((row.load_balancer_ips, row.ports[0].node_port), (vec![], None));
}

#[test]
fn affinity_lasts_three_hours_unless_it_says_otherwise() {
    assert_eq!(row(json!({"spec": {"sessionAffinity": "ClientIP"}})).affinity, Some(Duration::from_secs(10_800)));
    assert_eq!(row(json!({"spec": {"sessionAffinity": "None"}})).affinity, None);
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_the_field() {
    let error = |extra| ingest_service(&Config::default(), &service(extra)).unwrap_err().to_string();
    let timeout = json!({"clientIP": {"timeoutSeconds": 0}});
    for (spec, said) in [
        (json!({"externalIPs": ["x"]}), "spec.externalIPs: \"x\" is not an IP address"),
        (json!({"externalTrafficPolicy": "Near"}), "spec.externalTrafficPolicy: \"Near\" is not Cluster or Local"),
        (json!({"sessionAffinity": "Cookie"}), "spec.sessionAffinity: \"Cookie\" is not None or ClientIP"),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": timeout}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: \"0\" is not between 1 and 86400",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/33"]}),
            "spec.loadBalancerSourceRanges: \"10.0.0.0/33\" is not a prefix such as 10.0.0.0/24",
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 70000}]}),
            "spec.ports.nodePort: \"70000\" is not a port from 1 to 65535",
        ),
    ] {
        assert_eq!(error(json!({ "spec": spec })), said);
    }
}

#[test]
fn what_cannot_be_read_is_told_to_the_author() {
    let object = service(json!({"spec": {"externalIPs": ["x"]}}));
    let row = ingest_service_to_judge(&Config::default(), &object).unwrap();
    assert_eq!(problems(&row), ["spec.externalIPs: \"x\" is not an IP address; the Service stays as it was before"]);
    assert!(row.cluster_ips.is_empty(), "it claims nothing");
    let sound = ingest_service(&Config::default(), &service(json!({}))).unwrap().unwrap();
    assert_eq!((row.name, row.uid), (sound.name, sound.uid));
    let condition = json!({"type": "cilium.io/ServiceHonoured", "status": "False", "reason": "NotHonoured",
        "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let object = service(json!({"status": {"conditions": [condition]}}));
    assert!(ingest_service_to_judge(&Config::default(), &object).unwrap().said.complains());
}

#[test]
fn an_address_that_is_not_one_machines_is_left_out_and_told() {
    let hostile = ["0.0.0.0", "127.0.0.1", "169.254.169.254", "224.0.0.1", "::", "fe80::1", "::ffff:127.0.0.1"];
    let row = row(json!({"spec": {"externalIPs": hostile}}));
    assert!(row.external_ips.is_empty());
    assert_eq!(row.problems.len(), hostile.len());
    assert_eq!(problems(&row)[0], "spec.externalIPs: 0.0.0.0 is no address of a single machine; it is left out");
}

#[test]
fn an_address_of_a_family_that_the_service_lacks_is_left_out_and_told() {
    let spec = json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "externalIPs": ["fd00::9", "192.0.2.9"]});
    let row = row(json!({ "spec": spec }));
    assert_eq!(row.external_ips, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        problems(&row),
        ["spec.externalIPs: the Service has no address of the family of fd00::9; it is left out"]
    );
}

fn annotated(config: &Config, annotations: &[(&str, &str)]) -> Service {
    let annotations: std::collections::BTreeMap<_, _> =
        annotations.iter().map(|(key, value)| (format!("service.cilium.io/{key}"), *value)).collect();
    let object = service(
        json!({"metadata": {"annotations": annotations}, "spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}),
    );
    ingest_service(config, &object).unwrap().unwrap()
}

#[test]
fn annotations_choose_what_is_otherwise_configured() {
    let config = Config { algorithm_annotation: true, forwarding_annotation: true, ..Config::default() };
    let row = annotated(
        &config,
        &[
            ("lb-algorithm", "Maglev"),
            ("forwarding-mode", "snat"),
            ("type", "LoadBalancer"),
            ("src-ranges-policy", "deny"),
            ("node", "edge"),
            ("proxy-delegation", "none"),
        ],
    );
    assert!(row.problems.is_empty(), "{:?}", row.problems);
    assert_eq!((row.algorithm, row.forwarding), (Some(Algorithm::Maglev), Some(Forwarding::Snat)));
    assert_eq!((row.only, row.source_ranges.unwrap().deny), (Some(ServiceKind::LoadBalancer), true));
    let native = Config { routing: RoutingMode::Native, ..config.clone() };
    let direct = annotated(&native, &[("forwarding-mode", "DSR")]);
    assert_eq!((direct.forwarding, direct.problems), (Some(Forwarding::Dsr), vec![]));
    let labels = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    assert!(row.nodes.matches(&labels("service.cilium.io/node", "edge")));
    assert!(!row.nodes.matches(&labels("service.cilium.io/node", "core")));
    let selected = annotated(&config, &[("node", "edge"), ("node-selector", "zone in (a)")]);
    assert!(selected.nodes.matches(&labels("zone", "a")), "the selector wins");
}

#[test]
fn an_annotation_that_is_not_honoured_is_told_and_changes_nothing() {
    let config = Config { algorithm_annotation: true, forwarding_annotation: true, ..Config::default() };
    for (config, key, value, said) in [
        (&config, "lb-algorithm", "best", "\"best\" is none of random, maglev"),
        (&Config::default(), "lb-algorithm", "maglev", "needs the configuration key bpf-lb-algorithm-annotation"),
        (&config, "forwarding-mode", "dsr", "\"dsr\" needs the configuration key routing-mode to be native"),
        (&Config::default(), "forwarding-mode", "snat", "needs the configuration key bpf-lb-mode-annotation"),
        (&config, "type", "ExternalName", "\"ExternalName\" is none of ClusterIP, NodePort, LoadBalancer"),
        (&config, "src-ranges-policy", "no", "\"no\" is none of allow, deny"),
        (&config, "proxy-delegation", "delegate-if-local", "is not supported yet"),
        (&config, "lb-l7", "enabled", "is not supported yet"),
        (&config, "lb-l7", "on", "\"on\" is none of disabled, enabled"),
        (&config, "lb-l7-algorithm", "round_robin", "is not supported yet"),
        (&config, "lb-algoritm", "maglev", "is no annotation that is known"),
        (
            &config,
            "global",
            "true",
            "needs Cluster Mesh, which is not supported yet; the Service is that of this cluster alone",
        ),
        (
            &config,
            "affinity",
            "local",
            "needs Cluster Mesh, which is not supported yet; the Service is that of this cluster alone",
        ),
    ] {
        let row = annotated(config, &[(key, value)]);
        assert_eq!(problems(&row), [format!("service.cilium.io/{key}: {said}")]);
        assert_eq!(Service { problems: vec![], ..row }, annotated(config, &[]));
    }
    let broken = annotated(&config, &[("node-selector", "zone in a")]);
    assert_eq!(
        problems(&broken),
        ["service.cilium.io/node-selector: \"zone in a\" is no label selector; no node serves"]
    );
    assert!(!broken.nodes.matches(&std::collections::BTreeMap::new()));
}

/// What is told of these annotations, by their whole names.
fn told_of(annotations: serde_json::Value) -> Vec<String> {
    let object = service(json!({"metadata": {"annotations": annotations}}));
    problems(&ingest_service(&Config::default(), &object).unwrap().unwrap())
}

#[test]
fn what_asks_for_nothing_and_what_is_somebody_elses_is_not_told() {
    let quiet = json!({"service.cilium.io/global": "False", "service.cilium.io/affinity": "none", "io.cilium/shared-service": "false",
        "service.cilium.io/lb-l7": "disabled", "lbipam.cilium.io/ips": "192.0.2.1", "lbipam.cilium.io/sharing-key": "a",
        "lbipam.cilium.io/sharing-cross-namespace": "*", "example.com/service.cilium.io": "x", "service.cilium.io": "x"});
    assert_eq!(told_of(quiet), [""; 0]);
    assert_eq!(told_of(json!({"io.cilium/global-service": "true"})).len(), 1, "as older documentation has it");
    assert_eq!(told_of(json!({"lbipam.cilium.io/ip": "x"})), ["lbipam.cilium.io/ip: is no annotation that is known"]);
}

#[test]
fn of_many_annotations_that_are_not_known_and_of_long_values_so_much_is_told() {
    let many = |count| {
        (0..count).map(|n| (format!("service.cilium.io/x{n:04}"), json!("y"))).collect::<serde_json::Map<_, _>>()
    };
    assert_eq!(told_of(json!(many(5))).len(), 5);
    let told = told_of(json!(many(3000)));
    assert_eq!((told.len(), told[5].as_str()), (6, "metadata.annotations: 2995 more are not known"));
    let long = "é".repeat(128 << 10);
    let told = told_of(
        json!({"service.cilium.io/lb-algorithm": long, "service.cilium.io/node-selector": format!("{long} in"),
        "service.cilium.io/type": long}),
    );
    assert!(told.len() == 3 && told.iter().all(|problem| problem.len() < 900), "{told:?}");
}

#[test]
fn a_kind_of_address_that_the_service_does_not_have_is_told() {
    let types = ["ClusterIP", "NodePort", "LoadBalancer"];
    for (place, service_type) in types.into_iter().enumerate() {
        for (asked, kind) in types.into_iter().enumerate() {
            let object = service(json!({
                "metadata": {"annotations": {"service.cilium.io/type": kind}}, "spec": {"type": service_type},
            }));
            let row = ingest_service(&Config::default(), &object).unwrap().unwrap();
            let says = format!(
                "service.cilium.io/type: a Service of type {service_type} has no such addresses: it is reached nowhere"
            );
            assert_eq!(problems(&row), if asked > place { vec![says] } else { vec![] }, "{kind}");
            assert!(row.only.is_some(), "nor is it reached in another way");
        }
    }
}

#[test]
fn a_node_that_no_label_can_name_is_told_and_nobody_serves() {
    let of = |value: &str| annotated(&Config::default(), &[("node", value)]);
    for value in ["a b", "-a", "a-", &"a".repeat(64)] {
        let row = of(value);
        let says = format!("service.cilium.io/node: {value:?} is no value that a label can have; no node serves");
        assert_eq!(problems(&row), [says]);
        assert!(!row.nodes.matches(&std::collections::BTreeMap::new()));
    }
    for value in ["", "a", "a-b_c.D9", &"a".repeat(63)] {
        assert_eq!(problems(&of(value)), [""; 0], "{value}");
    }
}

#[test]
fn topology_that_is_switched_off_is_told() {
    let wanting = service(json!({"spec": {"trafficDistribution": "PreferClose"}}));
    let on = Config { topology: true, ..Config::default() };
    assert!(ingest_service(&on, &wanting).unwrap().unwrap().problems.is_empty());
    let off = ingest_service(&Config::default(), &wanting).unwrap().unwrap();
    assert!(problems(&off)[0].starts_with("spec.trafficDistribution: needs enable-service-topology"));
    for (annotation, mode, told) in [
        ("service.kubernetes.io/topology-mode", "Auto", true),
        ("service.kubernetes.io/topology-aware-hints", "auto", true),
        ("service.kubernetes.io/topology-mode", "Disabled", false),
        ("other", "Auto", false),
    ] {
        let wanting = service(json!({"metadata": {"annotations": {annotation: mode}}}));
        let row = ingest_service(&Config::default(), &wanting).unwrap().unwrap();
        assert_eq!(!row.problems.is_empty(), told, "{annotation} {mode}");
    }
}

#[test]
fn an_endpoint_brings_its_zone_and_hints() {
    let endpoint = json!({"addresses": ["10.0.0.1"], "zone": "a", "nodeName": "n1",
        "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n1"}]}});
    let row = ingest_slice(&Config::default(), &slice(json!({"endpoints": [endpoint]}))).unwrap();
    let SliceEndpoint { zone, for_zones, for_nodes, .. } = &row.endpoints[0];
    assert_eq!((zone.as_deref(), for_zones.len(), for_nodes[..] == ["n1".into()]), (Some("a"), 2, true));
}
