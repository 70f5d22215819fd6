// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod address;
mod cluster;
pub mod config;
mod device;
mod endpoint;
mod frontend;
mod identity;
mod label;
mod node;
mod pod;
mod policy;
mod proxied;

pub use address::{IpEntry, IpSource, MeshPod, RemoteEndpoint};
pub use cluster::{Cluster, ClusterId, MeshSize, ParseClusterIdError};
pub use config::ConfigError;
pub use device::{Device, DeviceMode, NodeAddress};
pub use endpoint::{Endpoint, EndpointId, EndpointKind, EndpointPolicy, Mac, ParseMacError};
pub use frontend::{
    Algorithm, Backend, BackendId, BackendSource, BackendState, Forwarding, Frontend, FrontendKey, L4Addr, Protocol,
    Scope, ServiceKind, ServiceName, SourceRanges, TrafficPolicy,
};
pub use identity::{Identity, IdentityId, reserved};
pub use label::{Label, LabelSource, Labels, ParseLabelError};
pub use node::{LocalNode, Node, NodeName, RoutingMode, ZONE};
pub use pod::{HostPort, NamedPort, Namespace, Pod, PodName, Workload};
pub use policy::{PolicyId, PolicyKind, Provenance, ProvenanceId};
pub use proxied::{Permission, Proxied, Server};
