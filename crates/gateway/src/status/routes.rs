// SPDX-License-Identifier: Apache-2.0
//! What is said of routes, for each of their parents.

use super::{Status, same};
use crate::CONTROLLER;
use crate::route::{Attached, Parent};
use crate::verdict::date;
use k8s::gateway::{RouteParentStatus, RouteStatus};

/// The most parents that a status can have.
const MAX_PARENTS: usize = 32;

pub(super) fn status(route: &Attached) -> RouteStatus {
    let generation = route.meta.generation;
    let parent = |parent: &Parent| {
        let mut conditions = vec![
            parent.accepted.condition("Accepted", generation),
            route.resolved.condition("ResolvedRefs", generation),
        ];
        conditions.extend(route.partly.as_ref().map(|verdict| verdict.condition("PartiallyInvalid", generation)));
        RouteParentStatus { parent_ref: parent.reference.clone(), controller_name: CONTROLLER.to_owned(), conditions }
    };
    RouteStatus { parents: route.parents.iter().map(parent).collect() }
}

/// The status with our entries as desired, and those of other controllers as they are.
pub(super) fn correct(desired: &RouteStatus, present: &RouteStatus, now: &str) -> Option<Status> {
    let (ours, others): (Vec<_>, Vec<_>) =
        present.parents.iter().partition(|parent| parent.controller_name == CONTROLLER);
    let equal = ours.len() == desired.parents.len()
        && desired.parents.iter().zip(&ours).all(|(desired, present)| {
            desired.parent_ref == present.parent_ref && same(&desired.conditions, &present.conditions)
        });
    if equal {
        return None;
    }
    let mut parents = desired.parents.clone();
    for parent in &mut parents {
        let before = ours.iter().find(|before| before.parent_ref == parent.parent_ref);
        date(&mut parent.conditions, before.map_or(&[], |before| &before.conditions), now);
    }
    parents.extend(others.into_iter().cloned());
    parents.truncate(MAX_PARENTS);
    Some(Status::Route(RouteStatus { parents }))
}
