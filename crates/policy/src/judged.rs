// SPDX-License-Identifier: Apache-2.0
//! What a policy's author is told, in the condition `Valid` and in an event: whether it is valid, and what part of it
//! is not enforced. Uses the same code with which agents ingest policies.

use crate::ingest::CidrGroup;
use crate::rules::{self, Context, GroupUse, Problem};
use k8s::Warning;
use k8s::cilium::{
    CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, Policy, PolicyCondition, PolicyStatus as Status,
};
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::ResourceExt;
use statedb::{Inputs, Reader, Row, Snapshot, Tasks};

const CONDITION: &str = "Valid";
/// Groups that a condition names: there may be more than an object can hold.
const MOST_GROUPS: usize = 20;
const VALID: &str = "Policy validation succeeded";

/// How agents treat a policy.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Enforced,
    /// It is valid, but not all of it is enforced.
    InPart(Vec<Problem>),
    /// It is invalid: none of it is enforced.
    Invalid(Vec<Problem>),
}

impl Verdict {
    fn of(policy: rules::Policy) -> Self {
        match (policy.valid, policy.problems) {
            (false, violations) => Self::Invalid(violations),
            (true, problems) if problems.is_empty() => Self::Enforced,
            (true, problems) => Self::InPart(problems),
        }
    }

    /// Status, reason and message of the condition.
    fn condition(&self) -> (&'static str, Option<&'static str>, String) {
        match self {
            Self::Enforced => ("True", None, VALID.to_owned()),
            Self::InPart(problems) => {
                let message = format!("{VALID}, but not all of the policy is enforced: {}", join(problems, ". "));
                ("True", Some("PolicyNotEnforced"), message)
            }
            Self::Invalid(problems) => ("False", Some("PolicyInvalid"), join(problems, "; ")),
        }
    }
}

fn join(problems: &[Problem], separator: &str) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// A policy with its verdict and its current conditions. One row per policy of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its namespace; empty for a clusterwide one.
    pub namespace: String,
    pub name: String,
    /// The object, whatever its version.
    reference: ObjectReference,
    verdict: Verdict,
    /// Version of the object.
    version: String,
    conditions: Vec<PolicyCondition>,
    groups: Vec<GroupUse>,
}

/// The rows with what is not enforced for the sake of the groups that policies name.
pub fn judge_groups(
    tasks: &Tasks,
    name: &'static str,
    policies: &Reader<Judged>,
    groups: &Reader<CidrGroup>,
) -> Reader<Judged> {
    let with_groups = policies.index(|policy| (!policy.groups.is_empty()).then_some(()));
    let keys = move |_: &CidrGroup| with_groups.get(&()).iter().map(|row| row.key()).collect::<Vec<_>>();
    let inputs = Inputs::of(policies, |policy| [policy.key()]).and(groups, keys);
    let (policies, groups) = (policies.clone(), groups.clone());
    let row = move |key: &(String, String), _: Option<&Judged>| {
        Some(Judged::clone(&*policies.snapshot().get(key)?).with_groups(&groups.snapshot()))
    };
    statedb::derive(tasks, name, inputs, row).rows
}

impl Row for Judged {
    type Key = (String, String);
    fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

/// A kind of policy whose status says what is enforced.
pub trait Judgeable: Policy {
    /// Its current status.
    fn status(&self) -> Option<&Status>;

    /// How agents treat it.
    fn ingest(&self) -> Option<rules::Policy>;
}

impl Judgeable for CiliumNetworkPolicy {
    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn ingest(&self) -> Option<rules::Policy> {
        rules::ingest_cilium_policy(&Context::default(), self)
    }
}

impl Judgeable for CiliumClusterwideNetworkPolicy {
    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn ingest(&self) -> Option<rules::Policy> {
        rules::ingest_clusterwide_policy(&Context::default(), self)
    }
}

impl Judged {
    /// The row of an object.
    pub fn ingest<P: Judgeable>(policy: &P) -> Option<Self> {
        let ingested = policy.ingest()?;
        Some(Self {
            namespace: policy.namespace().unwrap_or_default(),
            name: policy.name_any(),
            reference: policy.object_ref(&()),
            groups: ingested.group_uses(),
            verdict: Verdict::of(ingested),
            version: policy.resource_version().unwrap_or_default(),
            conditions: policy.status().and_then(|status| status.conditions.clone()).unwrap_or_default(),
        })
    }

    fn with_groups(mut self, groups: &Snapshot<CidrGroup>) -> Self {
        let problems = self.groups.iter().flat_map(|used| used.problems(groups.iter().map(|group| &**group)));
        let problems: Vec<_> = problems.take(MOST_GROUPS).collect();
        self.verdict = match self.verdict {
            Verdict::Enforced if !problems.is_empty() => Verdict::InPart(problems),
            Verdict::InPart(before) => Verdict::InPart([before, problems].concat()),
            verdict => verdict,
        };
        self
    }

    /// The message about what is not enforced, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        let (_, reason, message) = self.verdict.condition();
        let note = match self.verdict {
            Verdict::Invalid(_) => format!("Nothing of the policy is enforced: {message}"),
            Verdict::Enforced | Verdict::InPart(_) => message,
        };
        Some(Warning { about: self.reference.clone(), reason: reason?, action: "Validate", note })
    }

    /// The version of the object that has the conditions which [`corrected_conditions`](Self::corrected_conditions) begins with.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The conditions it should have, if they differ.
    #[must_use]
    pub fn corrected_conditions(&self, now: Timestamp) -> Option<Vec<PolicyCondition>> {
        let (status, reason, message) = self.verdict.condition();
        let present = self.conditions.iter().find(|condition| condition.condition_type == CONDITION);
        if present.is_some_and(|c| c.status == status && c.message.as_ref() == Some(&message)) {
            return None;
        }
        let since = present.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let others = self.conditions.iter().filter(|c| c.condition_type != CONDITION).cloned();
        let ours = PolicyCondition {
            condition_type: CONDITION.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            message: Some(message),
            reason: reason.map(str::to_owned),
        };
        Some(others.chain([ours]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(spec: serde_json::Value, conditions: Vec<PolicyCondition>) -> Judged {
        let metadata = json!({"namespace": "n", "name": "p", "uid": "u", "resourceVersion": "7"});
        let object = json!({"metadata": metadata, "spec": spec, "status": {"conditions": conditions}});
        Judged::ingest(&serde_json::from_value::<CiliumNetworkPolicy>(object).unwrap()).unwrap()
    }

    fn row(egress: serde_json::Value, conditions: Vec<PolicyCondition>) -> Judged {
        policy(json!({"endpointSelector": {}, "egress": [egress]}), conditions)
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn said(condition: &PolicyCondition) -> (&str, Option<&str>, &str) {
        (&condition.status, condition.reason.as_deref(), condition.message.as_deref().unwrap())
    }

    #[test]
    fn the_condition_is_written_once_and_changes_its_time_with_its_status_only() {
        let (first, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-02T00:00:00Z"));
        let valid = row(json!({}), Vec::new()).corrected_conditions(first).unwrap();
        assert_eq!(said(&valid[0]), ("True", None, VALID));
        assert_eq!(row(json!({}), valid.clone()).corrected_conditions(later), None);
        let broken = row(json!({"toCIDR": ["x"]}), valid).corrected_conditions(later).unwrap();
        let reason = "spec.egress[0].toCIDR[0]: \"x\" is neither a prefix nor an address";
        assert_eq!(said(&broken[0]), ("False", Some("PolicyInvalid"), reason));
        assert_eq!(broken[0].last_transition_time, Some(Time(later)));
        let still = row(json!({"toCIDR": ["y"]}), broken).corrected_conditions(first).unwrap();
        assert_eq!(still[0].last_transition_time, Some(Time(later)));
    }

    #[test]
    fn other_conditions_stay() {
        let other =
            PolicyCondition { condition_type: "Other".into(), status: "True".into(), ..PolicyCondition::default() };
        let conditions =
            row(json!({}), vec![other.clone()]).corrected_conditions(time("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!((conditions.len(), &conditions[0]), (2, &other));
    }

    #[test]
    fn what_is_not_enforced_is_named_by_the_condition_and_an_event() {
        let now = time("2026-01-01T00:00:00Z");
        let l7 = json!([{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{}]}}]);
        for (egress, field) in [
            (json!({"toFQDNs": [{"matchName": "cilium.io"}]}), "spec.egress[0].toFQDNs"),
            (json!({"toServices": [{"k8sService": {"serviceName": "db"}}]}), "spec.egress[0].toServices"),
            (json!({"toNodes": [{}]}), "spec.egress[0].toNodes"),
            (json!({"toEndpoints": [{}], "toPorts": l7}), "spec.egress[0].toPorts[0].rules"),
        ] {
            let row = row(egress, Vec::new());
            let condition = row.corrected_conditions(now).unwrap().remove(0);
            let message = format!(
                "{VALID}, but not all of the policy is enforced: {field}: is not supported yet; it allows nothing"
            );
            assert_eq!(said(&condition), ("True", Some("PolicyNotEnforced"), message.as_str()));
            let warning = row.warning().unwrap();
            assert_eq!((warning.reason, warning.note), ("PolicyNotEnforced", message));
        }
        assert!(row(json!({}), Vec::new()).warning().is_none());
    }

    #[test]
    fn a_group_with_an_entry_that_is_no_prefix_is_named_by_the_policies_that_use_it() {
        let (mut writer, groups) = statedb::table("groups");
        let mut set = |entries: &[&str]| {
            let object = json!({"metadata": {"name": "g"}, "spec": {"externalCIDRs": entries}});
            writer.insert(crate::ingest_cidr_group(&serde_json::from_value(object).unwrap()).unwrap());
            writer.commit();
        };
        let uses = |group: &str| json!([{"cidrGroupRef": group}]);
        let spec = json!({"endpointSelector": {}, "ingress": [{"fromCIDRSet": uses("g")}],
            "egressDeny": [{"toCIDRSet": uses("other")}, {"toCIDRSet": uses("g")}]});
        let row = policy(spec, Vec::new());
        set(&["10.0.0.0/8"]);
        assert_eq!(row.clone().with_groups(&groups.snapshot()).warning(), None);
        set(&["10.0.0.0/8", "x"]);
        let note = row.clone().with_groups(&groups.snapshot()).warning().unwrap().note;
        let entry = "CiliumCIDRGroup g: spec.externalCIDRs[1]: \"x\" is not a prefix";
        let wanted = format!(
            "{VALID}, but not all of the policy is enforced: spec.ingress[0].fromCIDRSet: {entry}; it allows nothing. \
            spec.egressDeny[1].toCIDRSet: {entry}; all addresses outside of the cluster are denied instead"
        );
        assert_eq!(note, wanted);
        set(&["x", "y", "z"]);
        let note = row.clone().with_groups(&groups.snapshot()).warning().unwrap().note;
        assert!(note.contains("\"x\" is not a prefix (nor are 2 others); it allows nothing"), "{note}");
        // With others that it has anyway.
        let object = json!({"endpointSelector": {}, "egress": [{"toFQDNs": [{"matchName": "cilium.io"}]}, {"toCIDRSet": uses("g")}]});
        let note = policy(object, Vec::new()).with_groups(&groups.snapshot()).warning().unwrap().note;
        assert!(note.contains("toFQDNs") && note.contains("\"x\" is not a prefix"), "{note}");
    }

    #[test]
    fn a_policy_for_nodes_is_not_enforced() {
        let object = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": {}, "ingress": [{}]}});
        let row = Judged::ingest(&serde_json::from_value::<CiliumClusterwideNetworkPolicy>(object).unwrap()).unwrap();
        let message = row.verdict.condition().2;
        assert!(
            message.ends_with("spec.nodeSelector: policies for nodes are not supported yet; the rule does nothing")
        );
    }

    #[test]
    fn the_event_of_an_invalid_policy_says_that_nothing_is_enforced() {
        let warning = policy(json!({"endpointSelector": {}, "egress": [{"toCIDR": ["ä"]}]}), vec![]).warning().unwrap();
        assert_eq!(warning.reason, "PolicyInvalid");
        let text =
            "Nothing of the policy is enforced: spec.egress[0].toCIDR[0]: \"ä\" is neither a prefix nor an address";
        assert_eq!(warning.note, text);
    }

    #[test]
    fn the_event_is_about_the_object_whatever_its_version() {
        let reference = row(json!({}), Vec::new()).reference;
        assert_eq!(reference.kind.as_deref(), Some("CiliumNetworkPolicy"));
        assert_eq!((reference.namespace.as_deref(), reference.name.as_deref()), (Some("n"), Some("p")));
        assert_eq!((reference.uid.as_deref(), reference.resource_version), (Some("u"), None));
    }

    #[test]
    fn a_clusterwide_policy_has_a_row_of_its_own_whose_condition_is_written_once() {
        let ingest = |conditions: &[PolicyCondition]| {
            let spec = json!({"endpointSelector": {}, "ingress": [{}]});
            let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": {"conditions": conditions}});
            Judged::ingest(&serde_json::from_value::<CiliumClusterwideNetworkPolicy>(object).unwrap()).unwrap()
        };
        let written = ingest(&[]).corrected_conditions(time("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(ingest(&written).corrected_conditions(time("2026-01-02T00:00:00Z")), None);
        assert_eq!(ingest(&written).key(), (String::new(), "p".to_owned()));
        assert_eq!(row(json!({}), Vec::new()).key(), ("n".to_owned(), "p".to_owned()));
    }
}
