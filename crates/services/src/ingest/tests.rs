// SPDX-License-Identifier: Apache-2.0
//! Tests of ingestion.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use serde_json::json;

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
    let row = ingest_service(&Config::default(), "n1", &service(json!({}))).unwrap().unwrap();
    assert_eq!(row.cluster_ips, ["10.96.0.9".parse::<IpAddr>().unwrap(), "fd00::9".parse().unwrap()]);
    assert_eq!(row.ports, [Port { name: None, protocol: Protocol::Tcp, port: 80 }]);
}

#[test]
fn a_local_traffic_policy_binds_a_service_to_this_node() {
    let config = Config::default();
    let only_node = |policy: &str| {
        let object = service(json!({"spec": {"internalTrafficPolicy": policy}}));
        ingest_service(&config, "n1", &object).unwrap().unwrap().only_node
    };
    assert_eq!(only_node("Local").as_deref(), Some("n1"));
    assert_eq!(only_node("Cluster"), None);
}

#[test]
fn an_old_api_server_gives_one_address_only() {
    let row =
        ingest_service(&Config::default(), "n1", &service(json!({"spec": {"clusterIPs": null}}))).unwrap().unwrap();
    assert_eq!(row.cluster_ips, ["10.96.0.9".parse::<IpAddr>().unwrap()]);
}

#[test]
fn services_without_a_cluster_address_give_no_row() {
    let none = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    let label = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    let external = json!({"spec": {"type": "ExternalName", "clusterIP": null, "clusterIPs": null}});
    let pending = json!({"spec": {"clusterIP": "", "clusterIPs": null}});
    for extra in [none, label, external, pending] {
        assert_eq!(ingest_service(&Config::default(), "n1", &service(extra.clone())), Ok(None), "{extra}");
    }
}

#[test]
fn another_proxys_services_and_slices_are_left_to_it() {
    let labels = json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}});
    let (default, other) = (Config::default(), Config { proxy_name: "other".to_owned(), ..Config::default() });
    assert_eq!(ingest_service(&default, "n1", &service(labels.clone())), Ok(None));
    assert_eq!(ingest_slice(&default, &slice(labels.clone())), Ok(None));
    assert!(ingest_service(&other, "n1", &service(labels.clone())).unwrap().is_some());
    assert!(ingest_slice(&other, &slice(labels)).unwrap().is_some());
    assert_eq!(ingest_service(&other, "n1", &service(json!({}))), Ok(None));
}

#[test]
fn a_field_that_cannot_be_used_is_named() {
    let error = |extra| ingest_service(&Config::default(), "n1", &service(extra)).unwrap_err().to_string();
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
    let bad = slice(json!({"endpoints": [{"addresses": ["web.example"]}]}));
    assert_eq!(
        ingest_slice(&Config::default(), &bad).unwrap_err().to_string(),
        "endpoints.addresses: \"web.example\" is not an IP address"
    );
}

#[test]
fn conditions_that_are_not_given_mean_ready() {
    let conditions = |conditions: serde_json::Value| {
        let object = slice(json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]}));
        let row = ingest_slice(&Config::default(), &object).unwrap().unwrap();
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
        assert_eq!(ingest_slice(&Config::default(), &slice(extra.clone())), Ok(None), "{extra}");
    }
}

#[test]
fn a_slice_port_without_a_number_is_left_out() {
    let row = ingest_slice(&Config::default(), &slice(json!({"ports": [{"port": null}, {"name": "b", "port": 1}]})));
    let row = row.unwrap().unwrap();
    assert_eq!(row.ports, [Port { name: Some("b".into()), protocol: Protocol::Tcp, port: 1 }]);
}
