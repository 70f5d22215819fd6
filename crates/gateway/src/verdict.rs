// SPDX-License-Identifier: Apache-2.0
//! What is said of an object, as its condition.

use k8s::gateway::Condition;

/// Whether something holds of an object, and why (not).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub holds: bool,
    /// Why, for programs.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

impl Verdict {
    pub(crate) fn yes(reason: &'static str) -> Self {
        Self { holds: true, reason, message: String::new() }
    }

    pub(crate) fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }

    pub(crate) fn with_message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// The condition, without the time at which it came about.
    pub(crate) fn condition(&self, kind: &str, generation: i64) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status: if self.holds { "True" } else { "False" }.to_owned(),
            observed_generation: Some(generation),
            last_transition_time: String::new(),
            reason: self.reason.to_owned(),
            message: self.message.clone(),
        }
    }
}

/// Gives conditions the time since when each has had its status: `now`, unless it is there already.
pub(crate) fn date(conditions: &mut [Condition], present: &[Condition], now: &str) {
    for condition in conditions {
        let same = |other: &&Condition| other.kind == condition.kind && other.status == condition.status;
        let since = present.iter().find(same).map(|other| other.last_transition_time.as_str());
        condition.last_transition_time = since.filter(|since| !since.is_empty()).unwrap_or(now).to_owned();
    }
}
