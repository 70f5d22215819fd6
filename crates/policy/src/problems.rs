// SPDX-License-Identifier: Apache-2.0
//! The parts of policies that are not honoured, for users to see.

use crate::rules::{Policy, PolicyName, Problem};
use statedb::{Derived, Inputs, Reader, Tasks};

/// The parts of a policy that are not honoured. One row per object with such fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblems {
    /// The object.
    pub policy: PolicyName,
    /// Whether it is valid; none of an invalid one is enforced.
    pub valid: bool,
    /// The fields.
    pub problems: Vec<Problem>,
}

impl statedb::Row for PolicyProblems {
    type Key = PolicyName;
    fn key(&self) -> PolicyName {
        self.policy.clone()
    }
}

pub(crate) fn derive(tasks: &Tasks, policies: &Reader<Policy>) -> Derived<PolicyProblems> {
    let inputs = Inputs::of(policies, |policy| [policy.name.clone()]);
    let policies = policies.clone();
    statedb::derive(tasks, "policy-problems", inputs, move |name, _| {
        let policy = policies.snapshot().get(name).filter(|policy| !policy.problems.is_empty())?;
        let Policy { name, problems, valid, .. } = &*policy;
        let what = if *valid { "not honoured" } else { "invalid, nothing of the policy is enforced" };
        for Problem { field, reason } in problems {
            tracing::warn!(policy = %name, field, reason, "{what}");
        }
        Some(PolicyProblems { policy: name.clone(), valid: *valid, problems: problems.clone() })
    })
}
