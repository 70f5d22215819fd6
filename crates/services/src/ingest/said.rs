// SPDX-License-Identifier: Apache-2.0
//! The condition of a Service that says whether all of it is honoured.

use super::Problem;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s::k8s_openapi::jiff::Timestamp;

/// Its type.
const HONOURED: &str = "cilium.io/ServiceHonoured";
/// How many problems it names.
pub(crate) const NAMED: usize = 10;

/// What the status of a Service says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HonouredCondition {
    generation: Option<i64>,
    condition: Option<Condition>,
}

impl HonouredCondition {
    pub(super) fn read(object: &core::Service) -> Self {
        let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
        let condition = conditions.into_iter().flatten().find(|condition| condition.type_ == HONOURED);
        Self { generation: object.metadata.generation, condition: condition.cloned() }
    }

    /// Whether it says that something is not honoured.
    pub(crate) fn complains(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.status == "False")
    }

    /// The condition to write; none if it is there already, or if the Service never had a problem.
    pub(crate) fn correction(&self, problems: &[Problem], now: Timestamp) -> Option<Condition> {
        if problems.is_empty() && !self.complains() {
            return None;
        }
        let (status, reason) = if problems.is_empty() { ("True", "Honoured") } else { ("False", "NotHonoured") };
        let message = summary(problems);
        let unchanged = self.condition.as_ref().filter(|condition| condition.status == status);
        let says_so = |condition: &&Condition| condition.message == message && condition.reason == reason;
        if unchanged.as_ref().is_some_and(says_so) {
            return None;
        }
        Some(Condition {
            type_: HONOURED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: unchanged.map_or(Time(now), |condition| condition.last_transition_time.clone()),
            observed_generation: self.generation,
        })
    }
}

/// The first of them, and how many more there are.
pub(crate) fn summary(problems: &[Problem]) -> String {
    let named: Vec<_> = problems.iter().take(NAMED).map(ToString::to_string).collect();
    let more = problems.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(". And {more} more") } else { String::new() };
    named.join(". ") + &more
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use serde_json::json;

    /// What the status of an object with these conditions says.
    fn said(conditions: &[Condition]) -> HonouredCondition {
        let object = json!({"metadata": {"generation": 7}, "status": {"conditions": conditions}});
        HonouredCondition::read(&serde_json::from_value(object).unwrap())
    }

    fn time(text: &str) -> Time {
        Time(text.parse().unwrap())
    }

    #[test]
    fn the_condition_comes_with_the_first_problem_and_stays_to_say_that_it_is_gone() {
        let (first, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-02T00:00:00Z"));
        let (one, other) = (vec![Problem::new("spec.a", "x".to_owned())], vec![Problem::new("spec.b", "y".to_owned())]);
        assert_eq!(said(&[]).correction(&[], first.0), None, "who has never been at fault needs no word of it");
        let broken = said(&[]).correction(&one, first.0).unwrap();
        assert_eq!((&*broken.status, &*broken.reason, &*broken.message), ("False", "NotHonoured", "spec.a: x"));
        assert_eq!((broken.observed_generation, &broken.last_transition_time), (Some(7), &first));
        let others = Condition { type_: "Other".to_owned(), ..broken.clone() };
        let says = said(&[others, broken.clone()]);
        assert!(says.complains());
        assert_eq!(says.correction(&one, later.0), None, "it says so already");
        let changed = says.correction(&other, later.0).unwrap();
        assert_eq!((&*changed.message, &changed.last_transition_time), ("spec.b: y", &first));
        let reworded = said(&[Condition { reason: "Other".to_owned(), ..broken.clone() }]);
        assert_eq!(reworded.correction(&one, later.0), Some(broken));
        let mended = says.correction(&[], later.0).unwrap();
        assert_eq!((&*mended.status, &*mended.reason, &*mended.message), ("True", "Honoured", ""));
        assert_eq!(mended.last_transition_time, later);
        assert!(!said(std::slice::from_ref(&mended)).complains());
        assert_eq!(said(&[mended]).correction(&[], first.0), None);
    }

    #[test]
    fn many_problems_are_counted_rather_than_named() {
        let problems: Vec<_> = (0..12).map(|n| Problem::new("f", n.to_string())).collect();
        assert_eq!(summary(&problems[..2]), "f: 0. f: 1");
        assert!(summary(&problems[..10]).ends_with("f: 9"));
        assert!(summary(&problems).ends_with("f: 9. And 2 more"));
    }
}
