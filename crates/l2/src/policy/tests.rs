// SPDX-License-Identifier: Apache-2.0
//! Tests of what policies mean and what their authors are told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use serde_json::{Value, json};

fn policy(spec: Value, conditions: &[Condition]) -> Policy {
    let object =
        json!({"metadata": {"name": "p", "generation": 3}, "spec": spec, "status": {"conditions": conditions}});
    ingest_policy(&serde_json::from_value(object).unwrap()).unwrap()
}

fn told(policy: &Policy, second: i64) -> Option<Vec<Condition>> {
    policy.corrected_conditions(Timestamp::from_second(second).unwrap())
}

#[test]
fn a_policy_without_fields_selects_everything_and_announces_nothing() {
    let rule = policy(json!({}), &[]).rule.unwrap();
    assert!(rule.services.selects_all() && rule.nodes.selects_all() && rule.devices.is_empty());
    assert!(!rule.external_ips && !rule.load_balancer_ips);
}

#[test]
fn devices_are_found_anywhere_in_their_names_unless_the_expression_says_where() {
    let rule = policy(json!({"interfaces": ["^eth[0-9]+$", "bond"]}), &[]).rule.unwrap();
    let matches = |name: &str| rule.devices.iter().any(|device| device.matches(name));
    assert_eq!(["eth0", "eth0.5", "veth1", "mybond0"].map(matches), [true, false, false, true]);
}

#[test]
fn a_field_that_means_nothing_is_named_by_its_condition_and_nothing_is_announced() {
    let bad = json!({"matchExpressions": [{"key": "k", "operator": "Near"}]});
    for (spec, condition, field) in [
        (json!({"serviceSelector": bad}), SERVICE_SELECTOR, "spec.serviceSelector"),
        (json!({"nodeSelector": bad}), NODE_SELECTOR, "spec.nodeSelector"),
        (
            json!({"interfaces": ["eth0", "eth["]}),
            INTERFACE_REGEX,
            "spec.interfaces[1]: \"eth[\" is no regular expression",
        ),
        (json!({"interfaces": ["(a{9999}){9999}"]}), INTERFACE_REGEX, "spec.interfaces[0]"),
    ] {
        let policy = policy(spec, &[]);
        assert_eq!(policy.rule, None);
        let conditions = told(&policy, 10).unwrap();
        let [told] = &conditions[..] else { unreachable!("{conditions:?}") };
        assert_eq!((told.type_.as_str(), told.status.as_str(), told.observed_generation), (condition, "True", Some(3)));
        assert!(told.message.starts_with(field) && !told.message.contains('\n'), "{}", told.message);
    }
}

#[test]
fn a_message_is_as_long_as_the_api_server_takes_it() {
    let conditions = told(&policy(json!({"interfaces": ["[".repeat(100_000)]}), &[]), 10).unwrap();
    assert!(
        conditions[0].message.len() <= 32_768 && conditions[0].message.ends_with("..."),
        "{}",
        conditions[0].message.len()
    );
}

#[test]
fn conditions_are_written_when_they_differ_and_only_then() {
    assert_eq!(told(&policy(json!({"interfaces": ["eth0"]}), &[]), 10), None, "nothing was ever wrong");
    let other =
        Condition { type_: "theirs".into(), ..told(&policy(json!({"interfaces": ["["]}), &[]), 1).unwrap().remove(0) };
    let bad = told(&policy(json!({"interfaces": ["["]}), std::slice::from_ref(&other)), 10).unwrap();
    assert_eq!(bad[0], other, "those of others stay");
    assert_eq!(told(&policy(json!({"interfaces": ["["]}), &bad), 20), None);
    let still_bad = told(&policy(json!({"interfaces": ["("]}), &bad), 20).unwrap();
    assert_eq!(still_bad[1].last_transition_time, bad[1].last_transition_time, "its status has not changed");
    let good = told(&policy(json!({}), &still_bad), 30).unwrap();
    assert_eq!((good[1].status.as_str(), good[1].last_transition_time.0.as_second()), ("False", 30));
    assert_eq!(told(&policy(json!({}), &good), 40), None);
}
