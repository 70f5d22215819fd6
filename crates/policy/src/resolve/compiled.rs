// SPDX-License-Identifier: Apache-2.0
//! What policies and identities come to for pods.

use super::entries::{self, ANY, Entries, EntryKey};
use crate::rules::Direction;
use model::{EndpointId, IdentityId, PolicyId};

/// A compiled policy. One row per distinct set of local pods that policy cannot tell apart.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledPolicy {
    /// Number.
    pub id: PolicyId,
    /// Identity of the pods.
    pub identity: IdentityId,
    /// The pods.
    pub endpoints: Vec<EndpointId>,
    /// Whether ingress is denied unless allowed.
    pub ingress_enforced: bool,
    /// Whether egress is denied unless allowed.
    pub egress_enforced: bool,
    pub entries: Entries,
}

impl statedb::Row for CompiledPolicy {
    type Key = PolicyId;
    fn key(&self) -> PolicyId {
        self.id
    }
}

impl CompiledPolicy {
    /// What the programs decide about a connection with that peer, to that port.
    pub(crate) fn allows(&self, direction: Direction, peer: IdentityId, proto: u8, port: u16) -> bool {
        let find = |peer| entries::find(&self.entries, EntryKey::range(direction, peer), proto, port);
        abi::policy::decide(find(peer), find(ANY)).is_some_and(|(entry, _)| entry.deny == 0)
    }

    /// A policy of which only the entries are known.
    pub(crate) fn orphan(id: PolicyId, entries: Entries) -> Self {
        let (identity, endpoints) = (ANY, Vec::new());
        Self { id, identity, endpoints, ingress_enforced: false, egress_enforced: false, entries }
    }
}
