// SPDX-License-Identifier: Apache-2.0
//! Addresses in use by the cluster itself: of nodes, of pods, and of Services inside it. Pools never give one of them out.

use crate::range::Range;
use k8s::cilium::CiliumNode;
use k8s::field;
use k8s::k8s_openapi::api::networking::v1::ServiceCIDR;
use std::sync::Arc;

/// An owner of addresses. One row per node and per ServiceCIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Kind and name.
    pub name: Arc<str>,
    pub(crate) uses: Vec<Use>,
}

impl statedb::Row for Occupant {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        self.name.clone()
    }
}

/// Addresses and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) range: Range,
    pub(crate) what: String,
}

impl Occupant {
    /// A node with its own addresses and those of its pods. Unreadable ones are skipped; they are reported elsewhere.
    #[must_use]
    pub fn node(object: &CiliumNode) -> Option<Self> {
        let name = object.metadata.name.as_deref()?;
        let addresses = object.spec.addresses.iter().filter_map(|address| field::canonical_address(&address.ip));
        let addresses = addresses
            .map(|address| Use { range: Range::one(address), what: format!("{address}, an address of node {name}") });
        let prefixes = object.spec.ipam.pod_cidrs.iter().filter_map(|text| field::prefix("podCIDRs", text).ok());
        let pods =
            prefixes.map(|prefix| Use { range: prefix.into(), what: format!("{prefix}, the pod CIDR of node {name}") });
        Some(Self { name: format!("node {name}").into(), uses: addresses.chain(pods).collect() })
    }

    /// The range of ClusterIPs.
    #[must_use]
    pub fn service_cidr(object: &ServiceCIDR) -> Option<Self> {
        let name = object.metadata.name.as_deref()?;
        let texts = object.spec.as_ref().and_then(|spec| spec.cidrs.as_ref()).into_iter().flatten();
        let prefixes = texts.filter_map(|text| field::prefix("cidrs", text).ok());
        let uses = prefixes.map(|prefix| Use { range: prefix.into(), what: format!("{prefix} of ServiceCIDR {name}") });
        Some(Self { name: format!("ServiceCIDR {name}").into(), uses: uses.collect() })
    }
}
