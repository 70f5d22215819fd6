// SPDX-License-Identifier: Apache-2.0
//! Loads policies: selectors go into the cache, prefixes get identities, rules get ids.

use super::{Engine, Statement, cidr};
use crate::rules::{Effect, Peer, Peers, Policy, Rule, Selector};
use crate::selectors::{PeerSelector, Subject};
use ipnet::IpNet;
use model::ProvenanceId;
use std::sync::Arc;

/// A loaded policy.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policy: Arc<Policy>,
    pub(super) rules: Vec<LoadedRule>,
    /// Each use of a prefix.
    prefixes: Vec<IpNet>,
    /// Whether it depends on CIDR groups.
    groups: bool,
}

/// A rule in use.
#[derive(Debug)]
pub(super) struct LoadedRule {
    pub(super) subject: Selector,
    pub(super) deny_ingress: bool,
    pub(super) deny_egress: bool,
    pub(super) statements: Vec<Arc<Statement>>,
}

impl Loaded {
    pub(super) fn provenances(&self) -> impl Iterator<Item = ProvenanceId> {
        self.rules.iter().flat_map(|rule| rule.statements.iter().map(|statement| statement.provenance))
    }
}

impl Engine {
    pub(super) fn load(&mut self, policy: Arc<Policy>) -> Loaded {
        let (mut rules, mut prefixes, mut groups) = (Vec::new(), Vec::new(), false);
        for rule in &policy.rules {
            let mut statements = Vec::new();
            for (index, from) in rule.statements.iter().enumerate() {
                let peers = match &from.peers {
                    Peers::Any => None,
                    Peers::Some(peers) => {
                        groups |= peers.iter().any(|peer| matches!(peer, Peer::Group(_)));
                        let selectors: Vec<_> =
                            peers.iter().flat_map(|peer| self.selectors_of(peer, from.effect)).collect();
                        Some(selectors.into_iter().map(|s| self.acquire(s, &mut prefixes)).collect())
                    }
                };
                statements.extend(self.statement(&policy, rule, index, peers));
            }
            let Rule { subject, deny_ingress, deny_egress, .. } = rule;
            let (subject, deny_ingress, deny_egress) = (subject.clone(), *deny_ingress, *deny_egress);
            rules.push(LoadedRule { subject, deny_ingress, deny_egress, statements });
        }
        Loaded { policy, rules, prefixes, groups }
    }

    pub(super) fn unload(&mut self, old: &Loaded) {
        for statement in old.rules.iter().flat_map(|rule| &rule.statements) {
            for selector in statement.peers.iter().flatten() {
                self.selectors.release(*selector);
            }
        }
        for prefix in &old.prefixes {
            self.cidrs.release(prefix);
        }
    }

    /// Reloads the policies that use changed groups.
    pub(super) fn reload_groups(&mut self) {
        let using = self.policies.values().filter(|loaded| loaded.groups).map(|loaded| loaded.policy.clone());
        for policy in using.collect::<Vec<_>>() {
            self.upsert_policy(policy);
        }
    }

    fn statement(
        &mut self,
        policy: &Policy,
        rule: &Rule,
        index: usize,
        peers: Option<Vec<crate::selectors::SelectorId>>,
    ) -> Option<Arc<Statement>> {
        let from = rule.statements.get(index)?;
        let provenance = self.provenances.acquire(policy, &from.origin, rule.log.as_deref(), self.revision);
        let (direction, effect, ports) = (from.direction, from.effect, from.ports.clone());
        Some(Arc::new(Statement { direction, effect, peers, ports, provenance }))
    }

    fn selectors_of(&self, peer: &Peer, effect: Effect) -> Vec<PeerSelector> {
        match peer {
            Peer::Labels(selector) => vec![PeerSelector::Labels(selector.clone())],
            Peer::Cidr(cidr) => vec![PeerSelector::Cidr(cidr.clone())],
            Peer::Group(selector) => {
                let groups = self.groups.values().filter(|group| selector.means(group));
                groups.flat_map(|group| selector.expand(group, effect)).map(PeerSelector::Cidr).collect()
            }
        }
    }

    /// Acquires a selector; its prefixes get identities first.
    fn acquire(&mut self, selector: PeerSelector, prefixes: &mut Vec<IpNet>) -> crate::selectors::SelectorId {
        if let PeerSelector::Cidr(cidr) = &selector {
            for prefix in cidr.prefixes() {
                self.acquire_prefix(prefix);
                prefixes.push(prefix);
            }
        }
        self.selectors.acquire(selector)
    }

    pub(super) fn acquire_prefix(&mut self, prefix: IpNet) {
        if let Some(id) = self.cidrs.acquire(prefix) {
            self.label_prefix(prefix, id);
        }
    }

    /// Updates the labels of a prefix's identity.
    pub(super) fn label_prefix(&mut self, prefix: IpNet, id: model::IdentityId) {
        let labels = cidr::labels(&prefix, self.cidrs.families(), self.api_servers.contains(&prefix));
        let changed = self.selectors.upsert(id, Subject { labels, prefix: Some(prefix) });
        self.changed_identities.insert(id);
        self.members_changed(id, &changed);
    }
}
