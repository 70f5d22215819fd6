// SPDX-License-Identifier: Apache-2.0
use super::validate;
use crate::cilium::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use serde_json::json;

/// What is wrong with a CiliumNetworkPolicy whose spec selects all pods and has these members besides.
fn wrong(rest: serde_json::Value) -> Vec<String> {
    let mut spec = json!({"endpointSelector": {}});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let policy: CiliumNetworkPolicy = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    validate(&policy).iter().map(ToString::to_string).collect()
}

#[test]
fn ordinary_policies_are_valid() {
    for rest in [
        json!({"ingress": [{}]}),
        json!({"ingress": [], "egress": [{}]}),
        json!({"ingressDeny": [{"toPorts": [{"ports": [{"protocol": "VRRP"}, {"port": "0", "protocol": "IGMP"}]}]}]}),
        json!({"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}]}),
        json!({"egress": [{"toCIDR": ["10.0.0.1"]}, {"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}]}),
        json!({"egress": [{"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system"}}],
            "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}]}]}),
        json!({"egressDeny": [{"toEntities": ["world"], "toPorts": [{"ports": [{"port": "http"}, {"port": "1024", "endPort": 2048}]}]}]}),
        json!({"ingress": [{"icmps": [{"fields": [{"type": 8}, {"family": "IPv6", "type": "EchoRequest"}]}]}]}),
        json!({"ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET", "path": "/v1/.*"}]}}]}]}),
        json!({"egress": [{"toFQDNs": [{"matchName": "cilium.io"}, {"matchPattern": "**.example.com."}]}]}),
    ] {
        assert_eq!(wrong(rest.clone()), Vec::<String>::new(), "{rest}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_field() {
    let cases = [
        (json!({}), "spec: rule must have at least one of Ingress, IngressDeny, Egress, EgressDeny"),
        (
            json!({"ingress": [], "ingressDeny": [], "egress": [], "egressDeny": []}),
            "spec: rule must have at least one of Ingress, IngressDeny, Egress, EgressDeny",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"protocol": "TCP"}]}]}]}),
            "spec.ingress[0].toPorts[0].ports[0].port: is required",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"port": "1", "protocol": "VRRP"}]}]}]}),
            "spec.ingress[0].toPorts[0].ports[0].port: VRRP has no ports: leave it out or say 0",
        ),
        (json!({"nodeSelector": {}, "ingress": [{}]}), "spec: endpointSelector and nodeSelector exclude each other"),
        (
            json!({"ingress": [{}, {"fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}]}),
            "spec.ingress[1].fromEndpoints[0].matchExpressions[0].values: In needs at least one value",
        ),
        (
            json!({"ingress": [{"fromEndpoints": [{}], "fromEntities": ["world"]}]}),
            "spec.ingress[0]: fromEndpoints and fromEntities cannot be combined in one rule, write two",
        ),
        (
            json!({"egress": [{"toCIDR": ["10.0.0.0/33"]}]}),
            "spec.egress[0].toCIDR[0]: \"10.0.0.0/33\" is neither a prefix nor an address",
        ),
        (
            json!({"egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]}]}),
            "spec.egress[0].toCIDRSet[0].except[0]: 11.0.0.0/16 is not within 10.0.0.0/8",
        ),
        (
            json!({"egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "cidrGroupRef": "g"}]}]}),
            "spec.egress[0].toCIDRSet[0]: exactly one of cidr, cidrGroupRef and cidrGroupSelector is required",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]}),
            "spec.ingress[0].toPorts[0].ports[0].port: \"70000\" is neither a port number nor a port name",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"port": "90", "endPort": 80}]}]}]}),
            "spec.ingress[0].toPorts[0].ports[0].endPort: 80 is less than port 90",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "UDP"}], "rules": {"http": [{}]}}]}]}),
            "spec.ingress[0].toPorts[0].ports[0].protocol: rules other than dns need TCP, not UDP",
        ),
        (
            json!({"ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"path": "("}]}}]}]}),
            "spec.ingress[0].toPorts[0].rules.http[0].path: is not a regular expression: unclosed group",
        ),
        (
            json!({"ingress": [{"icmps": [{"fields": [{"type": 8}]}], "toPorts": [{}]}]}),
            "spec.ingress[0].icmps: cannot be combined with toPorts in one rule, write two",
        ),
        (
            json!({"ingressDeny": [{"authentication": {"mode": "required"}}]}),
            "spec.ingressDeny[0].authentication: is not possible in a deny rule",
        ),
        (
            json!({"ingress": [{"fromRequires": [{}]}]}),
            "spec.ingress[0].fromRequires: is not supported any more, use endpointSelector and fromEndpoints",
        ),
    ];
    for (rest, expected) in cases {
        assert_eq!(wrong(rest.clone()), [expected], "{rest}");
    }
}

#[test]
fn a_policy_without_rules_is_not_valid() {
    let found = validate(&CiliumNetworkPolicy::named("empty"));
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["spec: neither spec nor specs is given"]);
}

#[test]
fn only_a_clusterwide_policy_may_select_nodes_and_every_rule_of_specs_is_looked_at() {
    let object = json!({"metadata": {"name": "p"}, "specs": [
        {"endpointSelector": {}, "ingress": [{}]},
        {"nodeSelector": {}, "ingress": [{}]},
    ]});
    let policy: CiliumNetworkPolicy = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(validate(&policy)[0].field, "specs[1].nodeSelector");
    let policy: CiliumClusterwideNetworkPolicy = serde_json::from_value(object).unwrap();
    assert_eq!(validate(&policy), []);
}
