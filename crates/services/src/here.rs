// SPDX-License-Identifier: Apache-2.0
//! What Services need to know of this node.

use crate::ingest::SliceEndpoint;
use model::{Node, NodeAddress, NodeName, ZONE};
use statedb::Reader;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// This node, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) name: Arc<str>,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) labels: BTreeMap<String, String>,
    /// All of its addresses that others can use.
    pub(crate) ips: Vec<IpAddr>,
    /// Those at which ports of nodes are served.
    pub(crate) node_port_ips: Vec<IpAddr>,
}

impl Here {
    /// Whether it is on this node.
    pub(crate) fn is_mine(&self, endpoint: &SliceEndpoint) -> bool {
        endpoint.node.as_ref() == Some(&self.name)
    }

    /// Whether its hints name this node.
    pub(crate) fn is_hinted(&self, endpoint: &SliceEndpoint) -> bool {
        endpoint.for_nodes.contains(&self.name)
    }

    /// Whether its hints name the zone of this node.
    pub(crate) fn zone_is_hinted(&self, endpoint: &SliceEndpoint) -> bool {
        self.zone.as_ref().is_some_and(|zone| endpoint.for_zones.contains(zone))
    }
}

/// The tables that it follows from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) name: NodeName,
    pub(crate) nodes: Reader<Node>,
    pub(crate) addresses: Reader<NodeAddress>,
}

impl Sources {
    pub(crate) fn here(&self) -> Here {
        let labels = self.nodes.snapshot().get(&self.name).map(|node| node.labels.clone()).unwrap_or_default();
        let addresses = self.addresses.snapshot();
        let serving = addresses.iter().filter(|address| address.node_port);
        let node_port_ips = serving.map(|address| address.address).collect();
        Here {
            name: self.name.name.as_str().into(),
            zone: labels.get(ZONE).map(|zone| zone.as_str().into()),
            labels,
            ips: addresses.iter().map(|address| address.address).collect(),
            node_port_ips,
        }
    }
}
