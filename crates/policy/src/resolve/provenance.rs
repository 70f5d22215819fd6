// SPDX-License-Identifier: Apache-2.0
//! Ids of rules. They are hashed from the rule's name, so that after a restart the kernel's entries are still right.

use crate::rules::{Policy, PolicyName};
use model::{Provenance, ProvenanceId};
use std::collections::BTreeMap;

/// Maps ids to rules.
#[derive(Debug, Default)]
pub(super) struct Provenances {
    rows: BTreeMap<ProvenanceId, Provenance>,
    by_rule: BTreeMap<(PolicyName, String), ProvenanceId>,
}

impl Provenances {
    /// The id of a rule of a policy.
    pub(super) fn acquire(&mut self, policy: &Policy, origin: &str, log: Option<&str>, revision: u64) -> ProvenanceId {
        let key = (policy.name.clone(), origin.to_owned());
        let id = match self.by_rule.get(&key) {
            Some(id) => *id,
            None => self.free(hash(&policy.name, origin)),
        };
        let PolicyName { kind, namespace, name } = &policy.name;
        let row = Provenance {
            id,
            kind: *kind,
            namespace: namespace.to_string(),
            name: name.to_string(),
            labels: policy.labels.clone(),
            rule: origin.to_owned(),
            log: log.map(str::to_owned),
            revision,
        };
        self.rows.insert(id, row);
        self.by_rule.insert(key, id);
        id
    }

    /// Forgets a policy's rules, except those to keep.
    pub(super) fn retain(&mut self, policy: &PolicyName, kept: &dyn Fn(ProvenanceId) -> bool) {
        let rules = self.by_rule.range((policy.clone(), String::new())..).take_while(|((name, _), _)| name == policy);
        let gone: Vec<_> = rules.filter(|(_, id)| !kept(**id)).map(|(key, id)| (key.clone(), *id)).collect();
        for (key, id) in gone {
            self.by_rule.remove(&key);
            self.rows.remove(&id);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Provenance> {
        self.rows.values()
    }

    fn free(&self, mut wanted: u32) -> ProvenanceId {
        while wanted == 0 || self.rows.contains_key(&ProvenanceId(wanted)) {
            wanted = wanted.wrapping_add(1);
        }
        ProvenanceId(wanted)
    }
}

/// FNV-1a, folded: it must not change from build to build.
fn hash(policy: &PolicyName, origin: &str) -> u32 {
    let text = format!("{policy}\n{origin}");
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    u32::try_from((hash >> 32) ^ (hash & u64::from(u32::MAX))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::PolicyKind;

    fn policy(name: &str) -> Policy {
        let kind = PolicyKind::CiliumNetworkPolicy;
        let name = PolicyName { kind, namespace: "shop".into(), name: name.into() };
        Policy { name, labels: vec![], rules: vec![], problems: vec![], valid: true }
    }

    #[test]
    fn two_rules_never_share_an_id_and_none_has_that_of_built_in_entries() {
        let mut all = Provenances::default();
        let first = all.acquire(&policy("p"), "ingress[0]", None, 1);
        assert_eq!(all.acquire(&policy("p"), "ingress[0]", None, 2), first);
        assert_eq!(all.free(first.0), ProvenanceId(first.0.wrapping_add(1)));
        assert_eq!(all.free(0), ProvenanceId(1));
    }

    /// The kernel's entries name rules by these ids, also those that an earlier build has written.
    #[test]
    fn the_id_of_a_rule_is_the_same_in_every_build() {
        let mut all = Provenances::default();
        let ids = ["ingress[0]", "egress[1]"].map(|rule| all.acquire(&policy("p"), rule, None, 1).0);
        assert_eq!(ids, [0xf7a6_a3d4, 0xd69d_f3ad]);
    }
}
