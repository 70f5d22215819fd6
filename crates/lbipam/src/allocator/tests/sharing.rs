// SPDX-License-Identifier: Apache-2.0
//! Who shares an address with whom.

use super::cluster::service;
use super::{cluster, shares};
use serde_json::{Value, json};

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
    cluster.service("asks", local(6, json!({"app": "y"})).annotations(json!({"lbipam.cilium.io/ips": "10.0.0.0"})));
    cluster.run();
    assert!(cluster.said("asks").2.ends_with("with externalTrafficPolicy Local both need the same selector of pods"));
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
    cluster.service("old", service().port(1, "TCP").annotations(shares("k")));
    cluster.service("young", service().port(2, "TCP").annotations(shares("k")));
    cluster.run();
    // Both have changed and are examined, but only one has changed what matters to the other.
    cluster.edit("young", |young| young.labels(json!({"a": "b"})));
    cluster.edit("old", |old| old.port(2, "TCP"));
    cluster.run();
    assert_eq!(cluster.addresses("young"), ["10.0.0.0"]);
    assert_eq!(cluster.addresses("old"), ["10.0.0.1"]);
}
