// SPDX-License-Identifier: Apache-2.0
//! CiliumNode: what is below `spec` and `status`. What belongs to cloud providers is kept as it is.

use super::resource::resource;
use crate::crd::node;
use crate::crd::{AGE, column};
use kube::core::ClusterResourceScope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

resource! {
    /// A node as the other nodes need to know it, and the pod CIDRs that the operator gave it.
    CiliumNode, ClusterResourceScope, "ciliumnodes", {
        short_names: &["cn", "ciliumn"],
        status_subresource: true,
        columns: &[
            column("CiliumInternalIP", "string", r#".spec.addresses[?(@.type=="CiliumInternalIP")].ip"#),
            column("InternalIP", "string", r#".spec.addresses[?(@.type=="InternalIP")].ip"#),
            AGE,
        ],
    }
    {
        /// What is known of it.
        #[serde(default)]
        spec: NodeSpec,
        /// What became of its requests.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<NodeStatus>,
    }
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = null))]
pub struct NodeSpec {
    #[serde(default)]
    pub addresses: Vec<NodeAddress>,
    /// Changes when the node is booted.
    #[serde(default, rename = "bootid", skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// IPsec key in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// Addresses of its health endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<AddressPair>,
    /// Addresses of its Ingress listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<AddressPair>,
    /// Where its pods get addresses from.
    #[serde(default)]
    pub ipam: IPAMSpec,
    #[serde(default, rename = "nodeidentity", skip_serializing_if = "Option::is_none")]
    pub node_identity: Option<i64>,
    /// Id at the cloud provider.
    #[serde(default, rename = "instance-id", skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::eni_spec")]
    pub eni: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::azure_spec")]
    pub azure: Option<Value>,
    #[serde(default, rename = "alibaba-cloud", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::alibaba_spec")]
    pub alibaba_cloud: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = null))]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `CiliumInternalIP`.
    #[serde(default, rename = "type")]
    pub address_type: String,
    /// The address.
    #[serde(default)]
    pub ip: String,
}

/// IPsec key in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionSpec {
    /// Its number; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub key: Option<i64>,
}

/// An address of each family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressPair {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// Where pods get addresses from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IPAMSpec {
    /// Prefixes of this node.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// Single addresses that a cloud provider gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<BTreeMap<String, AllocationIP>>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_pool: Option<BTreeMap<String, AllocationIP>>,
    /// Multi-pool: asked for and given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<IPAMPools>,
    /// Addresses to have at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = null))]
    pub min_allocate: Option<i64>,
    /// Addresses to have at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = null))]
    pub max_allocate: Option<i64>,
    /// Addresses to have in reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = null))]
    pub pre_allocate: Option<i64>,
    /// Addresses above the reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = null))]
    pub max_above_watermark: Option<i64>,
    /// Tags by which to find a static address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_ip_tags: Option<BTreeMap<String, String>>,
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllocationIP {
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Of which resource of the provider it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// Multi-pool: what the node asked for and got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAMPools {
    /// Asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Vec<IPAMPoolRequest>>,
    /// Given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Vec<IPAMPoolAllocation>>,
}

/// What is needed of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAMPoolRequest {
    #[schemars(length(min = 1))]
    pub pool: String,
    /// How much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<IPAMPoolDemand>,
}

/// Addresses needed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IPAMPoolDemand {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub ipv4_addrs: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub ipv6_addrs: Option<i64>,
}

/// What was given of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAMPoolAllocation {
    #[schemars(length(min = 1))]
    pub pool: String,
    /// Prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("items" = {"type": "string", "format": "cidr"}))]
    pub cidrs: Option<Vec<String>>,
}

/// What became of the requests of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IPAMStatus>,
    /// Of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::eni_status")]
    pub eni: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::azure_status")]
    pub azure: Option<Value>,
    #[serde(default, rename = "alibaba-cloud", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::alibaba_status")]
    pub alibaba_cloud: Option<Value>,
}

/// State of address management.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IPAMStatus {
    /// What the operator has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_status: Option<OperatorStatus>,
    /// Addresses in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<BTreeMap<String, AllocationIP>>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_used: Option<BTreeMap<String, AllocationIP>>,
    /// State of each prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cidrs: Option<BTreeMap<String, PodCIDRStatus>>,
    /// Addresses on their way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::releases")]
    pub release_ips: Option<BTreeMap<String, String>>,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "node::releases")]
    pub release_ipv6s: Option<BTreeMap<String, String>>,
    /// The static address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_static_ip: Option<String>,
}

/// What the operator has to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatorStatus {
    /// Why the node gets no addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// State of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCIDRStatus {
    /// `released`, `depleted` or `in-use`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["released", "depleted", "in-use"]))]
    pub status: Option<String>,
}
