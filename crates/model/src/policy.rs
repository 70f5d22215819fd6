// SPDX-License-Identifier: Apache-2.0
//! Ids by which compiled policy and the rules behind it are known outside the policy engine.

use std::fmt;

/// Id of a compiled policy, shared by pods of one identity. 0 means that nothing is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// Id by which an entry of a compiled policy names the rule behind it. 0 means no rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProvenanceId(pub u32);

/// The kind of object that holds a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Kubernetes' own.
    NetworkPolicy,
    /// Cilium's, of one namespace.
    CiliumNetworkPolicy,
    /// Cilium's, of the cluster.
    CiliumClusterwideNetworkPolicy,
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
        })
    }
}

/// The rule behind a provenance id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Id in policy entries and events.
    pub id: ProvenanceId,
    /// Kind of the object.
    pub kind: PolicyKind,
    /// Namespace, empty for a clusterwide policy.
    pub namespace: String,
    pub name: String,
    /// The object's labels as Hubble lists them.
    pub labels: Vec<String>,
    /// Which rule, such as `ingress[0]`.
    pub rule: String,
    /// `spec.log.value` of the policy, if set.
    pub log: Option<String>,
    /// Revision of the policy repository that introduced it.
    pub revision: u64,
}

impl statedb::Row for Provenance {
    type Key = ProvenanceId;
    fn key(&self) -> ProvenanceId {
        self.id
    }
}
