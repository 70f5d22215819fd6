// SPDX-License-Identifier: Apache-2.0
//! Rules of GRPCRoutes.

use super::http::{Parts, build, in_place, persistence};
use super::matches::{self, Origin};
use super::{Found, Rule};
use k8s::gateway::{GrpcMatch, GrpcRule};

/// The rules of a GRPCRoute.
pub(super) fn resolve(found: &mut Found<'_>, rules: &[GrpcRule]) -> Vec<Rule> {
    let any = [GrpcMatch::default()];
    let rules = rules.iter().enumerate().map(|(number, rule)| {
        let asked = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
        let matches = |origin: &Origin<'_>| asked.iter().map(|asked| matches::grpc(origin, asked)).collect();
        let parts = Parts { filters: &rule.filters, backends: &rule.backend_refs };
        build(found, number, matches, |found| {
            let (asked, mut forward) = parts.resolve(found)?;
            forward.persistence = rule.session_persistence.as_ref().map(persistence).transpose()?.map(Box::new);
            Ok((asked, forward))
        })
    });
    in_place(rules.collect())
}
