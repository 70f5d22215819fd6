// SPDX-License-Identifier: Apache-2.0
//! Sets of local pods that policy cannot tell apart, and what is compiled for them.

use super::entries::{self, ANY, Entries, EntryKey, World, compile_peer};
use super::{CompiledPolicy, Enforcement, Engine, Statement};
use crate::rules::Direction;
use crate::selectors::SelectorId;
use model::{EndpointId, IdentityId, NamedPort, PolicyId, reserved};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What policy can see of a local pod: its identity and its named ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SubjectKey {
    pub identity: IdentityId,
    /// Named ports: protocol number, name, port.
    ports: Vec<(u8, String, u16)>,
}

impl SubjectKey {
    /// From a pod's identity and its named ports.
    pub(crate) fn new<'a>(identity: IdentityId, ports: impl IntoIterator<Item = &'a NamedPort>) -> Self {
        let ports = ports.into_iter().map(|p| (p.protocol.number(), p.name.to_ascii_lowercase(), p.port));
        let ports: BTreeSet<_> = ports.collect();
        Self { identity, ports: ports.into_iter().collect() }
    }

    fn numbers(&self, proto: u8, name: &str) -> Vec<u16> {
        self.ports.iter().filter(|(p, n, _)| *p == proto && n == name).map(|(_, _, port)| *port).collect()
    }
}

/// A compiled policy and its inputs.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) id: PolicyId,
    pub(super) endpoints: BTreeSet<EndpointId>,
    statements: Vec<Arc<Statement>>,
    selectors: BTreeSet<SelectorId>,
    ingress: Mode,
    egress: Mode,
    entries: Entries,
}

/// One direction of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    /// Whether policy applies to it.
    enforced: bool,
    /// Whether it is allowed by default.
    open: bool,
}

impl Subject {
    pub(super) fn new(id: PolicyId) -> Self {
        Self {
            id,
            endpoints: BTreeSet::new(),
            statements: Vec::new(),
            selectors: BTreeSet::new(),
            ingress: Mode::default(),
            egress: Mode::default(),
            entries: Entries::new(),
        }
    }

    pub(super) fn row(&self, identity: IdentityId) -> CompiledPolicy {
        CompiledPolicy {
            id: self.id,
            identity,
            endpoints: self.endpoints.iter().copied().collect(),
            ingress_enforced: self.ingress.enforced,
            egress_enforced: self.egress.enforced,
            entries: self.entries.clone(),
        }
    }

    pub(super) fn uses(&self, selectors: &BTreeSet<SelectorId>) -> bool {
        !self.selectors.is_disjoint(selectors)
    }

    pub(super) fn names_peer_ports(&self) -> bool {
        self.statements.iter().any(|statement| entries::names_peer_ports(statement))
    }

    const fn mode(&self, direction: Direction) -> Mode {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// Built-in entries: everything in a direction that is open; and a pod's own node may always reach it, since the
    /// kubelet's probes come from there. An explicit deny still wins.
    fn always(&self, direction: Direction, peer: IdentityId) -> bool {
        let open = self.mode(direction).open;
        (open && peer == ANY) || (!open && direction == Direction::Ingress && peer == reserved::HOST)
    }
}

impl Engine {
    /// Compiles from scratch.
    pub(super) fn compile(&self, key: &SubjectKey, subject: &mut Subject) {
        let labels = self.selectors.identity(key.identity).map(|subject| &subject.labels);
        let about = |selector: &crate::rules::Selector| labels.is_some_and(|labels| selector.matches(labels));
        let rules = self.policies.values().flat_map(|loaded| &loaded.rules).filter(|rule| about(&rule.subject));
        // Without labels nobody can tell which policies select the pods: allow nothing.
        let unknown = labels.is_none() && self.mode != Enforcement::Never;
        let (mut statements, mut deny_ingress, mut deny_egress) = (Vec::new(), unknown, unknown);
        for rule in rules.filter(|_| self.mode != Enforcement::Never) {
            statements.extend(rule.statements.iter().cloned());
            deny_ingress |= rule.deny_ingress;
            deny_egress |= rule.deny_egress;
        }
        let mode = |direction, denies| {
            let always = self.mode == Enforcement::Always;
            let said = statements.iter().any(|s: &Arc<Statement>| s.direction == direction);
            Mode { enforced: always || denies || said, open: !always && !denies }
        };
        subject.ingress = mode(Direction::Ingress, deny_ingress);
        subject.egress = mode(Direction::Egress, deny_egress);
        subject.selectors = statements.iter().flat_map(|s| s.peers.iter().flatten().copied()).collect();
        subject.statements = statements;
        let named = || self.named_ports.identities();
        let mut by_peer = entries::by_peer(&subject.statements, &self.selectors, &named);
        // The built-in entries.
        for peer in [ANY, reserved::HOST] {
            by_peer.entry(peer).or_default();
        }
        let compiled = by_peer.iter().flat_map(|(peer, about)| self.compile_peer(key, subject, *peer, about));
        let compiled: Entries = compiled.collect();
        // Left as is where nothing has changed, so that comparing with the previous state is fast.
        if subject.entries != compiled {
            subject.entries = compiled;
        }
    }

    /// Recompiles the entries of some peers.
    pub(super) fn compile_peers(&self, key: &SubjectKey, subject: &mut Subject, peers: &BTreeSet<IdentityId>) {
        for peer in peers {
            let about = subject.statements.iter().filter(|s| entries::concerns(s, *peer, &self.selectors));
            let new = self.compile_peer(key, subject, *peer, &about.collect::<Vec<_>>());
            let old: Vec<_> = Direction::ALL.into_iter().flat_map(|d| present(&subject.entries, d, *peer)).collect();
            for key in old {
                if !new.iter().any(|(new, _)| *new == key) {
                    subject.entries.remove(&key);
                }
            }
            for (key, entry) in new {
                if subject.entries.get(&key) != Some(&entry) {
                    subject.entries.insert(key, entry);
                }
            }
        }
    }

    fn compile_peer(
        &self,
        key: &SubjectKey,
        subject: &Subject,
        peer: IdentityId,
        about: &[&Arc<Statement>],
    ) -> Vec<(EntryKey, abi::policy::PolicyEntry)> {
        let world = World {
            own_ports: &|proto, name| key.numbers(proto, name),
            peer_ports: &|peer, proto, name| self.named_ports.numbers(peer, proto, name),
        };
        let of = |direction| compile_peer(about, direction, peer, subject.always(direction, peer), &world);
        Direction::ALL.into_iter().flat_map(of).collect()
    }
}

fn present(entries: &Entries, direction: Direction, peer: IdentityId) -> Vec<EntryKey> {
    entries.range(EntryKey::range(direction, peer)).map(|(key, _)| *key).collect()
}
