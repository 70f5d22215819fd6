// SPDX-License-Identifier: Apache-2.0
//! Single rules and single changes, each with what comes of it.

use super::*;
use crate::rules::{Peer, Peers, Requirement, Rule, Selector, Statement as RuleStatement};
use model::LabelSource;

fn policy_with(name: &str, statements: Vec<RuleStatement>) -> Arc<Policy> {
    let rule = Rule { subject: Selector::Everything, deny_ingress: true, deny_egress: false, statements, log: None };
    let name = PolicyName { name: name.into(), ..policy_name(0) };
    Arc::new(Policy { name, labels: vec![], rules: vec![rule], problems: vec![], valid: true })
}

#[test]
fn a_known_policy_keeps_its_number_and_a_new_one_never_takes_it() {
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(9));
    (300..302).for_each(|id| engine.upsert_identity(&labelled(id)));
    engine.attach(EndpointId(1), SubjectKey::new(IdentityId(300), &[]), None);
    engine.attach(EndpointId(2), SubjectKey::new(IdentityId(301), &[]), Some(PolicyId(4)));
    engine.attach(EndpointId(3), SubjectKey::new(IdentityId(301), &[]), Some(PolicyId(5)));
    let number = |id| engine.policy_of(EndpointId(id)).unwrap().id.0;
    assert_eq!((number(1), number(2), number(3)), (10, 4, 4));
    // Pods of different identities never share one, whatever the kernel says they had.
    (302..304).for_each(|id| engine.upsert_identity(&labelled(id)));
    engine.attach(EndpointId(4), SubjectKey::new(IdentityId(302), &[]), Some(PolicyId(4)));
    engine.attach(EndpointId(5), SubjectKey::new(IdentityId(303), &[]), Some(PolicyId(0)));
    let number = |id| engine.policy_of(EndpointId(id)).unwrap().id.0;
    assert_eq!((number(4), number(5)), (11, 12));
}

#[test]
fn a_pod_whose_labels_are_unknown_may_do_nothing() {
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(0));
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), &[]), None);
    engine.settle();
    let row = engine.policy_of(ENDPOINT).unwrap();
    assert!(row.ingress_enforced && row.egress_enforced);
    assert_eq!(row.entries.keys().map(|key| key.peer).collect::<Vec<_>>(), [reserved::HOST]);
}

#[test]
fn a_new_member_touches_only_its_own_entries() {
    let everyone = Selector::all_of(vec![Requirement::exists(LabelSource::K8s, "app")]);
    let peers = Peers::Some(NonEmpty::one(Peer::Labels(everyone)));
    let statement = RuleStatement {
        direction: Direction::Ingress,
        effect: Effect::Allow,
        peers,
        ports: None,
        origin: "ingress[0]".into(),
    };
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(0));
    engine.upsert_identity(&labelled(300));
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), &[]), None);
    engine.upsert_policy(policy_with("p", vec![statement]));
    engine.settle();
    let before = engine.policy_of(ENDPOINT).unwrap().entries;
    engine.upsert_identity(&labelled(301));
    assert_eq!(engine.settle().len(), 1);
    let after = engine.policy_of(ENDPOINT).unwrap().entries;
    let changed: Vec<_> = before.diff(&after).collect();
    assert_eq!(changed.len(), 1);
    assert!(after.keys().any(|key| key.peer == IdentityId(301)));
    assert!(engine.settle().is_empty());
}

/// The engine with the identities 300 to 303, of which the first is the endpoint's, and one policy.
fn with_policy(policy: &Value, own_ports: &[NamedPort]) -> Engine {
    let mut engine = Engine::new(Enforcement::Default, DUAL, [], PolicyId(0));
    (300..304).for_each(|id| engine.upsert_identity(&labelled(id)));
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), own_ports), None);
    let context = Context { cluster: "home".into(), default_local_cluster: false, sctp: false };
    engine.upsert_policy(ingest(&context, policy));
    engine.settle();
    engine
}

fn clusterwide(spec: Value) -> Value {
    serde_json::json!({"kind": "CiliumClusterwideNetworkPolicy", "metadata": {"name": "p0"}, "spec": spec})
}

/// Peer, protocol, port, length of the prefix, and rule of each entry that a rule stands behind.
fn entries(engine: &Engine) -> Vec<(u32, u8, u16, u8, String)> {
    let row = engine.policy_of(ENDPOINT).unwrap();
    let rule = |id: u32| engine.provenances().find(|p| p.id.0 == id).map(|p| p.rule.clone());
    let line = |(key, entry): (&EntryKey, &PolicyEntry)| {
        Some((key.peer.0, key.proto, key.port, key.prefix_len, rule(entry.provenance)?))
    };
    row.entries.iter().filter_map(line).collect()
}

#[test]
fn of_rules_that_say_the_same_the_first_gives_its_name_and_a_deny_before_any_allow() {
    let app_b = serde_json::json!([{"matchLabels": {"app": "b"}}]);
    let allow = serde_json::json!([{"fromEndpoints": app_b}, {"fromEndpoints": app_b}]);
    let twice = clusterwide(serde_json::json!({"endpointSelector": {}, "ingress": allow}));
    let named = |policy: &Value| entries(&with_policy(policy, &[])).into_iter().map(|e| (e.0, e.4)).collect::<Vec<_>>();
    assert_eq!(named(&twice), [(301, "ingress[0]".to_owned()), (303, "ingress[0]".to_owned())]);
    let both = clusterwide(serde_json::json!({"endpointSelector": {}, "ingress": allow, "ingressDeny": allow}));
    assert_eq!(named(&both), [(301, "ingressDeny[0]".to_owned()), (303, "ingressDeny[0]".to_owned())]);
}

#[test]
fn a_named_port_is_the_peers_on_egress_and_the_pods_own_on_ingress() {
    let ports = serde_json::json!([{"ports": [{"port": "http", "protocol": "TCP"}, {"port": "9", "protocol": "TCP"}]}]);
    let spec =
        serde_json::json!({"endpointSelector": {}, "ingress": [{"toPorts": ports}], "egress": [{"toPorts": ports}]});
    let own = Named { name: "http".into(), proto: 6, port: 8080 };
    let others = [Named { proto: 17, ..own.clone() }, Named { name: "admin".into(), port: 8081, ..own.clone() }];
    let own: Vec<_> = std::iter::once(&own).chain(&others).map(named).collect();
    let of_peer = Named { name: "HTTP".into(), proto: 6, port: 80 };
    let mut engine = with_policy(&clusterwide(spec), &own);
    let any = || {
        let full = abi::policy::PREFIX_PORT as u8;
        let line = |port, rule: &str| (0, 6, port, full, rule.to_owned());
        vec![line(9, "ingress[0]"), line(8080, "ingress[0]"), line(9, "egress[0]")]
    };
    assert_eq!(entries(&engine), any());
    engine.upsert_pod(&pod(1, 302, std::slice::from_ref(&of_peer)));
    engine.settle();
    let peer = (302, 6, 80, abi::policy::PREFIX_PORT as u8, "egress[0]".to_owned());
    assert_eq!(entries(&engine), any().into_iter().chain([peer.clone()]).collect::<Vec<_>>());
    // From nothing, with the peer's ports known.
    engine.detach(ENDPOINT);
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), &own), None);
    engine.settle();
    assert_eq!(entries(&engine), any().into_iter().chain([peer.clone()]).collect::<Vec<_>>());
    // Of another protocol, or of another pod of the same identity.
    engine.upsert_pod(&pod(2, 303, &[Named { proto: 17, ..of_peer.clone() }]));
    engine.upsert_pod(&pod(3, 302, std::slice::from_ref(&of_peer)));
    engine.remove_pod(&here(PodName::new("x", "pod-1")));
    engine.settle();
    assert_eq!(entries(&engine), any().into_iter().chain([peer.clone()]).collect::<Vec<_>>());
    // The same again is nothing to compile, and another number takes the place of the first one.
    engine.upsert_pod(&pod(3, 302, std::slice::from_ref(&of_peer)));
    assert!(engine.settle().is_empty());
    engine.upsert_pod(&pod(3, 302, &[Named { port: 81, ..of_peer.clone() }, Named { port: 82, ..of_peer.clone() }]));
    engine.settle();
    let peers = |id, ports: &[u16]| ports.iter().map(|port| (id, 6, *port, peer.3, peer.4.clone())).collect::<Vec<_>>();
    assert_eq!(entries(&engine), any().into_iter().chain(peers(302, &[81, 82])).collect::<Vec<_>>());
    engine.upsert_pod(&pod(3, 302, &[Named { port: 83, ..of_peer.clone() }, Named { port: 84, ..of_peer.clone() }]));
    engine.settle();
    assert_eq!(entries(&engine), any().into_iter().chain(peers(302, &[83, 84])).collect::<Vec<_>>());
    engine.upsert_pod(&pod(3, 301, &[Named { port: 83, ..of_peer.clone() }, Named { port: 84, ..of_peer.clone() }]));
    engine.settle();
    assert_eq!(entries(&engine), any().into_iter().chain(peers(301, &[83, 84])).collect::<Vec<_>>());
    engine.remove_pod(&here(PodName::new("x", "pod-3")));
    // Without an identity it is nobody, and least of all everybody.
    engine.upsert_pod(&pod(4, 0, &[of_peer]));
    engine.settle();
    assert_eq!(entries(&engine), any());
}

#[test]
fn a_pod_whose_identity_gets_other_labels_falls_under_other_policies() {
    let spec = serde_json::json!({"endpointSelector": {"matchLabels": {"app": "b"}}, "ingress": [{}]});
    let mut engine = with_policy(&clusterwide(spec), &[]);
    let enforced = |engine: &Engine| engine.policy_of(ENDPOINT).unwrap().ingress_enforced;
    assert!(!enforced(&engine));
    engine.upsert_identity(&Identity { labels: labelled(301).labels, ..labelled(300) });
    assert_eq!(engine.settle().len(), 1);
    assert!(enforced(&engine));
    engine.upsert_identity(&labelled(300));
    engine.settle();
    assert!(!enforced(&engine));
}

#[test]
fn an_identity_that_pods_have_is_kept_and_another_goes_with_its_entries() {
    let spec = serde_json::json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]});
    let mut engine = with_policy(&clusterwide(spec), &[]);
    let peers = |engine: &Engine| entries(engine).into_iter().map(|entry| entry.0).collect::<Vec<_>>();
    assert_eq!(peers(&engine), [300, 301, 302, 303]);
    drop(engine.identity_changes());
    engine.remove_identity(IdentityId(300));
    engine.remove_identity(IdentityId(302));
    engine.settle();
    assert_eq!(peers(&engine), [300, 301, 303]);
    assert_eq!(engine.identity_changes(), [(IdentityId(302), None)]);
    engine.upsert_identity(&labelled(302));
    assert_eq!(engine.identity_changes(), [(IdentityId(302), Some(labelled(302)))]);
    assert!(engine.identity_changes().is_empty());
}

#[test]
fn the_revision_rises_with_each_change_of_what_policies_say_and_with_no_other() {
    let spec = serde_json::json!({"endpointSelector": {}, "egress": [{"toCIDRSet": [{"cidrGroupRef": "g"}]}]});
    let mut engine = with_policy(&clusterwide(spec), &[]);
    let group =
        |cidrs: Value| ingest_group(&serde_json::json!({"metadata": {"name": "g"}, "spec": {"externalCIDRs": cidrs}}));
    assert!(!engine.has_retired_prefixes());
    let mut last = engine.revision();
    let mut rises = |engine: &Engine| std::mem::replace(&mut last, engine.revision()) < engine.revision();
    engine.upsert_group(group(serde_json::json!(["10.0.0.0/8"])));
    assert!(rises(&engine) && engine.prefixes().count() == 1);
    engine.upsert_group(group(serde_json::json!([])));
    assert!(rises(&engine) && engine.prefixes().count() == 0 && engine.has_retired_prefixes());
    engine.remove_group("other");
    engine.remove_policy(&policy_name(7));
    engine.upsert_identity(&labelled(301));
    assert!(!rises(&engine));
    let servers = BTreeSet::from(["192.168.77.11".parse().unwrap()]);
    engine.set_api_servers(&servers, false);
    assert!(rises(&engine));
    engine.set_api_servers(&servers, false);
    assert!(!rises(&engine));
    engine.remove_group("g");
    assert!(rises(&engine));
    engine.remove_policy(&policy_name(0));
    assert!(rises(&engine) && engine.policy_count() == 0 && engine.provenances().next().is_none());
}

/// Whether the pod of the endpoint is reached by an identity at a TCP port.
fn is_reached(engine: &Engine, peer: u32, port: u16) -> bool {
    let row = engine.policy_of(ENDPOINT).unwrap();
    let packet = Packet { direction: Direction::Ingress, remote: Remote::Identity(peer), proto: 6, port };
    kernel(&installed(&row), row.id, IdentityId(peer), &packet).is_some_and(|entry| entry.deny == 0)
}

#[test]
fn a_deny_holds_for_every_port_that_it_covers_however_narrow_the_allow() {
    let on = |port: &str, end: u16, protocol: &str| {
        let port = serde_json::json!({"port": port, "endPort": end, "protocol": protocol});
        serde_json::json!([{"ports": [port]}])
    };
    let app_b = serde_json::json!([{"matchLabels": {"app": "b"}}]);
    let allow = serde_json::json!([{"fromEndpoints": app_b, "toPorts": on("8003", 0, "TCP")}]);
    let by_b = |ports: Value| serde_json::json!([{"fromEndpoints": app_b, "toPorts": ports}]);
    for (deny, reached) in [
        (serde_json::json!([]), true),
        (serde_json::json!([{"fromEndpoints": app_b}]), false),
        (serde_json::json!([{"fromEntities": ["all"]}]), false),
        (by_b(on("0", 0, "TCP")), false),
        (by_b(on("8003", 0, "TCP")), false),
        (by_b(on("8002", 8003, "TCP")), false),
        (by_b(on("8000", 8007, "TCP")), false),
        (by_b(on("1", 65535, "TCP")), false),
        (serde_json::json!([{"toPorts": on("8000", 8007, "TCP")}]), false),
        (by_b(on("8004", 8007, "TCP")), true),
        (by_b(on("8003", 0, "UDP")), true),
        (serde_json::json!([{"fromEndpoints": [{"matchLabels": {"app": "a"}}]}]), true),
    ] {
        let spec = serde_json::json!({"endpointSelector": {}, "ingress": allow, "ingressDeny": deny});
        let engine = with_policy(&clusterwide(spec), &[]);
        assert_eq!(is_reached(&engine, 301, 8003), reached, "{deny}");
        assert!(!is_reached(&engine, 301, 8002) && !is_reached(&engine, 302, 8003), "{deny}");
    }
}

#[test]
fn what_concerns_no_policy_of_a_pod_compiles_nothing() {
    let http = serde_json::json!([{"ports": [{"port": "80", "protocol": "TCP"}]}]);
    let spec =
        serde_json::json!({"endpointSelector": {}, "egress": [{"toPorts": http}], "ingress": [{"toPorts": http}]});
    let mut engine = with_policy(&clusterwide(spec), &[]);
    engine.upsert_pod(&pod(1, 301, &[Named { name: "http".into(), proto: 6, port: 80 }]));
    assert!(engine.settle().is_empty(), "no rule names a port");
    // About pods that are not here.
    let peers = serde_json::json!([{"fromEndpoints": [{"matchLabels": {"app": "c"}}]}]);
    let mut other =
        clusterwide(serde_json::json!({"endpointSelector": {"matchLabels": {"app": "b"}}, "ingress": peers}));
    other["metadata"]["name"] = serde_json::json!("p1");
    let context = Context { cluster: "home".into(), default_local_cluster: false, sctp: false };
    engine.upsert_policy(ingest(&context, &other));
    assert!(engine.settle().is_empty());
    let labels = [Label::k8s("app", "c"), Label::k8s(crate::labels::NAMESPACE, "x")].into_iter().collect();
    engine.upsert_identity(&Identity { id: IdentityId(310), labels });
    assert!(engine.settle().is_empty());
}

#[test]
fn an_address_that_a_policy_names_is_labelled_as_api_server_while_it_is_one() {
    let spec = serde_json::json!({"endpointSelector": {}, "egress": [{"toCIDR": ["192.168.77.11/32"]}]});
    let mut engine = with_policy(&clusterwide(spec), &[]);
    drop(engine.identity_changes());
    let mut changes = |servers: &[&str]| {
        engine.set_api_servers(&servers.iter().map(|text| text.parse().unwrap()).collect(), false);
        let changes = engine.identity_changes().into_iter();
        changes.map(|(id, row)| (id.0, row.unwrap().labels.to_strings())).collect::<Vec<_>>()
    };
    let (own, api) = ("cidr:192.168.77.11/32".to_owned(), "reserved:kube-apiserver".to_owned());
    let world = "reserved:world-ipv4".to_owned();
    let first = 16_777_217;
    let host = (1, vec!["reserved:host".to_owned()]);
    assert_eq!(
        changes(&["192.168.77.11"]).into_iter().filter(|row| *row != host).collect::<Vec<_>>(),
        [(first, vec![own.clone(), api, world.clone()])]
    );
    assert_eq!(changes(&[]), [(first, vec![own, world])]);
    assert_eq!(changes(&[]), []);
}

#[test]
fn numbers_that_only_the_pinned_ipcache_had_become_free() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let restored = [(net("10.0.0.0/8"), IdentityId(16_777_217)), (net("11.0.0.0/8"), IdentityId(0x01ff_ffff))];
    for (forgotten, number) in [(false, 16_777_218), (true, 16_777_217)] {
        let mut engine = Engine::new(Enforcement::Default, DUAL, restored, PolicyId(0));
        if forgotten {
            engine.forget_restored_prefixes();
        }
        engine.set_api_servers(&BTreeSet::from(["12.0.0.1".parse().unwrap()]), false);
        assert_eq!(engine.prefixes().collect::<Vec<_>>(), [(net("12.0.0.1/32"), IdentityId(number))]);
    }
}
