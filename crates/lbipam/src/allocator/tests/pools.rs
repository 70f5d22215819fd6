// SPDX-License-Identifier: Apache-2.0
//! What pools give to whom, and what happens to addresses when pools change.

use super::cluster::{Cluster, service};
use super::{blocks, cluster, requests, shares};
use serde_json::json;

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
    let message =
        "spec.blocks[1]: 10.0.0.8-10.0.0.99 overlaps spec.blocks[0], 10.0.0.0/28 of CiliumLoadBalancerIPPool p";
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
fn a_pool_holds_its_blocks_whether_or_not_an_address_is_given() {
    let object =
        json!({"metadata": {"name": "p"}, "spec": {"blocks": [{"cidr": "10.0.0.0/30"}, {"start": "10.0.0.9"}]}});
    let pool = crate::Pool::ingest(&serde_json::from_value(object).unwrap()).unwrap();
    let held = ["10.0.0.3", "10.0.0.4", "10.0.0.9"].map(|ip| pool.contains(ip.parse().unwrap()));
    assert_eq!((held, pool.reference.resource_version), ([true, false, true], None));
}

#[test]
fn a_service_without_an_address_is_told_some_of_the_pools_that_are_full() {
    let mut cluster = Cluster::default();
    for n in 0..4 {
        cluster.pool(&format!("p{n}"), json!({"blocks": [{"start": format!("10.0.{n}.1")}]}));
    }
    for name in ["a", "b", "c", "d", "e"] {
        cluster.service(name, service());
    }
    cluster.run();
    let message = "no IPv4 address is left in CiliumLoadBalancerIPPool p0, p1, p2 and others";
    assert_eq!(cluster.said("e").2, message);
    for name in ["p2", "p3"] {
        cluster.remove_pool(name);
    }
    cluster.run();
    assert_eq!(cluster.said("e").2, "no IPv4 address is left in CiliumLoadBalancerIPPool p0, p1");
}

#[test]
fn a_pool_that_overlaps_itself_conflicts() {
    let mut cluster = Cluster::default();
    cluster.pool("p", json!({"blocks": [{"cidr": "10.0.0.0/24"}, {"start": "10.0.0.255"}]}));
    cluster.service("a", service());
    cluster.run();
    let (status, _, message) = cluster.pool_said("p", crate::POOL_CONFLICT);
    assert_eq!(
        (status.as_str(), message.as_str()),
        ("True", "spec.blocks[0]: 10.0.0.0/24 overlaps spec.blocks[1], 10.0.0.255 of the same pool")
    );
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
    let elsewhere = json!({"metadata": {"name": "n2"}, "spec": {"ipam": {"podCIDRs": ["10.9.0.0/24"]}}});
    cluster.operator.set_occupant(crate::Occupant::node(&serde_json::from_value(elsewhere).unwrap()).unwrap());
    cluster.operator.set_occupant(services);
    for name in ["a", "b", "c", "d"] {
        cluster.service(name, service());
    }
    cluster.service("asks", service().annotations(requests("10.0.0.9")));
    cluster.run();
    let message = "spec.blocks[0]: holds 10.0.0.4/30 of ServiceCIDR kubernetes, which no Service gets; \
                   spec.blocks[0]: holds 10.0.0.0, an address of node n1, which no Service gets; \
                   spec.blocks[0]: holds 10.0.0.8/29, the pod CIDR of node n1, which no Service gets";
    assert_eq!(cluster.pool_said("p", crate::POOL_VALID), ("False".into(), "overlaps_cluster".into(), message.into()));
    assert_eq!(cluster.news()[0], format!("PoolInvalid p: {message}"));
    assert!(!cluster.news().iter().any(|news| news.starts_with("PoolInvalid")), "it is told once");
    assert_eq!(cluster.addresses("early"), ["10.0.0.0"], "who has an address keeps it");
    let given: Vec<String> = ["a", "b", "c", "d"].iter().flat_map(|name| cluster.addresses(name)).collect();
    assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(cluster.said("asks").1, "already_allocated");
    // The node leaves, and its addresses are free.
    cluster.operator.remove_occupant("node n1");
    cluster.run();
    assert_eq!((cluster.addresses("d"), cluster.addresses("asks")), (vec!["10.0.0.8".into()], vec!["10.0.0.9".into()]));
}
