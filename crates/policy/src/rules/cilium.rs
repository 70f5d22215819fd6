// SPDX-License-Identifier: Apache-2.0
//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy to rules.

mod section;

use super::{
    Context, IngestError, Keys, Operator, Policy, PolicyName, Problem, RawSelector, Requirement, Rule, Selector,
};
use crate::labels::{NAMESPACE, NAMESPACE_LABELS};
use k8s::cilium::{self as api, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use model::{LabelSource, PolicyKind};
use section::Section;
use std::sync::Arc;

/// A policy from a CiliumNetworkPolicy.
///
/// # Errors
///
/// One of its rules does not say whom it is about.
pub fn ingest_cilium_policy(context: &Context, object: &CiliumNetworkPolicy) -> Result<Option<Policy>, IngestError> {
    let Some(namespace) = &object.metadata.namespace else { return Ok(None) };
    let (spec, specs) = (object.spec.as_ref(), object.specs.as_deref());
    ingest(context, PolicyKind::CiliumNetworkPolicy, namespace, &object.metadata, rules(spec, specs))
}

/// A policy from a CiliumClusterwideNetworkPolicy.
///
/// # Errors
///
/// One of its rules does not say whom it is about.
pub fn ingest_clusterwide_policy(
    context: &Context,
    object: &CiliumClusterwideNetworkPolicy,
) -> Result<Option<Policy>, IngestError> {
    let (spec, specs) = (object.spec.as_ref(), object.specs.as_deref());
    ingest(context, PolicyKind::CiliumClusterwideNetworkPolicy, "", &object.metadata, rules(spec, specs))
}

/// Every rule with its path.
fn rules<'a>(spec: Option<&'a api::Rule>, specs: Option<&'a [api::Rule]>) -> Vec<(String, &'a api::Rule)> {
    let one = spec.map(|rule| ("spec".to_owned(), rule));
    let more = specs.unwrap_or_default().iter().enumerate().map(|(i, rule)| (format!("specs[{i}]"), rule));
    one.into_iter().chain(more).collect()
}

fn ingest(
    context: &Context,
    kind: PolicyKind,
    namespace: &str,
    meta: &ObjectMeta,
    specs: Vec<(String, &api::Rule)>,
) -> Result<Option<Policy>, IngestError> {
    let Some(name) = &meta.name else { return Ok(None) };
    let id = PolicyName { kind, namespace: namespace.into(), name: name.as_str().into() };
    let mut labels = policy_labels(&id, name, meta.uid.as_deref());
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for (path, spec) in specs {
        let scope = Scope { context, namespace: id.namespace.clone(), matches_init: false };
        if let Some(rule) = scope.rule(&path, spec, &mut problems).map_err(|(field, reason)| IngestError {
            object: id.to_string(),
            field: format!("{path}.{field}"),
            reason,
        })? {
            rules.push(rule);
        }
        labels.extend(spec.labels.iter().flatten().map(|label| {
            let source = label.source.as_deref().filter(|s| !s.is_empty()).unwrap_or("unspec");
            match label.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{source}:{}={value}", label.key),
                None => format!("{source}:{}", label.key),
            }
        }));
    }
    labels.sort();
    labels.dedup();
    Ok(Some(Policy { name: id, labels, rules, problems }))
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

/// What selectors mean inside of one rule.
struct Scope<'a> {
    context: &'a Context,
    /// Empty in a clusterwide policy.
    namespace: Arc<str>,
    /// The rule is about pods without labels: its selectors do not ask for a namespace.
    matches_init: bool,
}

impl Scope<'_> {
    fn rule(
        mut self,
        path: &str,
        spec: &api::Rule,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Rule>, (&'static str, String)> {
        let subject = match (&spec.endpoint_selector, &spec.node_selector) {
            (Some(_), Some(_)) => {
                return Err(("nodeSelector", "endpointSelector and nodeSelector exclude each other".to_owned()));
            }
            (None, None) => return Err(("endpointSelector", "it is missing, so nothing is selected".to_owned())),
            (None, Some(_)) if !self.namespace.is_empty() => {
                return Err(("nodeSelector", "it is only for clusterwide policies".to_owned()));
            }
            (None, Some(_)) => {
                let reason = "policies for nodes are not supported yet; the rule does nothing".to_owned();
                problems.push(Problem { field: format!("{path}.nodeSelector"), reason });
                return Ok(None);
            }
            (Some(selector), None) => {
                self.subject(path, selector, problems).map_err(|reason| ("endpointSelector", reason))?
            }
        };
        self.matches_init = subject.iter().any(|r| r.source == LabelSource::Reserved && &*r.key == "init");
        let mut section = Section { scope: &self, path, statements: Vec::new(), problems };
        section.ingest(spec);
        let statements = section.statements;
        let wanted = spec.enable_default_deny.clone().unwrap_or_default();
        Ok(Some(Rule {
            subject: Selector::all_of(subject),
            deny_ingress: wanted.ingress.unwrap_or(spec.ingress.is_some() || spec.ingress_deny.is_some()),
            deny_egress: wanted.egress.unwrap_or(spec.egress.is_some() || spec.egress_deny.is_some()),
            statements,
            log: spec.log.as_ref().and_then(|log| log.value.clone()),
        }))
    }

    /// The pods that the rule is about: always of the policy's own namespace.
    fn subject(
        &self,
        path: &str,
        selector: &LabelSelector,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<Requirement>, String> {
        let mut all = raw(selector).requirements(Keys::WithSource)?;
        if self.namespace.is_empty() {
            return Ok(all);
        }
        all.retain(|requirement| match &requirement.operator {
            Operator::In(values) if &*requirement.key == NAMESPACE => {
                if !values.iter().any(|v| **v == *self.namespace) {
                    let reason = "a policy is about pods of its own namespace; the other one is ignored".to_owned();
                    problems.push(Problem { field: format!("{path}.endpointSelector"), reason });
                }
                false
            }
            _ => true,
        });
        all.push(Requirement::equals(LabelSource::K8s, NAMESPACE, self.namespace.clone()));
        Ok(all)
    }

    /// Peers by labels, with what the selector means without saying it.
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
