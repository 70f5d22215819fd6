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
    let of_peer = Named { name: "HTTP".into(), proto: 6, port: 80 };
    let mut engine = with_policy(&clusterwide(spec), &[named(&own)]);
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
    engine.attach(ENDPOINT, SubjectKey::new(IdentityId(300), &[named(&own)]), None);
    engine.settle();
    assert_eq!(entries(&engine), any().into_iter().chain([peer.clone()]).collect::<Vec<_>>());
    // Of another protocol, or of another pod of the same identity.
    engine.upsert_pod(&pod(2, 303, &[Named { proto: 17, ..of_peer.clone() }]));
    engine.upsert_pod(&pod(3, 302, std::slice::from_ref(&of_peer)));
    engine.remove_pod(&here(PodName::new("x", "pod-1")));
    engine.settle();
    assert_eq!(entries(&engine), any().into_iter().chain([peer]).collect::<Vec<_>>());
    engine.remove_pod(&here(PodName::new("x", "pod-3")));
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
    engine.remove_group("g");
    assert!(rises(&engine));
    engine.remove_policy(&policy_name(0));
    assert!(rises(&engine) && engine.policy_count() == 0 && engine.provenances().next().is_none());
}
