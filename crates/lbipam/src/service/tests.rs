// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use serde_json::{Value, json};

const DUAL: Config = Config { default_class: true, ipv4: true, ipv6: true };
const ONLY_IPV4: Config = Config { ipv6: false, ..DUAL };

fn ingest(config: Config, spec: Value, status: Value) -> Option<Service> {
    let object = json!({"metadata": {"namespace": "n", "name": "s"}, "spec": spec, "status": status});
    Service::ingest(config, &serde_json::from_value(object).unwrap())
}

fn wanted(config: Config, families: Value, policy: Value) -> Wanted {
    let spec = json!({"type": "LoadBalancer", "ipFamilies": families, "ipFamilyPolicy": policy});
    ingest(config, spec, json!({})).unwrap().claim().unwrap().wanted.clone()
}

#[test]
fn families_follow_the_policy_and_what_the_cluster_has() {
    let (v4, v6, none) = (Family::V4, Family::V6, Value::Null);
    for (config, families, policy, expected) in [
        (DUAL, none.clone(), none.clone(), vec![v4]),
        (DUAL, json!(["IPv6"]), none.clone(), vec![v6]),
        (DUAL, json!(["IPv6"]), json!("SingleStack"), vec![v6]),
        (DUAL, json!(["IPv6", "IPv4"]), json!("PreferDualStack"), vec![v4, v6]),
        (DUAL, none.clone(), json!("PreferDualStack"), vec![v4, v6]),
        (DUAL, json!(["IPv4"]), json!("RequireDualStack"), vec![v4, v6]),
        (ONLY_IPV4, json!(["IPv4", "IPv6"]), json!("PreferDualStack"), vec![v4]),
        (Config { ipv4: false, ..DUAL }, none.clone(), none.clone(), vec![v6]),
    ] {
        assert_eq!(wanted(config, families.clone(), policy.clone()), Wanted::Families(expected), "{families} {policy}");
    }
}

#[test]
fn a_service_of_a_family_that_the_cluster_has_not_is_told() {
    let spec = json!({"type": "LoadBalancer", "ipFamilies": ["IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    let service = ingest(ONLY_IPV4, spec, json!({})).unwrap();
    let fault = service.claim().unwrap().fault.as_deref();
    assert_eq!(fault, Some("spec.ipFamilies: names no family that the cluster has"));
}

#[test]
fn only_load_balancers_and_what_was_ours_have_rows() {
    let ingress = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}});
    let condition = json!({"type": CONDITION, "status": "True", "reason": "satisfied", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let ours = json!({"conditions": [condition]});
    let standing = |spec: Value, status: &Value| ingest(DUAL, spec, status.clone()).map(|service| service.standing);
    assert_eq!(standing(json!({"type": "ClusterIP"}), &ingress), None);
    assert_eq!(standing(json!({"type": "ClusterIP"}), &ours), Some(Standing::Abandoned));
    let foreign = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x"});
    assert_eq!(standing(foreign.clone(), &ours), None);
    assert_eq!(standing(foreign, &ingress), Some(Standing::Foreign));
    let row = ingest(DUAL, json!({"type": "ClusterIP"}), ours).unwrap();
    assert_eq!((statedb::Row::key(&row), row.reference.resource_version), (row.name, None));
    let node = json!({"type": "LoadBalancer", "loadBalancerClass": "io.cilium/node"});
    assert_eq!(standing(node, &json!({})), None);
    let unclassed = ingest(Config { default_class: false, ..DUAL }, json!({"type": "LoadBalancer"}), json!({}));
    assert_eq!(unclassed, None);
}

#[test]
fn an_address_that_is_asked_for_twice_is_asked_for_once() {
    let annotations =
        json!({"lbipam.cilium.io/ips": "10.0.0.1, ::ffff:10.0.0.1,10.0.0.2", "io.cilium/lb-ipam-ips": "10.0.0.9"});
    let spec = json!({"type": "LoadBalancer", "loadBalancerIP": "10.0.0.1"});
    let object = json!({"metadata": {"namespace": "n", "name": "s", "annotations": annotations}, "spec": spec});
    let service = Service::ingest(DUAL, &serde_json::from_value(object).unwrap()).unwrap();
    let addresses = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
    assert_eq!(service.claim().unwrap().wanted, Wanted::Addresses(addresses.to_vec()));
}

#[test]
fn one_service_asks_for_so_many_addresses_and_no_more() {
    let all: Vec<String> = (1..=40).map(|n| format!("192.0.2.{n}")).collect();
    let of = |count: usize| {
        let annotations = json!({"lbipam.cilium.io/ips": all.get(..count).unwrap().join(",")});
        let object = json!({"metadata": {"namespace": "n", "name": "s", "annotations": annotations},
            "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"]}});
        Service::ingest(DUAL, &serde_json::from_value(object).unwrap()).unwrap().claim().unwrap().clone()
    };
    let most = of(16);
    assert_eq!((of(40).wanted, most.fault), (most.wanted, None));
    let fault = of(40).fault.unwrap();
    assert_eq!(fault, "lbipam.cilium.io/ips: asks for more than 16 addresses; it gets the first ones");
}
