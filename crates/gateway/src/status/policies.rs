// SPDX-License-Identifier: Apache-2.0
//! What is said of BackendTLSPolicies, for each Gateway that sends to what they are for.

use super::{Status, same};
use crate::CONTROLLER;
use crate::name::ObjectName;
use crate::objects::Objects;
use crate::route::Attached;
use crate::source::Source;
use crate::tls_policy::{self, Policies};
use crate::verdict::{Verdict, date};
use k8s::gateway::{BackendTlsPolicySpec, ParentReference, PolicyAncestorStatus, PolicyStatus};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The most Gateways that a status can have.
const MAX_ANCESTORS: usize = 16;

pub(super) fn status(
    objects: &Objects,
    policies: &Policies,
    policy: &Source<BackendTlsPolicySpec>,
    routes: &[Arc<Attached>],
) -> PolicyStatus {
    let validation = tls_policy::validation(objects, policy);
    let accepted = if precedes(policies, policy) {
        validation.accepted
    } else {
        Verdict::no("Conflicted", "an older policy is for the same port or Service")
    };
    let generation = policy.meta.generation;
    let conditions =
        vec![accepted.condition("Accepted", generation), validation.resolved.condition("ResolvedRefs", generation)];
    let places = routes.iter().flat_map(|route| &route.parents).flat_map(|parent| &parent.places);
    let gateways: BTreeSet<_> = places.map(|place| &place.gateway).collect();
    let ancestor = |gateway: &ObjectName| PolicyAncestorStatus {
        ancestor_ref: ParentReference {
            group: Some(k8s::gateway::GROUP.to_owned()),
            kind: Some("Gateway".to_owned()),
            namespace: Some(gateway.namespace.to_string()),
            name: gateway.name.to_string(),
            ..ParentReference::default()
        },
        controller_name: CONTROLLER.to_owned(),
        conditions: conditions.clone(),
    };
    PolicyStatus { ancestors: gateways.into_iter().map(ancestor).collect() }
}

/// Whether the policy is the one that holds for some of what it is for.
fn precedes(policies: &Policies, policy: &Source<BackendTlsPolicySpec>) -> bool {
    policy.spec.target_refs.iter().any(|target| {
        let service = ObjectName::referred(&policy.name.namespace, None, &target.name);
        let first = policies.first(&service, target.section_name.as_deref());
        first.is_some_and(|first| first.name == policy.name)
    })
}

/// The status with our entries as desired, and those of other controllers as they are.
pub(super) fn correct(desired: &PolicyStatus, present: &PolicyStatus, now: &str) -> Option<Status> {
    let (ours, others): (Vec<_>, Vec<_>) =
        present.ancestors.iter().partition(|ancestor| ancestor.controller_name == CONTROLLER);
    let room = MAX_ANCESTORS.saturating_sub(others.len());
    let desired: Vec<_> = desired.ancestors.iter().take(room).cloned().collect();
    let equal = ours.len() == desired.len()
        && desired.iter().zip(&ours).all(|(desired, present)| {
            desired.ancestor_ref == present.ancestor_ref && same(&desired.conditions, &present.conditions)
        });
    if equal {
        return None;
    }
    let mut ancestors = desired;
    for ancestor in &mut ancestors {
        let before = ours.iter().find(|before| before.ancestor_ref == ancestor.ancestor_ref);
        date(&mut ancestor.conditions, before.map_or(&[], |before| &before.conditions), now);
    }
    ancestors.extend(others.into_iter().cloned());
    Some(Status::Policy(PolicyStatus { ancestors }))
}
