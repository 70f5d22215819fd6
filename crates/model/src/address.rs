// SPDX-License-Identifier: Apache-2.0
//! Which identity an address has.

use crate::{IdentityId, NamedPort, PodName};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The source of an [`IpEntry`], as tools print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpSource {
    /// A prefix that a policy names, or a built-in one.
    Generated,
    /// A CiliumEndpoint or CiliumNode of Kubernetes.
    CustomResource,
    /// The Kubernetes API (the API server's endpoints).
    KubeApiserver,
    /// This node.
    Local,
}

/// A prefix and its identity. One row per pod and node of the cluster, and per prefix that policies name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpEntry {
    /// The prefix; a single address has all bits.
    pub prefix: IpNet,
    pub identity: IdentityId,
    /// The node to tunnel to, when it is behind another node and routing is by tunnel. For a node's own address
    /// (`node_address`): the address used to tunnel to that node, if it is a different one.
    pub tunnel: Option<IpAddr>,
    /// Address of the node it is behind.
    pub host: Option<IpAddr>,
    /// It is another node's own address, reached without the tunnel.
    pub node_address: bool,
    /// Traffic to it keeps its source address.
    pub no_masquerade: bool,
    /// Where it comes from.
    pub source: IpSource,
    /// The pod, if it is one.
    pub pod: Option<MeshPod>,
}

impl statedb::Row for IpEntry {
    type Key = IpNet;
    fn key(&self) -> IpNet {
        self.prefix
    }
}

/// What identifies a pod in a mesh of clusters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshPod {
    /// Name of its cluster.
    pub cluster: Arc<str>,
    /// Namespace and name.
    pub pod: PodName,
}

/// A pod anywhere in the mesh, from its CiliumEndpoint. One row per pod of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEndpoint {
    /// Name of its cluster.
    pub cluster: Arc<str>,
    /// Namespace and name.
    pub pod: PodName,
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    pub identity: IdentityId,
    /// Address of its node.
    pub host: Option<IpAddr>,
    pub named_ports: Vec<NamedPort>,
}

impl statedb::Row for RemoteEndpoint {
    type Key = MeshPod;
    fn key(&self) -> MeshPod {
        MeshPod { cluster: Arc::clone(&self.cluster), pod: self.pod.clone() }
    }
}
