// SPDX-License-Identifier: Apache-2.0
//! The condition of a Service that says whether all of it is honoured.

use super::Problem;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s::k8s_openapi::jiff::Timestamp;

/// Its type.
const HONOURED: &str = "cilium.io/ServiceHonoured";
/// How many problems it names.
const NAMED: usize = 10;

/// What the status of a Service says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    generation: Option<i64>,
    condition: Option<Condition>,
}

impl Said {
    pub(super) fn by(object: &core::Service) -> Self {
        let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
        let condition = conditions.into_iter().flatten().find(|condition| condition.type_ == HONOURED);
        Self { generation: object.metadata.generation, condition: condition.cloned() }
    }

    /// Whether it says that something is not honoured.
    pub(crate) fn complains(&self) -> bool {
        self.condition.as_ref().is_some_and(|condition| condition.status == "False")
    }

    /// The condition that is to be, unless it is; who has never been at fault needs no word of it.
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
