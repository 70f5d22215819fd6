// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod cluster;
mod kills;
mod pools;
mod scale;
mod sharing;

use super::Totals;
use crate::Counts;
use cluster::{Cluster, service};
use serde_json::{Value, json};

fn blocks(cidr: &str) -> Value {
    json!([{"cidr": cidr}])
}

/// A cluster with a pool `p` of that prefix.
fn cluster(cidr: &str) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.pool("p", json!({"blocks": blocks(cidr)}));
    cluster
}

fn requests(addresses: &str) -> Value {
    json!({"lbipam.cilium.io/ips": addresses})
}

fn shares(key: &str) -> Value {
    json!({"lbipam.cilium.io/sharing-key": key})
}

#[test]
fn a_service_gets_the_first_free_address_and_a_condition() {
    let mut cluster = cluster("10.0.0.0/30");
    cluster.service("a", service());
    cluster.service("b", service());
    assert_eq!(cluster.run(), 2);
    assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("b"), ["10.0.0.1"]);
    assert_eq!(cluster.said("a"), ("True".into(), "satisfied".into(), String::new()));
    assert_eq!(cluster.counts("p"), ["4", "2", "2"]);
    assert_eq!(cluster.run(), 0, "what is right is not written again");
}

#[test]
fn pools_and_services_are_counted() {
    let mut cluster = cluster("10.0.0.0/31");
    cluster.pool("q", json!({"blocks": blocks("10.0.0.0/32")}));
    for name in ["a", "b", "c", "d"] {
        cluster.service(name, service());
    }
    cluster.service("cloud", service().spec("loadBalancerClass", json!("example.com/cloud")).status(&["192.0.2.1"]));
    cluster.run();
    let Totals { conflicting_pools, services, unsatisfied } = cluster.operator.totals();
    assert_eq!((conflicting_pools, services, unsatisfied), (1, 4, 2));
    assert_eq!(cluster.operator.pool_counts("p"), Some(Counts { used: 2, available: 0 }));
    assert_eq!(cluster.operator.pool_counts("none"), None);
}

#[test]
fn without_a_pool_nothing_is_touched_and_with_the_first_one_everything_is() {
    let mut cluster = Cluster::default();
    cluster.service("a", service().status(&["192.0.2.1"]));
    assert_eq!(cluster.run(), 0);
    cluster.pool("p", json!({"blocks": blocks("10.0.0.0/30")}));
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
    cluster.remove_pool("p");
    cluster.restart();
    cluster.run();
    assert_eq!(cluster.addresses("a"), [""; 0]);
    assert_eq!(cluster.said("a").1, "no_pool");
}

#[test]
fn other_types_and_other_classes_are_none_of_our_business() {
    let mut cluster = cluster("10.0.0.0/30");
    cluster.service("cloud", service().spec("loadBalancerClass", json!("example.com/cloud")).status(&["192.0.2.1"]));
    cluster.service("node", service().spec("type", json!("NodePort")));
    assert_eq!(cluster.run(), 0);
    cluster.service("bgp", service().spec("loadBalancerClass", json!("io.cilium/bgp-control-plane")));
    cluster.service("l2", service().spec("loadBalancerClass", json!("io.cilium/l2-announcer")));
    cluster.config.default_class = false;
    cluster.service("default", service());
    assert_eq!(cluster.run(), 2);
    assert_eq!(cluster.addresses("l2"), ["10.0.0.1"]);
}

#[test]
fn what_somebody_else_has_given_is_not_free() {
    let mut cluster = cluster("10.0.0.0/31");
    let foreign = service().spec("loadBalancerClass", json!("example.com/cloud")).status(&["10.0.0.0"]);
    cluster.service("cloud", foreign);
    cluster.service("a", service());
    cluster.service("b", service().annotations(requests("10.0.0.0")));
    assert_eq!(cluster.run(), 2);
    assert_eq!(cluster.addresses("a"), ["10.0.0.1"]);
    assert_eq!(cluster.said("b").2, "10.0.0.0 is the address of Service default/cloud");
    cluster.remove_service("cloud");
    cluster.run();
    assert_eq!(cluster.addresses("b"), ["10.0.0.0"]);
}

#[test]
fn an_address_in_the_form_of_ipv6_is_the_same_address_whoever_has_it() {
    let mut cluster = cluster("10.0.0.0/30");
    let foreign = service().spec("loadBalancerClass", json!("example.com/cloud")).status(&["::ffff:10.0.0.0"]);
    cluster.service("cloud", foreign);
    cluster.service("kept", service().status(&["::ffff:10.0.0.1", "10.0.0.1"]));
    let node =
        json!({"metadata": {"name": "n1"}, "spec": {"addresses": [{"type": "InternalIP", "ip": "::ffff:10.0.0.2"}]}});
    cluster.operator.set_occupant(crate::Occupant::node(&serde_json::from_value(node).unwrap()).unwrap());
    ["a", "b"].iter().for_each(|name| cluster.service(name, service()));
    cluster.run();
    assert_eq!((cluster.addresses("a"), cluster.addresses("b")), (vec!["10.0.0.3".to_owned()], vec![]));
    assert_eq!(cluster.addresses("kept"), ["::ffff:10.0.0.1"], "it is named once");
    assert_eq!(cluster.run(), 0);
    cluster.service("field", service().spec("loadBalancerIP", json!("::ffff:10.0.0.3")));
    cluster.run();
    assert_eq!(cluster.said("field").2, "10.0.0.3 is the address of Service default/a");
}

#[test]
fn a_service_that_is_of_another_type_now_loses_addresses_and_condition() {
    let mut cluster = cluster("10.0.0.0/32");
    cluster.service("a", service());
    cluster.service("b", service());
    cluster.run();
    cluster.edit("a", |a| a.spec("type", json!("ClusterIP")));
    cluster.run();
    assert_eq!(cluster.addresses("a"), [""; 0]);
    assert_eq!(cluster.object("a")["status"]["conditions"], json!([]));
    assert_eq!(cluster.addresses("b"), ["10.0.0.0"]);
}

#[test]
fn conditions_of_others_stay_when_a_service_is_of_another_type() {
    let mut cluster = cluster("10.0.0.0/32");
    cluster.service("a", service());
    cluster.run();
    let others = json!({"type": "example.com/Seen", "status": "True", "reason": "r", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut status = cluster.object("a")["status"].clone();
    status["conditions"].as_array_mut().unwrap().push(others.clone());
    cluster.edit("a", |a| a.whole_status(status).spec("type", json!("ClusterIP")));
    cluster.run();
    assert_eq!(cluster.object("a")["status"]["conditions"], json!([others]));
}

#[test]
fn the_status_of_a_service_that_is_being_deleted_or_that_another_serves_is_left_alone() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("deleted", service());
    cluster.service("handed-over", service());
    cluster.run();
    cluster.edit("deleted", |a| a.metadata("deletionTimestamp", json!("2026-01-01T00:00:00Z")));
    cluster.edit("handed-over", |a| a.spec("loadBalancerClass", json!("example.com/cloud")));
    cluster.pool("p", json!({"blocks": blocks("10.1.0.0/28")}));
    assert_eq!(cluster.run(), 0);
}

#[test]
fn what_a_status_names_is_adopted_before_anything_is_given() {
    let mut cluster = cluster("10.0.0.0/31");
    cluster.service("a", service());
    cluster.service("z", service().status(&["10.0.0.0"]));
    cluster.run();
    assert_eq!(cluster.addresses("z"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("a"), ["10.0.0.1"]);
}

#[test]
fn of_two_that_name_one_address_the_older_keeps_it() {
    let mut cluster = cluster("10.0.0.0/31");
    cluster.service("z", service().status(&["10.0.0.0"]));
    cluster.service("a", service().status(&["10.0.0.0"]));
    cluster.run();
    assert_eq!(cluster.addresses("z"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("a"), ["10.0.0.1"]);
}

#[test]
fn a_service_that_is_made_again_has_its_address_again_where_it_is_free() {
    let mut cluster = cluster("10.0.0.0/30");
    for name in ["a", "b", "c"] {
        cluster.service(name, service());
    }
    cluster.run();
    cluster.remove_service("a");
    cluster.remove_service("b");
    cluster.run();
    // Others get what nobody had, and then what was given back first.
    cluster.service("d", service());
    cluster.service("e", service());
    cluster.run();
    assert_eq!(cluster.addresses("d"), ["10.0.0.3"]);
    assert_eq!(cluster.addresses("e"), ["10.0.0.0"]);
    cluster.service("a", service());
    cluster.service("b", service());
    cluster.run();
    assert_eq!(cluster.addresses("b"), ["10.0.0.1"]);
    assert_eq!(cluster.said("a").1, "out_of_ips");
    cluster.remove_service("c");
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.2"], "who waits is served as soon as there is one");
}

#[test]
fn a_service_between_its_deletion_and_its_end_keeps_what_it_has_and_gets_nothing() {
    let mut cluster = cluster("10.0.0.0/31");
    cluster.service("a", service());
    cluster.run();
    let doomed = |a: cluster::Object| a.metadata("deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    cluster.edit("a", doomed);
    cluster.service("b", doomed(service()));
    cluster.remove_pool("p");
    cluster.pool("q", json!({"blocks": blocks("10.0.0.0/31")}));
    assert_eq!(cluster.run(), 0);
    cluster.service("c", service());
    cluster.run();
    assert_eq!((cluster.addresses("a"), cluster.addresses("c")), (vec!["10.0.0.0".into()], vec!["10.0.0.1".into()]));
}

#[test]
fn requested_addresses_are_given_or_refused_with_the_reason() {
    let mut cluster = cluster("10.0.0.0/28");
    let selector = json!({"matchLabels": {"color": "red"}});
    cluster.pool("red", json!({"blocks": blocks("10.1.0.0/28"), "serviceSelector": selector}));
    cluster.pool("off", json!({"blocks": blocks("10.2.0.0/28"), "disabled": true}));
    cluster.pool("ends", json!({"blocks": blocks("10.3.0.0/28"), "allowFirstLastIPs": "No"}));
    cluster.service("first", service().annotations(requests("10.0.0.7, 10.0.0.9")));
    cluster.service("field", service().spec("loadBalancerIP", json!("10.0.0.8")));
    cluster.service("alias", service().annotations(json!({"io.cilium/lb-ipam-ips": "10.0.0.6"})));
    for (name, address) in [
        ("taken", "10.0.0.7"),
        ("none", "10.9.0.1"),
        ("mismatch", "10.1.0.1"),
        ("off", "10.2.0.1"),
        ("end", "10.3.0.0"),
    ] {
        cluster.service(name, service().annotations(requests(address)));
    }
    cluster.run();
    assert_eq!(cluster.addresses("first"), ["10.0.0.7", "10.0.0.9"]);
    assert_eq!(cluster.addresses("field"), ["10.0.0.8"]);
    assert_eq!(cluster.addresses("alias"), ["10.0.0.6"]);
    for (name, reason, message) in [
        ("taken", "already_allocated", "10.0.0.7 is the address of Service default/first"),
        ("none", "no_pool", "no CiliumLoadBalancerIPPool has 10.9.0.1"),
        (
            "mismatch",
            "pool_selector_mismatch",
            "the CiliumLoadBalancerIPPool red of 10.1.0.1 does not select this Service",
        ),
        ("off", "no_pool", "the CiliumLoadBalancerIPPool off of 10.2.0.1 is disabled"),
        (
            "end",
            "already_allocated",
            "10.3.0.0 is kept back: by spec.allowFirstLastIPs of CiliumLoadBalancerIPPool ends, or for the cluster itself",
        ),
    ] {
        assert_eq!(cluster.said(name), ("False".into(), reason.into(), message.into()));
        assert_eq!(cluster.addresses(name), [""; 0]);
    }
    cluster.remove_service("first");
    cluster.run();
    assert_eq!(cluster.addresses("taken"), ["10.0.0.7"]);
}

#[test]
fn who_asks_for_an_address_comes_before_who_would_take_any() {
    let mut cluster = cluster("10.0.0.0/31");
    cluster.service("any", service());
    cluster.service("this", service().annotations(requests("10.0.0.0")));
    cluster.run();
    assert_eq!(cluster.addresses("this"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("any"), ["10.0.0.1"]);
    // Even before who had it.
    cluster.remove_service("any");
    cluster.run();
    cluster.service("any", service());
    cluster.service("that", service().annotations(requests("10.0.0.1")));
    cluster.run();
    assert_eq!(cluster.addresses("that"), ["10.0.0.1"]);
    assert_eq!(cluster.addresses("any"), [""; 0]);
}

#[test]
fn an_address_that_is_not_asked_for_any_more_is_taken_away() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("a", service().annotations(requests("10.0.0.7,10.0.0.8")));
    cluster.run();
    cluster.edit("a", |a| a.annotations(requests("10.0.0.8,10.0.0.9")));
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.8", "10.0.0.9"]);
}

#[test]
fn a_request_that_cannot_be_understood_is_named_and_changes_nothing() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("a", service());
    cluster.run();
    for (annotation, message) in [
        ("banana", "lbipam.cilium.io/ips: \"banana\" is not an IP address"),
        ("10.0.0.0/28", "lbipam.cilium.io/ips: \"10.0.0.0/28\" is not an IP address"),
        (",", "lbipam.cilium.io/ips: \"\" is not an IP address"),
        ("fd00::1", "lbipam.cilium.io/ips: fd00::1 is of IPv6, which spec.ipFamilies does not name"),
    ] {
        cluster.edit("a", |a| a.annotations(requests(annotation)));
        cluster.run();
        assert_eq!(cluster.said("a"), ("False".into(), "invalid_request".into(), message.into()));
        assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
        cluster.service("new", service().annotations(requests(annotation)));
        cluster.run();
        assert_eq!(cluster.addresses("new"), [""; 0], "who asked for a certain address is not helped by another");
    }
    cluster.edit("a", |a| a.annotations(requests("10.0.0.3,banana")));
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.0", "10.0.0.3"]);
}

#[test]
fn each_family_that_is_asked_for_has_an_address() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.pool("six", json!({"blocks": blocks("fd00::/120")}));
    let families = |families: &[&str], policy: &str| {
        service().spec("ipFamilies", json!(families)).spec("ipFamilyPolicy", json!(policy))
    };
    cluster.service("four", families(&["IPv4"], "SingleStack"));
    cluster.service("six", families(&["IPv6", "IPv4"], "SingleStack"));
    cluster.service("both", families(&["IPv6", "IPv4"], "RequireDualStack"));
    cluster.service("prefer", families(&["IPv4"], "PreferDualStack"));
    cluster.run();
    assert_eq!(cluster.addresses("four"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("six"), ["fd00::"]);
    assert_eq!(cluster.addresses("both"), ["10.0.0.1", "fd00::1"]);
    assert_eq!(cluster.addresses("prefer"), ["10.0.0.2"]);
    cluster.edit("both", |both| both.spec("ipFamilies", json!(["IPv6"])).spec("ipFamilyPolicy", json!("SingleStack")));
    cluster.remove_pool("six");
    cluster.run();
    assert_eq!(cluster.addresses("both"), [""; 0]);
    assert_eq!(cluster.said("both").2, "no enabled CiliumLoadBalancerIPPool with IPv6 selects this Service");
    assert_eq!(cluster.addresses("four"), ["10.0.0.0"]);
}

#[test]
fn what_others_wrote_into_a_status_stays() {
    let mut cluster = cluster("10.0.0.0/30");
    let condition = json!({"type": "Other", "status": "True", "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let ingress = json!([{"ip": "10.0.0.3", "ipMode": "Proxy"}, {"hostname": "old.example.com"}, {"ip": "192.0.2.7"}]);
    cluster
        .service("a", service().whole_status(json!({"loadBalancer": {"ingress": ingress}, "conditions": [condition]})));
    cluster.run();
    let status = cluster.object("a")["status"].clone();
    assert_eq!(status["conditions"][0], condition);
    assert_eq!(status["loadBalancer"]["ingress"], json!([{"ip": "10.0.0.3", "ipMode": "Proxy"}]));
}

#[test]
fn only_what_is_new_is_told_to_people() {
    let mut cluster = cluster("10.0.0.0/32");
    for name in ["a", "b"] {
        cluster.service(name, service());
    }
    cluster.run();
    assert_eq!(cluster.news(), ["default/b: no IPv4 address is left in CiliumLoadBalancerIPPool p"]);
    cluster.edit("b", |b| b.labels(json!({"x": "y"})));
    cluster.pool("q", json!({"blocks": blocks("10.0.0.0/31")}));
    cluster.run();
    assert_eq!(
        cluster.news(),
        [
            "PoolConflict q: spec.blocks[0]: 10.0.0.0/31 overlaps spec.blocks[0], 10.0.0.0/32 of CiliumLoadBalancerIPPool p"
        ]
    );
}
