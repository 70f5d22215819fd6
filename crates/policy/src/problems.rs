// SPDX-License-Identifier: Apache-2.0
//! The parts of policies that are not honoured, for users to see.

use crate::ingest::CidrGroup;
use crate::rules::{Policy, PolicyName, Problem};
use statedb::{Derived, Inputs, Reader, Snapshot, Tasks};

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

/// Policies that name groups depend on these, too.
pub(crate) fn derive(tasks: &Tasks, policies: &Reader<Policy>, groups: &Reader<CidrGroup>) -> Derived<PolicyProblems> {
    let with_groups = policies.index(|policy| (!policy.group_uses().is_empty()).then_some(()));
    let names = move |_: &CidrGroup| with_groups.get(&()).iter().map(|row| row.name.clone()).collect::<Vec<_>>();
    let inputs = Inputs::of(policies, |policy| [policy.name.clone()]).and(groups, names);
    let (policies, groups) = (policies.clone(), groups.clone());
    statedb::derive(tasks, "policy-problems", inputs, move |name, before: Option<&PolicyProblems>| {
        let policy = policies.snapshot().get(name)?;
        let (valid, problems) = (policy.valid, all(&policy, &groups.snapshot()));
        if before.is_none_or(|before| before.problems != problems) {
            tell(&policy, &problems);
        }
        let policy = name.clone();
        (!problems.is_empty()).then_some(PolicyProblems { policy, valid, problems })
    })
}

/// What of the policy is not honoured, and what of the groups that it names.
fn all(policy: &Policy, groups: &Snapshot<CidrGroup>) -> Vec<Problem> {
    let uses = policy.group_uses();
    let of_groups = uses.iter().flat_map(|used| used.problems(groups.iter().map(|group| &**group)));
    policy.problems.iter().cloned().chain(of_groups).collect()
}

fn tell(policy: &Policy, problems: &[Problem]) {
    let what = if policy.valid { "not honoured" } else { "invalid, nothing of the policy is enforced" };
    for Problem { field, reason } in problems {
        tracing::warn!(policy = %policy.name, field, reason, "{what}");
    }
}
