// SPDX-License-Identifier: Apache-2.0
//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy to rules.

mod section;

use super::{Context, Keys, Operator, Policy, PolicyName, Problem, RawSelector, Requirement, Rule, Selector};
use crate::labels::{NAMESPACE, NAMESPACE_LABELS};
use k8s::cilium::{self as api, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use model::{LabelSource, PolicyKind};
use section::Section;
use std::sync::Arc;

/// A policy from a CiliumNetworkPolicy.
#[must_use]
pub fn ingest_cilium_policy(context: &Context, object: &CiliumNetworkPolicy) -> Option<Policy> {
    ingest(context, PolicyKind::CiliumNetworkPolicy, object.metadata.namespace.as_deref()?, object)
}

/// A policy from a CiliumClusterwideNetworkPolicy.
#[must_use]
pub fn ingest_clusterwide_policy(context: &Context, object: &CiliumClusterwideNetworkPolicy) -> Option<Policy> {
    ingest(context, PolicyKind::CiliumClusterwideNetworkPolicy, "", object)
}

fn ingest<P: api::Policy>(context: &Context, kind: PolicyKind, namespace: &str, object: &P) -> Option<Policy> {
    let name = object.meta().name.as_deref()?;
    let id = PolicyName { kind, namespace: namespace.into(), name: name.into() };
    let mut labels = policy_labels(&id, name, object.meta().uid.as_deref());
    let specs = object.rules();
    labels.extend(specs.iter().flat_map(|(_, spec)| spec.labels.iter().flatten()).map(rule_label));
    let violations = api::validate(object).into_iter().map(|v| Problem { field: v.field, reason: v.reason });
    let violations: Vec<_> = violations.collect();
    let rules = if violations.is_empty() { rules(context, &id, &specs) } else { Err(violations) };
    Some(Policy::new(id, labels, rules))
}

/// The rules and their unhonoured parts, or what makes them invalid.
fn rules(
    context: &Context,
    id: &PolicyName,
    specs: &[(String, &api::Rule)],
) -> Result<(Vec<Rule>, Vec<Problem>), Vec<Problem>> {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for (path, spec) in specs {
        let scope = Scope { context, namespace: id.namespace.clone(), matches_init: false };
        rules.extend(scope.rule(path, spec, &mut problems).map_err(|violation| vec![violation])?);
    }
    Ok((rules, problems))
}

fn rule_label(label: &api::RuleLabel) -> String {
    let source = label.source.as_deref().filter(|s| !s.is_empty()).unwrap_or("unspec");
    match label.value.as_deref().filter(|v| !v.is_empty()) {
        Some(value) => format!("{source}:{}={value}", label.key),
        None => format!("{source}:{}", label.key),
    }
}

/// The labels by which tools know a policy object.
pub(super) fn policy_labels(id: &PolicyName, name: &str, uid: Option<&str>) -> Vec<String> {
    let label = |key: &str, value: &str| format!("k8s:io.cilium.k8s.policy.{key}={value}");
    let mut all = vec![label("derived-from", &id.kind.to_string()), label("name", name)];
    if !id.namespace.is_empty() {
        all.push(label("namespace", &id.namespace));
    }
    all.extend(uid.map(|uid| label("uid", uid)));
    all
}

/// What selectors imply within a rule.
struct Scope<'a> {
    context: &'a Context,
    /// Empty in a clusterwide policy.
    namespace: Arc<str>,
    /// The rule selects unlabelled pods: its selectors do not require a namespace.
    matches_init: bool,
}

impl Scope<'_> {
    /// The rule, if it selects pods, or what makes it invalid beyond what [`api::validate`] checks.
    fn rule(mut self, path: &str, spec: &api::Rule, problems: &mut Vec<Problem>) -> Result<Option<Rule>, Problem> {
        let Some(selector) = &spec.endpoint_selector else {
            let reason = "policies for nodes are not supported yet; the rule does nothing".to_owned();
            problems.push(Problem { field: format!("{path}.nodeSelector"), reason });
            return Ok(None);
        };
        let subject = self.subject(path, selector, problems)?;
        self.matches_init = subject.iter().any(|r| r.source == LabelSource::Reserved && &*r.key == "init");
        let mut section = Section { scope: &self, path, statements: Vec::new(), problems };
        section.ingest(spec)?;
        let statements = section.statements;
        let wanted = spec.enable_default_deny.clone().unwrap_or_default();
        Ok(Some(Rule {
            subject: Selector::all_of(subject),
            deny_ingress: wanted.ingress.unwrap_or(spec.has_ingress()),
            deny_egress: wanted.egress.unwrap_or(spec.has_egress()),
            statements,
            log: spec.log.as_ref().and_then(|log| log.value.clone()),
        }))
    }

    /// The pods that the rule selects: always in the policy's own namespace.
    fn subject(
        &self,
        path: &str,
        selector: &LabelSelector,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<Requirement>, Problem> {
        let field = || format!("{path}.endpointSelector");
        let mut all =
            raw(selector).requirements(Keys::WithSource).map_err(|reason| Problem { field: field(), reason })?;
        if self.namespace.is_empty() {
            return Ok(all);
        }
        all.retain(|requirement| match &requirement.operator {
            Operator::In(values) if &*requirement.key == NAMESPACE => {
                if !values.iter().any(|v| **v == *self.namespace) {
                    let reason = "a policy is about pods of its own namespace; the other one is ignored".to_owned();
                    problems.push(Problem { field: field(), reason });
                }
                false
            }
            _ => true,
        });
        all.push(Requirement::equals(LabelSource::K8s, NAMESPACE, self.namespace.clone()));
        Ok(all)
    }

    /// Peers by labels, with what the selector implies.
    fn peer(&self, selector: &LabelSelector) -> Result<Selector, String> {
        let mut all = raw(selector).requirements(Keys::WithSource)?;
        if all.iter().any(|r| r.source == LabelSource::Reserved) {
            return Ok(Selector::all_of(all));
        }
        let of_pods = |r: &&Requirement| matches!(r.source, LabelSource::K8s | LabelSource::Any);
        if !all.iter().filter(of_pods).any(|r| &*r.key == NAMESPACE) {
            if self.namespace.is_empty() {
                if self.matches_init {
                    return Ok(Selector::all_of(all));
                }
                // Only pods have a namespace: an empty selector is not "the world".
                all.push(Requirement::exists(LabelSource::K8s, NAMESPACE));
            } else if !all.iter().filter(of_pods).any(|r| r.key.starts_with(NAMESPACE_LABELS)) {
                all.push(Requirement::equals(LabelSource::K8s, NAMESPACE, self.namespace.clone()));
            }
        }
        Ok(Selector::all_of(self.context.complete(all)))
    }
}

fn raw(selector: &LabelSelector) -> RawSelector {
    let labels = selector.match_labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let expressions = selector.match_expressions.iter().flatten();
    let expressions = expressions.map(|e| (e.key.clone(), e.operator.clone(), e.values.clone().unwrap_or_default()));
    RawSelector { labels, expressions: expressions.collect() }
}

#[cfg(test)]
mod tests;
