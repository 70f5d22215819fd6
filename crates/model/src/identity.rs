// SPDX-License-Identifier: Apache-2.0
//! Security identities: a number for each distinct set of security-relevant labels.

use crate::{Label, Labels};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a security identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentityId(pub u32);

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl IdentityId {
    /// Whether the number is reserved for Cilium's own use.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 < 256
    }

    /// Whether the identity exists on this node only (prefixes, DNS names).
    #[must_use]
    pub const fn is_node_local(self) -> bool {
        self.0 >> 24 == 1
    }
}

/// An identity and its labels. Their number grows with the cluster's workloads, not with its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number.
    pub id: IdentityId,
    /// The security-relevant labels.
    pub labels: Labels,
}

impl statedb::Row for Identity {
    type Key = IdentityId;
    fn key(&self) -> IdentityId {
        self.id
    }
}

/// Reserved identities, numbered as in Cilium's documentation.
pub mod reserved {
    use super::{Identity, IdentityId, Label};

    macro_rules! reserved {
        ($($(#[$meta:meta])* $name:ident = $id:literal, [$($label:literal),*];)+) => {
            $($(#[$meta])* pub const $name: IdentityId = IdentityId($id);)+

            /// All of them with their labels.
            #[must_use]
            pub fn all() -> Vec<Identity> {
                vec![$(Identity { id: $name, labels: [$(Label::reserved($label)),*].into_iter().collect() }),+]
            }

            /// Its name in policies and tools, if it is reserved.
            #[must_use]
            pub const fn name(id: IdentityId) -> Option<&'static str> {
                $(if id.0 == $id { return Some([$($label),*][0]); })+
                None
            }
        };
    }

    reserved! {
        /// The local node.
        HOST = 1, ["host"];
        /// Anything outside the cluster.
        WORLD = 2, ["world"];
        /// A pod that Cilium does not manage.
        UNMANAGED = 3, ["unmanaged"];
        /// A node's health endpoint.
        HEALTH = 4, ["health"];
        /// An endpoint whose labels are not known yet.
        INIT = 5, ["init"];
        /// Any other node.
        REMOTE_NODE = 6, ["remote-node"];
        /// A node on which an API server runs.
        KUBE_APISERVER = 7, ["kube-apiserver", "remote-node"];
        /// Cilium's Ingress.
        INGRESS = 8, ["ingress"];
        /// The world over IPv4, on dual stack.
        WORLD_IPV4 = 9, ["world-ipv4"];
        /// The world over IPv6, on dual stack.
        WORLD_IPV6 = 10, ["world-ipv6"];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_numbers_do_not_overlap() {
        let ranges = |number| (IdentityId(number).is_reserved(), IdentityId(number).is_node_local());
        assert_eq!([1, 255].map(ranges), [(true, false); 2]);
        assert_eq!([256, (1 << 24) - 1, 2 << 24].map(ranges), [(false, false); 3]);
        assert_eq!([1 << 24, (2 << 24) - 1].map(ranges), [(false, true); 2]);
        assert_eq!(IdentityId(256).to_string(), "256");
        let row = Identity { id: IdentityId(256), labels: Labels::default() };
        assert_eq!(statedb::Row::key(&row), IdentityId(256));
    }
}
