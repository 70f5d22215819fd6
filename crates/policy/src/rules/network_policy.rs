// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' NetworkPolicy (networking.k8s.io/v1) to rules.

use super::{
    Context, Direction, Effect, Keys, L4, Peer, Peers, Policy, PolicyName, Problem, RawSelector, Requirement, Rule,
    Selector, Statement, parse_cidr_with, ports,
};
use crate::labels::NAMESPACE;
use k8s::k8s_openapi::api::networking::v1 as net;
use k8s::k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use model::{LabelSource, PolicyKind};
use std::sync::Arc;

/// Annotations that give the policy another name for tools.
const NAME_OVERRIDE: [&str; 2] = ["policy.cilium.io/name", "io.cilium.name"];

/// A policy from a NetworkPolicy. The API server has already rejected what is invalid; if something is still not
/// understood, an element allows nothing, and a pod selector makes the policy invalid, since nobody can tell whom it
/// selects.
#[must_use]
pub fn ingest_network_policy(context: &Context, object: &net::NetworkPolicy) -> Option<Policy> {
    let meta = &object.metadata;
    let (namespace, name, spec) = (meta.namespace.as_deref()?, meta.name.as_deref()?, object.spec.as_ref()?);
    let shown = meta.annotations.iter().flatten().find(|(key, _)| NAME_OVERRIDE.contains(&key.as_str()));
    let id = PolicyName { kind: PolicyKind::NetworkPolicy, namespace: namespace.into(), name: name.into() };
    let labels = super::cilium::policy_labels(&id, shown.map_or(name, |(_, v)| v), meta.uid.as_deref());
    let mut ingest = Ingest { context, namespace: id.namespace.clone(), statements: Vec::new(), problems: Vec::new() };
    let rules = match ingest.pods(spec.pod_selector.as_ref(), None) {
        Ok(subject) => Ok((vec![ingest.spec(subject, spec)], ingest.problems)),
        Err(reason) => Err(vec![Problem { field: "spec.podSelector".into(), reason }]),
    };
    Some(Policy::new(id, labels, rules))
}

struct Ingest<'a> {
    context: &'a Context,
    namespace: Arc<str>,
    statements: Vec<Statement>,
    problems: Vec<Problem>,
}

impl Ingest<'_> {
    fn spec(&mut self, subject: Vec<Requirement>, spec: &net::NetworkPolicySpec) -> Rule {
        for (index, rule) in spec.ingress.iter().flatten().enumerate() {
            self.rule(Direction::Ingress, index, rule.from.as_deref(), rule.ports.as_deref());
        }
        for (index, rule) in spec.egress.iter().flatten().enumerate() {
            self.rule(Direction::Egress, index, rule.to.as_deref(), rule.ports.as_deref());
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let deny =
            |name: &str, otherwise: bool| if types.is_empty() { otherwise } else { types.iter().any(|t| t == name) };
        let (deny_ingress, deny_egress) = (deny("Ingress", true), deny("Egress", spec.egress.is_some()));
        // A section whose type is not listed is ignored.
        let mut statements = std::mem::take(&mut self.statements);
        statements.retain(|s| match s.direction {
            Direction::Ingress => deny_ingress,
            Direction::Egress => deny_egress,
        });
        Rule { subject: Selector::all_of(subject), deny_ingress, deny_egress, statements, log: None }
    }

    fn rule(
        &mut self,
        direction: Direction,
        index: usize,
        peers: Option<&[net::NetworkPolicyPeer]>,
        ports: Option<&[net::NetworkPolicyPort]>,
    ) {
        let origin = match direction {
            Direction::Ingress => format!("ingress[{index}]"),
            Direction::Egress => format!("egress[{index}]"),
        };
        // No list and an empty list both mean "any".
        let peers = match peers.filter(|list| !list.is_empty()) {
            None => Some(Peers::Any),
            Some(list) => self.peers(&origin, list),
        };
        let ports = match ports.filter(|list| !list.is_empty()) {
            None => Some(None),
            Some(list) => self.ports(&origin, list).map(Some),
        };
        if let (Some(peers), Some(ports)) = (peers, ports) {
            self.statements.push(Statement { direction, effect: Effect::Allow, peers, ports, origin });
        }
    }

    fn peers(&mut self, origin: &str, list: &[net::NetworkPolicyPeer]) -> Option<Peers> {
        let mut all = Vec::new();
        for (index, peer) in list.iter().enumerate() {
            match self.peer(peer) {
                Ok(peer) => all.push(peer),
                Err(reason) => self.problem(format!("spec.{origin}.peers[{index}]"), &reason),
            }
        }
        super::NonEmpty::new(all).map(Peers::Some)
    }

    fn peer(&self, peer: &net::NetworkPolicyPeer) -> Result<Peer, String> {
        if let Some(block) = &peer.ip_block {
            if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
                return Err("ipBlock cannot stand beside selectors".to_owned());
            }
            return parse_cidr_with(&block.cidr, block.except.as_deref().unwrap_or_default()).map(Peer::Cidr);
        }
        if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
            return Err("it has none of podSelector, namespaceSelector and ipBlock".to_owned());
        }
        let requirements = self.pods(peer.pod_selector.as_ref(), peer.namespace_selector.as_ref())?;
        Ok(Peer::Labels(Selector::all_of(self.context.complete(requirements))))
    }

    /// Pods by labels, in this namespace or in the selected ones.
    fn pods(
        &self,
        pods: Option<&LabelSelector>,
        namespaces: Option<&LabelSelector>,
    ) -> Result<Vec<Requirement>, String> {
        let mut all = raw(pods).requirements(Keys::Pods)?;
        match namespaces {
            None => all.push(Requirement::equals(LabelSource::K8s, NAMESPACE, self.namespace.clone())),
            Some(selector) => {
                let selected = raw(Some(selector)).requirements(Keys::Namespaces)?;
                // Only pods have a namespace: "all namespaces" is not "the world".
                all.push(Requirement::exists(LabelSource::K8s, NAMESPACE));
                all.extend(selected);
            }
        }
        Ok(all)
    }

    fn ports(&mut self, origin: &str, list: &[net::NetworkPolicyPort]) -> Option<super::NonEmpty<L4>> {
        let mut all = Vec::new();
        for (index, port) in list.iter().enumerate() {
            let number = port.port.as_ref().map(|port| match port {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name.clone(),
            });
            let protocol = Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()));
            let raw = ports::RawPort { port: number, end: port.end_port.map(i64::from), protocol };
            match raw.parse(self.context) {
                Ok(ports) => all.extend(ports),
                Err(reason) => self.problem(format!("spec.{origin}.ports[{index}]"), &reason),
            }
        }
        ports::collect(all)
    }

    fn problem(&mut self, field: String, reason: &str) {
        self.problems.push(Problem { field, reason: format!("{reason}; it allows nothing") });
    }
}

/// The raw selector; none selects everything.
fn raw(selector: Option<&LabelSelector>) -> RawSelector {
    let Some(selector) = selector else { return RawSelector::default() };
    let labels = selector.match_labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let expressions = selector.match_expressions.iter().flatten();
    let expressions = expressions.map(|e| (e.key.clone(), e.operator.clone(), e.values.clone().unwrap_or_default()));
    RawSelector { labels, expressions: expressions.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_peer_that_is_not_understood_allows_nothing_and_is_named() {
        let block = json!({"cidr": "10.0.0.0/8"});
        let peers = json!([
            {"ipBlock": block, "podSelector": {}},
            {"ipBlock": block, "namespaceSelector": {}},
            {},
            {"ipBlock": {"cidr": "ten"}},
            {"ipBlock": block},
        ]);
        let ports = json!([{"port": 70000}, {"port": 80}]);
        let spec = json!({"podSelector": {}, "ingress": [{"from": peers, "ports": ports}, {"from": [{}]}]});
        let object = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
        let policy = ingest_network_policy(&Context::default(), &serde_json::from_value(object).unwrap()).unwrap();
        let fields: Vec<_> = policy.problems.iter().map(|problem| problem.field.as_str()).collect();
        let peers = (0..4).map(|index| format!("spec.ingress[0].peers[{index}]"));
        let rest = ["spec.ingress[0].ports[0]", "spec.ingress[1].peers[0]"].map(str::to_owned);
        assert_eq!(fields, peers.chain(rest).collect::<Vec<_>>());
        assert!(policy.problems.iter().all(|problem| problem.reason.ends_with("; it allows nothing")));
        let rule = policy.rules.first().unwrap();
        assert!(policy.valid && rule.deny_ingress && rule.statements.len() == 1);
        let statement = rule.statements.first().unwrap();
        assert!(matches!(&statement.peers, Peers::Some(peers) if peers.iter().count() == 1), "{statement:?}");
        assert!(statement.ports.as_ref().is_some_and(|ports| ports.iter().count() == 1), "{statement:?}");
    }
}
