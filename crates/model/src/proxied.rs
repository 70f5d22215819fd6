// SPDX-License-Identifier: Apache-2.0
//! Who may reach whom by way of the node's proxy, which speaks to backends as itself.

use crate::IdentityId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Identity and TCP port of endpoints that policy cannot tell apart.
pub type Server = (IdentityId, u16);

/// Where a route sends what pods ask a Service. One row per such route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// Kind, namespace and name.
    pub route: Arc<str>,
    pub servers: BTreeSet<Server>,
}

impl statedb::Row for Proxied {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        Arc::clone(&self.route)
    }
}

/// What policy would say of the connections of this node's pods to servers of [`Proxied`]. One row per identity of this node's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub client: IdentityId,
    /// Whether each may be reached. Of one that is not there policy cannot say anything yet.
    pub servers: BTreeMap<Server, bool>,
}

impl statedb::Row for Permission {
    type Key = IdentityId;
    fn key(&self) -> IdentityId {
        self.client
    }
}
