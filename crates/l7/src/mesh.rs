// SPDX-License-Identifier: Apache-2.0
//! Who pods are that send requests to Services, and what they may reach.

use crate::Name;
use crate::compact::exact;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A pod of the node. Its name is its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The address, as text.
    pub name: Name,
    /// Namespace of the pod.
    pub namespace: Name,
    /// Its identity, of which there is a [`Permission`].
    pub identity: u32,
}

impl Client {
    /// The address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }
}

/// What policy says of an identity's connections to the endpoints of clusters, as if it opened them itself. Nothing is said of an endpoint
/// that is not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// The identity, as text.
    pub name: Name,
    /// The endpoints, in order.
    #[serde(deserialize_with = "exact")]
    pub servers: Vec<Server>,
}

/// Endpoints that policy cannot tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// Their identity.
    pub identity: u32,
    /// Their port, of TCP.
    pub port: u16,
    /// Whether they may be reached.
    pub allowed: bool,
}

impl Permission {
    /// The name of an identity's permission.
    #[must_use]
    pub fn name_of(identity: u32) -> Name {
        identity.to_string().into()
    }
}
