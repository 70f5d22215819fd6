// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod cluster;
mod kills;
mod scale;

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
    assert_eq!(
        (cluster.addresses("this"), cluster.addresses("any")),
        (vec!["10.0.0.0".into()], vec!["10.0.0.1".into()])
    );
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
fn services_with_one_key_share_an_address_unless_their_ports_clash() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("http", service().annotations(shares("web")));
    cluster.service("https", service().port(443, "TCP").annotations(json!({"io.cilium/lb-ipam-sharing-key": "web"})));
    cluster.service("quic", service().port(443, "UDP").annotations(shares("web")));
    cluster.service("clash", service().port(443, "TCP").annotations(shares("web")));
    cluster.service("other", service().port(444, "TCP").annotations(shares("other")));
    cluster.service(
        "local",
        service().port(445, "TCP").spec("externalTrafficPolicy", json!("Local")).annotations(shares("web")),
    );
    cluster.run();
    for name in ["http", "https", "quic"] {
        assert_eq!(cluster.addresses(name), ["10.0.0.0"], "{name}");
    }
    for (name, address) in [("clash", "10.0.0.1"), ("other", "10.0.0.2")] {
        assert_eq!(cluster.addresses(name), [address], "{name}");
        assert_eq!(cluster.said(name).1, "satisfied");
    }
    assert_eq!(cluster.addresses("local"), ["10.0.0.3"]);
    assert_eq!(cluster.counts("p"), ["16", "12", "4"]);
    let asked = json!({"lbipam.cilium.io/sharing-key": "web", "lbipam.cilium.io/ips": "10.0.0.0"});
    cluster.service("asks", service().annotations(asked));
    cluster.run();
    let message = "10.0.0.0 is the address of Service default/http, which cannot share it: both have port 80/TCP";
    assert_eq!(cluster.said("asks"), ("False".into(), "already_allocated_incompatible_service".into(), message.into()));
    cluster.edit("http", |http| http.port(8080, "TCP"));
    cluster.run();
    assert_eq!(cluster.addresses("asks"), ["10.0.0.0"], "nothing stands against it any more");
}

#[test]
fn local_services_share_if_they_lead_to_the_same_pods() {
    let mut cluster = cluster("10.0.0.0/28");
    let local = |port, selector: Value| {
        service()
            .port(port, "TCP")
            .spec("externalTrafficPolicy", json!("Local"))
            .spec("selector", selector)
            .annotations(shares("k"))
    };
    cluster.service("a", local(1, json!({"app": "x"})));
    cluster.service("b", local(2, json!({"app": "x"})));
    cluster.service("c", local(3, json!({"app": "y"})));
    cluster.service("d", local(4, json!({})));
    cluster.service("e", local(5, json!({})));
    cluster.run();
    let all: Vec<String> = ["a", "b", "c", "d", "e"].iter().flat_map(|name| cluster.addresses(name)).collect();
    assert_eq!(all, ["10.0.0.0", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[test]
fn a_key_leads_into_another_namespace_only_if_both_allow_it() {
    let mut cluster = cluster("10.0.0.0/28");
    let shared = |port, with: &str| {
        let annotations =
            json!({"lbipam.cilium.io/sharing-key": "k", "lbipam.cilium.io/sharing-cross-namespace": with});
        service().port(port, "TCP").annotations(annotations)
    };
    cluster.service("shop/a", shared(1, "bank, post"));
    cluster.service("bank/a", shared(2, "shop"));
    cluster.service("post/a", shared(3, "bank"));
    cluster.service("thief/a", shared(4, "*"));
    cluster.run();
    assert_eq!(cluster.addresses("bank/a"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("post/a"), ["10.0.0.1"], "bank does not let it in, and shop neither is let in by it");
    assert_eq!(cluster.addresses("thief/a"), ["10.0.0.2"]);
    cluster.service("asks/a", shared(5, "*").annotations(json!({"lbipam.cilium.io/ips": "10.0.0.0"})));
    cluster.run();
    assert_eq!(cluster.addresses("asks/a"), [""; 0]);
    assert!(cluster.said("asks/a").2.contains("not both let the other's namespace in"));
}

#[test]
fn who_changes_its_terms_gives_way_to_who_does_not() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("young", service().port(1, "TCP").annotations(shares("k")));
    cluster.service("old", service().port(2, "TCP").annotations(shares("k")));
    cluster.run();
    // Both are looked at, since both have changed, but only one has changed what matters to the other.
    cluster.edit("young", |young| young.labels(json!({"a": "b"})));
    cluster.edit("old", |old| old.port(1, "TCP"));
    cluster.run();
    assert_eq!(cluster.addresses("young"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("old"), ["10.0.0.1"]);
    cluster.edit("young", |young| young.labels(json!({"a": "c"})).port(2, "TCP"));
    cluster.run();
    assert_eq!(cluster.addresses("young"), ["10.0.0.0"], "nobody is in the way");
}

#[test]
fn a_pool_is_for_the_services_that_it_selects() {
    let mut cluster = Cluster::default();
    let selector = json!({"matchLabels": {"io.kubernetes.service.namespace": "shop"}});
    cluster.pool("shop", json!({"blocks": blocks("10.1.0.0/28"), "serviceSelector": selector}));
    let selector = json!({"matchExpressions": [{"key": "color", "operator": "In", "values": ["blue", "cyan"]}]});
    cluster.pool("blue", json!({"blocks": blocks("10.2.0.0/28"), "serviceSelector": selector}));
    cluster.service("shop/a", service());
    cluster.service("bank/a", service().labels(json!({"color": "cyan"})));
    cluster.service("bank/b", service());
    cluster.run();
    assert_eq!(cluster.addresses("shop/a"), ["10.1.0.0"]);
    assert_eq!(cluster.addresses("bank/a"), ["10.2.0.0"]);
    assert_eq!(cluster.said("bank/b").1, "no_pool");
    cluster.edit("bank/a", |a| a.labels(json!({"color": "red"})));
    cluster.edit("bank/b", |b| b.labels(json!({"color": "blue"})));
    cluster.run();
    assert_eq!(cluster.addresses("bank/a"), [""; 0]);
    assert_eq!(cluster.addresses("bank/b"), ["10.2.0.1"], "the other had its address until that was written");
}

#[test]
fn a_disabled_pool_gives_nothing_new_and_takes_nothing_away() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("a", service().annotations(shares("k")));
    cluster.run();
    cluster.pool("p", json!({"blocks": blocks("10.0.0.0/28"), "disabled": true}));
    cluster.service("b", service());
    cluster.service("c", service().port(81, "TCP").annotations(shares("k")));
    cluster.run();
    cluster.restart();
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
    for name in ["b", "c"] {
        assert_eq!(cluster.said(name).1, "no_pool");
    }
}

#[test]
fn of_pools_that_overlap_the_younger_gives_nothing_and_takes_nothing_away() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.pool("another", json!({"blocks": [{"cidr": "10.1.0.0/28"}]}));
    cluster.service("a", service());
    cluster.service("b", service().annotations(requests("10.1.0.3")));
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.1.0.0"]);
    cluster.pool("another", json!({"blocks": [{"cidr": "10.1.0.0/28"}, {"start": "10.0.0.8", "stop": "10.0.0.99"}]}));
    cluster.service("c", service());
    cluster.service("d", service().annotations(requests("10.1.0.4")));
    cluster.run();
    let message = "10.0.0.8-10.0.0.99 overlaps 10.0.0.0/28 of CiliumLoadBalancerIPPool p";
    assert_eq!(
        cluster.pool_said("another", crate::POOL_CONFLICT),
        ("True".into(), "cidr_overlap".into(), message.into())
    );
    assert_eq!(cluster.pool_said("p", crate::POOL_CONFLICT).0, "False");
    assert_eq!(cluster.addresses("a"), ["10.1.0.0"]);
    assert_eq!(cluster.addresses("b"), ["10.1.0.3"]);
    assert_eq!(cluster.addresses("c"), ["10.0.0.0"]);
    assert_eq!(cluster.said("d").2, "the CiliumLoadBalancerIPPool another of 10.1.0.4 conflicts with another");
    cluster.remove_pool("p");
    cluster.run();
    assert_eq!(cluster.pool_said("another", crate::POOL_CONFLICT).1, "resolved");
    assert_eq!(cluster.addresses("d"), ["10.1.0.4"]);
    assert_eq!(cluster.addresses("c"), ["10.0.0.8"], "its pool is gone");
}

#[test]
fn a_pool_that_overlaps_itself_conflicts() {
    let mut cluster = Cluster::default();
    cluster.pool("p", json!({"blocks": [{"cidr": "10.0.0.0/24"}, {"start": "10.0.0.255"}]}));
    cluster.service("a", service());
    cluster.run();
    let (status, _, message) = cluster.pool_said("p", crate::POOL_CONFLICT);
    assert_eq!((status.as_str(), message.as_str()), ("True", "10.0.0.0/24 overlaps 10.0.0.255 of the same pool"));
    assert_eq!(cluster.said("a").1, "no_pool");
}

#[test]
fn a_pool_that_shrinks_takes_away_what_it_has_not_any_more() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("a", service().annotations(requests("10.0.0.9")));
    cluster.service("b", service().annotations(requests("10.0.0.1")));
    cluster.service("c", service().status(&["10.0.0.8"]));
    cluster.run();
    cluster.pool("p", json!({"blocks": blocks("10.0.0.0/29")}));
    cluster.run();
    assert_eq!(cluster.addresses("a"), [""; 0]);
    assert_eq!(cluster.said("a").2, "no CiliumLoadBalancerIPPool has 10.0.0.9");
    assert_eq!(cluster.addresses("b"), ["10.0.0.1"]);
    assert_eq!(cluster.addresses("c"), ["10.0.0.0"]);
    assert_eq!(cluster.counts("p"), ["8", "6", "2"]);
}

#[test]
fn what_may_be_of_a_block_that_cannot_be_read_is_left_alone() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("a", service());
    cluster.run();
    cluster.pool("p", json!({"blocks": [{"start": "10.0.0.0", "stop": "10.0.0"}, {"cidr": "10.1.0.0/28"}]}));
    cluster.service("b", service());
    cluster.restart();
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
    assert_eq!(cluster.said("a").1, "satisfied");
    assert_eq!(cluster.addresses("b"), ["10.1.0.0"]);
    let fault = "spec.blocks[0].stop: \"10.0.0\" is not an IP address";
    assert_eq!(cluster.pool_said("p", crate::POOL_VALID), ("False".into(), "invalid".into(), fault.into()));
    cluster.pool("p", json!({"blocks": blocks("10.1.0.0/28")}));
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.1.0.1"]);
}

#[test]
fn a_selector_that_means_nothing_gives_nothing_and_takes_nothing_away() {
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("a", service());
    cluster.run();
    let selector = json!({"matchExpressions": [{"key": "k", "operator": "In"}]});
    cluster.pool("p", json!({"blocks": blocks("10.0.0.0/28"), "serviceSelector": selector}));
    cluster.service("b", service());
    cluster.restart();
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
    assert_eq!(cluster.said("b").1, "no_pool");
}

#[test]
fn huge_pools_are_counted_and_given_from() {
    let mut cluster = cluster("2000::/3");
    cluster.service("a", service().spec("ipFamilies", json!(["IPv6"])));
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["2000::"]);
    assert_eq!(
        cluster.counts("p"),
        ["42535295865117307932921825928971026432", "42535295865117307932921825928971026431", "1"]
    );
}

#[test]
fn ends_of_prefixes_that_are_kept_back_stay_with_who_has_them() {
    let mut cluster = cluster("10.0.0.0/30");
    cluster.service("a", service());
    cluster.run();
    cluster.pool("p", json!({"blocks": blocks("10.0.0.0/30"), "allowFirstLastIPs": "No"}));
    for name in ["b", "c", "d"] {
        cluster.service(name, service());
    }
    cluster.restart();
    cluster.run();
    assert_eq!(cluster.addresses("a"), ["10.0.0.0"]);
    assert_eq!((cluster.addresses("b"), cluster.addresses("c")), (vec!["10.0.0.1".into()], vec!["10.0.0.2".into()]));
    let (_, reason, message) = cluster.said("d");
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("out_of_ips", "no IPv4 address is left in CiliumLoadBalancerIPPool p")
    );
    cluster.remove_service("a");
    cluster.run();
    assert_eq!(cluster.addresses("d"), [""; 0]);
    assert_eq!(cluster.counts("p"), ["2", "0", "2"]);
}

#[test]
fn what_the_cluster_itself_has_is_named_and_given_to_nobody() {
    let node = |address: &str, pods: &str| {
        let object = json!({"metadata": {"name": "n1"}, "spec": {"addresses": [{"type": "InternalIP", "ip": address}], "ipam": {"podCIDRs": [pods]}}});
        crate::Occupant::node(&serde_json::from_value(object).unwrap()).unwrap()
    };
    let services = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.0.0.4/30", "nonsense"]}});
    let services = crate::Occupant::service_cidr(&serde_json::from_value(services).unwrap()).unwrap();
    let mut cluster = cluster("10.0.0.0/28");
    cluster.service("early", service());
    cluster.run();
    assert_eq!(cluster.pool_said("p", crate::POOL_VALID).0, "True");
    cluster.operator.set_occupant(node("10.0.0.0", "10.0.0.8/29"));
    cluster.operator.set_occupant(services);
    for name in ["a", "b", "c", "d"] {
        cluster.service(name, service());
    }
    cluster.service("asks", service().annotations(requests("10.0.0.9")));
    cluster.run();
    let message = "spec.blocks: holds 10.0.0.4/30 of ServiceCIDR kubernetes, which no Service gets; \
                   spec.blocks: holds 10.0.0.0, an address of node n1, which no Service gets; \
                   spec.blocks: holds 10.0.0.8/29, the pod CIDR of node n1, which no Service gets";
    assert_eq!(cluster.pool_said("p", crate::POOL_VALID), ("False".into(), "overlaps_cluster".into(), message.into()));
    assert_eq!(cluster.news()[0], format!("PoolInvalid p: {message}"));
    assert_eq!(cluster.addresses("early"), ["10.0.0.0"], "who has an address keeps it");
    let given: Vec<String> = ["a", "b", "c", "d"].iter().flat_map(|name| cluster.addresses(name)).collect();
    assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(cluster.said("asks").1, "already_allocated");
    // The node leaves, and what it had is free.
    cluster.operator.remove_occupant("node n1");
    cluster.run();
    assert_eq!((cluster.addresses("d"), cluster.addresses("asks")), (vec!["10.0.0.8".into()], vec!["10.0.0.9".into()]));
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
    assert_eq!(cluster.news(), ["PoolConflict q: 10.0.0.0/31 overlaps 10.0.0.0/32 of CiliumLoadBalancerIPPool p"]);
}
