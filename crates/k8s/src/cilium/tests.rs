// SPDX-License-Identifier: Apache-2.0
use super::*;
use kube::Resource;
use serde_json::{Value, json};

/// Reads and writes an object; both directions must agree.
fn round_trip<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> K {
    let read: K = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), *object);
    read
}

#[test]
fn an_absent_list_an_empty_list_and_a_list_with_an_empty_rule_stay_different() {
    let spec =
        json!({"endpointSelector": {}, "ingress": [], "egress": [{"toEndpoints": []}, {"toEndpoints": [{}]}, {}]});
    let object = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "a", "namespace": "b"}, "spec": spec,
    });
    let rule = round_trip::<CiliumNetworkPolicy>(&object).spec.unwrap();
    assert_eq!(rule.ingress, Some(vec![]));
    assert_eq!(rule.ingress_deny, None);
    let to: Vec<_> = rule.egress.unwrap().into_iter().map(|r| r.to_endpoints).collect();
    assert_eq!(to, [Some(vec![]), Some(vec![Default::default()]), None]);
}

#[test]
fn every_field_of_a_policy_is_read_and_written() {
    let selector =
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]});
    let secret = json!({"name": "s", "namespace": "n"});
    let tls = json!({"secret": secret, "certificate": "c", "privateKey": "p", "trustedCA": "t"});
    let cidr_set = json!([{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidrGroupRef": "g"}, {"cidrGroupSelector": selector}]);
    let groups = json!([{"aws": {"labels": {"l": "m"}, "region": "r", "securityGroupsIds": ["i"], "securityGroupsNames": ["j"]}}]);
    let ports = json!([{
        "ports": [{"port": "80", "endPort": 90, "protocol": "TCP"}],
        "rules": {
            "http": [{"method": "GET", "path": "/", "host": "h", "headers": ["X"],
                "headerMatches": [{"mismatch": "LOG", "name": "n", "value": "v", "secret": secret}]}],
            "kafka": [{"role": "produce", "apiKey": "k", "apiVersion": "1", "clientID": "c", "topic": "t"}],
            "dns": [{"matchName": "n"}, {"matchPattern": "p"}],
            "l7proto": "x", "l7": [{"a": "b"}],
        },
        "listener": {"envoyConfig": {"kind": "CiliumEnvoyConfig", "name": "e"}, "name": "l", "priority": 3},
        "serverNames": ["s"], "terminatingTLS": tls, "originatingTLS": tls,
    }]);
    let icmps = json!([{"fields": [{"family": "IPv6", "type": 128}, {"type": "EchoRequest"}]}]);
    let authentication = json!({"mode": "required"});
    let ingress = json!([{"fromEndpoints": [selector], "fromNodes": [selector], "fromCIDR": ["::/0"], "fromCIDRSet": cidr_set,
        "fromEntities": ["world"], "fromGroups": groups, "fromRequires": [], "toPorts": ports, "icmps": icmps, "authentication": authentication}]);
    let egress = json!([{"toEndpoints": [selector], "toNodes": [selector], "toCIDR": ["::/0"], "toCIDRSet": cidr_set,
        "toEntities": ["world"], "toGroups": groups, "toRequires": [], "toPorts": ports, "icmps": icmps, "authentication": authentication,
        "toFQDNs": [{"matchName": "n"}], "toServices": [{"k8sService": {"serviceName": "s", "namespace": "n"}},
            {"k8sServiceSelector": {"selector": selector, "namespace": "n"}}]}]);
    let rule = json!({"description": "d", "endpointSelector": selector, "nodeSelector": selector, "ingress": ingress,
        "ingressDeny": ingress, "egress": egress, "egressDeny": egress, "enableDefaultDeny": {"ingress": true, "egress": false},
        "labels": [{"key": "k", "source": "s", "value": "v"}], "log": {"value": "x"}});
    round_trip::<CiliumClusterwideNetworkPolicy>(&json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "a"},
        "spec": rule, "specs": [rule],
        "status": {"conditions": [{"type": "Valid", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z", "message": "m", "reason": "r"}]},
    }));
}

#[test]
fn a_node_and_an_endpoint_are_read_and_written_with_the_apis_names() {
    let node = round_trip::<CiliumNode>(&json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "n"},
        "spec": {
            "addresses": [{"type": "InternalIP", "ip": "192.0.2.1"}], "bootid": "b", "encryption": {"key": 0},
            "health": {"ipv4": "10.0.0.2", "ipv6": "fd00::2"}, "ingress": {}, "instance-id": "i", "nodeidentity": 6,
            "eni": {"vpc-id": "v"}, "ipam": {"podCIDRs": ["10.0.0.0/24"], "pre-allocate": 8, "ipv6-pool": {"fd00::3": {"owner": "o"}},
                "pools": {"requested": [{"pool": "p", "needed": {"ipv4-addrs": 4}}], "allocated": [{"pool": "p", "cidrs": ["10.9.0.0/24"]}]}},
        },
        "status": {"ipam": {"operator-status": {"error": "e"}, "pod-cidrs": {"10.0.0.0/24": {"status": "in-use"}}}},
    }));
    assert_eq!(node.spec.ipam.pod_cidrs, ["10.0.0.0/24"]);
    let endpoint = round_trip::<CiliumEndpoint>(&json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": {"name": "p", "namespace": "n"},
        "status": {
            "id": 7, "state": "ready", "identity": {"id": 300, "labels": ["k8s:a=b"]},
            "networking": {"addressing": [{"ipv4": "10.0.0.9", "ipv6": "fd00::9"}], "node": "192.0.2.1"},
            "named-ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "encryption": {"key": 0}, "service-account": "default",
            "external-identifiers": {"cni-attachment-id": "c:eth0", "container-id": "c", "k8s-namespace": "n", "k8s-pod-name": "p", "pod-name": "n/p"},
            "policy": {"ingress": {"enforcing": true, "state": "<status disabled>", "allowed": [{"identity": 1, "dest-port": 80, "protocol": 6}]}, "egress": {"enforcing": false}},
            "health": {"overallHealth": "OK", "connected": true, "bpf": "OK", "policy": "OK"},
        },
    }));
    assert_eq!(endpoint.status.unwrap().identity.unwrap().id, Some(300));
}

#[test]
fn identities_and_cidr_groups_are_read_and_written_with_the_apis_names() {
    round_trip::<CiliumIdentity>(&json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": "300"}, "security-labels": {"k8s:a": "b"},
    }));
    round_trip::<CiliumCIDRGroup>(&json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "g"}, "spec": {"externalCIDRs": ["10.0.0.0/8"]},
    }));
}

#[test]
fn unknown_fields_are_ignored() {
    let object = json!({"metadata": {"name": "p"}, "spec": {"endpointSelector": {}, "ingress": [{"fromMars": true}], "new": 1}, "other": {}});
    let policy: CiliumNetworkPolicy = serde_json::from_value(object).unwrap();
    assert_eq!(policy.spec.unwrap().ingress, Some(vec![IngressRule::default()]));
}

#[test]
fn resources_have_the_url_of_their_kind() {
    assert_eq!(
        CiliumNetworkPolicy::url_path(&(), Some("ns")),
        "/apis/cilium.io/v2/namespaces/ns/ciliumnetworkpolicies"
    );
    assert_eq!(CiliumNode::url_path(&(), None), "/apis/cilium.io/v2/ciliumnodes");
}
