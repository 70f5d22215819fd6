// SPDX-License-Identifier: Apache-2.0
//! What a policy is known by, and what its selectors imply.

use super::super::{Peer, Peers};
use super::*;
use model::{Label, Labels};
use serde_json::{Value, json};

fn policy(spec: Value) -> Policy {
    let object = json!({"metadata": {"namespace": "shop", "name": "p", "uid": "u"}, "spec": spec});
    ingest_cilium_policy(&Context::default(), &serde_json::from_value(object).unwrap()).unwrap()
}

fn clusterwide(spec: Value) -> Policy {
    let object = json!({"metadata": {"name": "p"}, "spec": spec});
    ingest_clusterwide_policy(&Context::default(), &serde_json::from_value(object).unwrap()).unwrap()
}

#[test]
fn tools_know_a_policy_by_its_object_and_by_the_labels_of_its_rules() {
    let labels =
        json!([{"key": "a"}, {"key": "b", "source": "", "value": ""}, {"key": "c", "source": "k8s", "value": "v"}]);
    let spec = json!({"endpointSelector": {}, "ingress": [{}], "labels": labels});
    assert_eq!(
        policy(spec.clone()).labels,
        [
            "k8s:c=v",
            "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
            "k8s:io.cilium.k8s.policy.name=p",
            "k8s:io.cilium.k8s.policy.namespace=shop",
            "k8s:io.cilium.k8s.policy.uid=u",
            "unspec:a",
            "unspec:b",
        ]
    );
    assert_eq!(
        clusterwide(spec).labels,
        [
            "k8s:c=v",
            "k8s:io.cilium.k8s.policy.derived-from=CiliumClusterwideNetworkPolicy",
            "k8s:io.cilium.k8s.policy.name=p",
            "unspec:a",
            "unspec:b",
        ]
    );
}

#[test]
fn a_policy_selects_pods_of_its_own_namespace_whichever_it_names() {
    let pod =
        |namespace: &str| [Label::k8s("app", "web"), Label::k8s(NAMESPACE, namespace)].into_iter().collect::<Labels>();
    let named = format!("k8s:{NAMESPACE}");
    let within = |operator: &str, values: &[&str]| {
        let expression = json!({"key": named, "operator": operator, "values": values});
        policy(json!({"endpointSelector": {"matchExpressions": [expression]}, "ingress": [{}]}))
    };
    for (operator, values, problems, selected) in [
        ("In", &["shop"][..], 0, true),
        ("In", &["shop", "other"], 0, true),
        ("In", &["other"], 1, true),
        // That is not the name of another namespace, but a condition.
        ("NotIn", &["shop"], 0, false),
    ] {
        let policy = within(operator, values);
        let subject = &policy.rules.first().unwrap().subject;
        assert_eq!(policy.problems.len(), problems, "{operator} {values:?}");
        assert_eq!(subject.matches(&pod("shop")), selected, "{operator} {values:?}");
        assert!(!subject.matches(&pod("other")), "{operator} {values:?}");
    }
}

#[test]
fn only_for_pods_without_labels_does_an_empty_selector_mean_anybody() {
    let from_everywhere = |key: &str| {
        let selector = json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
        let policy = clusterwide(json!({"endpointSelector": selector, "ingress": [{"fromEndpoints": [{}]}]}));
        policy.rules.first().unwrap().statements.first().unwrap().peers.clone()
    };
    assert_eq!(from_everywhere("reserved:init"), Peers::Any);
    for key in ["k8s:init", "reserved:health", "app"] {
        let Peers::Some(peers) = from_everywhere(key) else { panic!("{key}: the world is no pod") };
        let world = [Label::reserved("world")].into_iter().collect();
        assert!(peers.iter().all(|peer| matches!(peer, Peer::Labels(pods) if !pods.matches(&world))), "{key}");
    }
}
