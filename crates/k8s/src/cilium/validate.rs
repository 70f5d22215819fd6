// SPDX-License-Identifier: Apache-2.0
//! What the schema cannot say about policies, and once more what it can: an object may be older than its schema. The
//! operator writes the result to the policy's `Valid` condition, the agent refuses to apply what is not valid.

mod ports;
mod selectors;

use super::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy, EgressRule, IngressRule, Rule};
use std::fmt;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where, such as `spec.ingress[0].toPorts[1].ports[0].port`.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// A kind of policy: its rules, and where they stand in the object.
pub trait Policy: kube::Resource<DynamicType = ()> {
    /// Whether it applies to all namespaces, and may select nodes.
    const CLUSTERWIDE: bool;

    fn spec(&self) -> Option<&Rule>;

    fn specs(&self) -> &[Rule];

    /// All rules with their path: `spec`, `specs[0]`, `specs[1]` and so on.
    fn rules(&self) -> Vec<(String, &Rule)> {
        let one = self.spec().map(|rule| ("spec".to_owned(), rule));
        let more = self.specs().iter().enumerate().map(|(i, rule)| (format!("specs[{i}]"), rule));
        one.into_iter().chain(more).collect()
    }
}

impl Policy for CiliumNetworkPolicy {
    const CLUSTERWIDE: bool = false;

    fn spec(&self) -> Option<&Rule> {
        self.spec.as_ref()
    }

    fn specs(&self) -> &[Rule] {
        self.specs.as_deref().unwrap_or_default()
    }
}

impl Policy for CiliumClusterwideNetworkPolicy {
    const CLUSTERWIDE: bool = true;

    fn spec(&self) -> Option<&Rule> {
        self.spec.as_ref()
    }

    fn specs(&self) -> &[Rule] {
        self.specs.as_deref().unwrap_or_default()
    }
}

/// All that is wrong with a policy; nothing if it is valid.
pub fn validate<P: Policy>(policy: &P) -> Vec<Violation> {
    let rules = policy.rules();
    if rules.is_empty() {
        return vec![Violation { field: "spec".into(), reason: "neither spec nor specs is given".into() }];
    }
    rules.into_iter().flat_map(|(path, rule)| validate_rule(&path, rule, P::CLUSTERWIDE)).collect()
}

/// All that is wrong with one rule that stands at `path` in its policy.
#[must_use]
pub fn validate_rule(path: &str, rule: &Rule, clusterwide: bool) -> Vec<Violation> {
    let mut report = Report::default();
    let at = FieldPath(path.to_owned());
    subject(&mut report, &at, rule, clusterwide);
    if !rule.has_ingress() && !rule.has_egress() {
        report.add(&at, "rule must have at least one of Ingress, IngressDeny, Egress, EgressDeny");
    }
    if let Some(text) = rule.log.as_ref().and_then(|log| log.value.as_ref())
        && (text.chars().count() > 32 || text.chars().any(char::is_control))
    {
        report.add(&at.field("log").field("value"), "must be at most 32 printable characters");
    }
    let node_policy = rule.node_selector.is_some();
    for (name, rules, deny) in [("ingress", &rule.ingress, false), ("ingressDeny", &rule.ingress_deny, true)] {
        for (i, rule) in rules.iter().flatten().enumerate() {
            ingress(&mut report, &at.item(name, i), rule, Flags { deny, node_policy, ingress: true });
        }
    }
    for (name, rules, deny) in [("egress", &rule.egress, false), ("egressDeny", &rule.egress_deny, true)] {
        for (i, rule) in rules.iter().flatten().enumerate() {
            egress(&mut report, &at.item(name, i), rule, Flags { deny, node_policy, ingress: false });
        }
    }
    report.0
}

/// Where a rule stands, as far as it decides what the rule may contain.
#[derive(Clone, Copy)]
struct Flags {
    deny: bool,
    node_policy: bool,
    ingress: bool,
}

#[derive(Default)]
struct Report(Vec<Violation>);

impl Report {
    fn add(&mut self, at: &FieldPath, reason: impl Into<String>) {
        self.0.push(Violation { field: at.0.clone(), reason: reason.into() });
    }
}

struct FieldPath(String);

impl FieldPath {
    fn field(&self, name: &str) -> Self {
        Self(format!("{}.{name}", self.0))
    }

    fn item(&self, name: &str, index: usize) -> Self {
        Self(format!("{}.{name}[{index}]", self.0))
    }
}

fn subject(report: &mut Report, at: &FieldPath, rule: &Rule, clusterwide: bool) {
    match (&rule.endpoint_selector, &rule.node_selector) {
        (None, None) => report.add(at, "one of endpointSelector and nodeSelector is required"),
        (Some(_), Some(_)) => report.add(at, "endpointSelector and nodeSelector exclude each other"),
        (Some(selector), None) => selectors::labels(report, &at.field("endpointSelector"), selector),
        (None, Some(_)) if !clusterwide => {
            report.add(&at.field("nodeSelector"), "only a CiliumClusterwideNetworkPolicy can select nodes");
        }
        (None, Some(selector)) => selectors::labels(report, &at.field("nodeSelector"), selector),
    }
}

fn ingress(report: &mut Report, at: &FieldPath, rule: &IngressRule, flags: Flags) {
    let peers = [
        ("fromEndpoints", count(rule.from_endpoints.as_deref())),
        ("fromCIDR", count(rule.from_cidr.as_deref())),
        ("fromCIDRSet", count(rule.from_cidr_set.as_deref())),
        ("fromEntities", count(rule.from_entities.as_deref())),
        ("fromNodes", count(rule.from_nodes.as_deref())),
        ("fromGroups", count(rule.from_groups.as_deref())),
    ];
    one_kind_of_peer(report, at, &peers);
    selectors::list(report, at, "fromEndpoints", rule.from_endpoints.as_deref());
    selectors::list(report, at, "fromNodes", rule.from_nodes.as_deref());
    selectors::cidrs(report, at, "fromCIDR", rule.from_cidr.as_deref());
    selectors::cidr_rules(report, at, "fromCIDRSet", rule.from_cidr_set.as_deref());
    selectors::entities(report, at, "fromEntities", rule.from_entities.as_deref());
    if count(rule.from_requires.as_deref()) > 0 {
        report.add(&at.field("fromRequires"), "is not supported any more, use endpointSelector and fromEndpoints");
    }
    selectors::authentication(report, at, rule.authentication.as_ref(), flags.deny);
    ports::icmps(report, at, rule.icmps.as_deref(), count(rule.to_ports.as_deref()) > 0);
    ports::port_rules(report, at, rule.to_ports.as_deref(), flags);
}

fn egress(report: &mut Report, at: &FieldPath, rule: &EgressRule, flags: Flags) {
    let peers = [
        ("toEndpoints", count(rule.to_endpoints.as_deref())),
        ("toCIDR", count(rule.to_cidr.as_deref())),
        ("toCIDRSet", count(rule.to_cidr_set.as_deref())),
        ("toEntities", count(rule.to_entities.as_deref())),
        ("toServices", count(rule.to_services.as_deref())),
        ("toFQDNs", count(rule.to_fqdns.as_deref())),
        ("toGroups", count(rule.to_groups.as_deref())),
        ("toNodes", count(rule.to_nodes.as_deref())),
    ];
    one_kind_of_peer(report, at, &peers);
    selectors::list(report, at, "toEndpoints", rule.to_endpoints.as_deref());
    selectors::list(report, at, "toNodes", rule.to_nodes.as_deref());
    selectors::cidrs(report, at, "toCIDR", rule.to_cidr.as_deref());
    selectors::cidr_rules(report, at, "toCIDRSet", rule.to_cidr_set.as_deref());
    selectors::entities(report, at, "toEntities", rule.to_entities.as_deref());
    selectors::fqdns(report, at, "toFQDNs", rule.to_fqdns.as_deref());
    if flags.deny && count(rule.to_fqdns.as_deref()) > 0 {
        report.add(&at.field("toFQDNs"), "is not possible in a deny rule");
    }
    if count(rule.to_services.as_deref()) > 0 && count(rule.to_ports.as_deref()) > 0 {
        report.add(&at.field("toPorts"), "cannot be combined with toServices");
    }
    if count(rule.to_requires.as_deref()) > 0 {
        report.add(&at.field("toRequires"), "is not supported any more, use endpointSelector and toEndpoints");
    }
    selectors::authentication(report, at, rule.authentication.as_ref(), flags.deny);
    ports::icmps(report, at, rule.icmps.as_deref(), count(rule.to_ports.as_deref()) > 0);
    ports::port_rules(report, at, rule.to_ports.as_deref(), flags);
}

fn one_kind_of_peer(report: &mut Report, at: &FieldPath, peers: &[(&str, usize)]) {
    let given: Vec<&str> = peers.iter().filter(|(_, n)| *n > 0).map(|(name, _)| *name).collect();
    if let [first, second, ..] = given.as_slice() {
        report.add(at, format!("{first} and {second} cannot be combined in one rule, write two"));
    }
}

fn count<T>(list: Option<&[T]>) -> usize {
    list.map_or(0, <[T]>::len)
}

#[cfg(test)]
mod tests;
