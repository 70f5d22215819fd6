// SPDX-License-Identifier: Apache-2.0
//! CiliumEndpoint: what is below `status`.

use super::resource::resource;
use crate::crd::schema::{boolean, int64, list, object, string};
use crate::crd::{column, wide};
use kube::core::NamespaceResourceScope;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

resource! {
    /// A pod's network state, written by its node's agent. Name and namespace are the pod's.
    CiliumEndpoint, NamespaceResourceScope, "ciliumendpoints", {
        short_names: &["cep", "ciliumep"],
        columns: &[
            column("Security Identity", "integer", ".status.identity.id"),
            wide("Ingress Enforcement", "string", ".status.policy.ingress.state"),
            wide("Egress Enforcement", "string", ".status.policy.egress.state"),
            column("Endpoint State", "string", ".status.state"),
            column("IPv4", "string", ".status.networking.addressing[0].ipv4"),
            column("IPv6", "string", ".status.networking.addressing[0].ipv6"),
        ],
    }
    {
        /// All that there is. It is not a subresource.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<EndpointStatus>,
    }
}

/// Network state of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// Number of the endpoint on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// `ready`, `not-ready`, `waiting-for-identity` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = STATES))]
    pub state: Option<String>,
    /// Its security identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<EndpointIdentity>,
    /// Its addresses and its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networking: Option<EndpointNetworking>,
    /// Ports of its containers that have names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_ports: Option<Vec<NamedPort>>,
    /// What others call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_identifiers: Option<EndpointIdentifiers>,
    /// What policy does to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointPolicy>,
    /// IPsec key of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<super::EncryptionSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<EndpointHealth>,
    /// Background tasks that fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "controllers")]
    pub controllers: Option<Vec<serde_json::Value>>,
    /// Last changes of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<EndpointStatusChange>>,
}

/// What an endpoint can be.
const STATES: [&str; 10] = [
    "creating",
    "waiting-for-identity",
    "not-ready",
    "waiting-to-regenerate",
    "regenerating",
    "restoring",
    "ready",
    "disconnecting",
    "disconnected",
    "invalid",
];

fn controllers(_: &mut SchemaGenerator) -> Schema {
    let configuration = object([("error-retry", boolean()), ("error-retry-base", int64()), ("interval", int64())]);
    let status = object([
        ("consecutive-failure-count", int64()),
        ("failure-count", int64()),
        ("last-failure-msg", string()),
        ("last-failure-timestamp", string()),
        ("last-success-timestamp", string()),
        ("success-count", int64()),
    ]);
    list(object([("configuration", configuration), ("name", string()), ("status", status), ("uuid", string())])).into()
}

/// A security identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointIdentity {
    /// Number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Its labels, sorted, as `source:key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// Addresses and node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointNetworking {
    /// Addresses.
    #[serde(default)]
    pub addressing: Vec<super::AddressPair>,
    /// Address of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A port that has a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub port: Option<i64>,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// What others call an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointIdentifiers {
    /// Container id and interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_attachment_id: Option<String>,
    /// Container id of the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Not used any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_endpoint_id: Option<String>,
    /// Not used any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_network_id: Option<String>,
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<String>,
    /// Namespace and name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
}

/// What policy does to an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPolicy {
    /// To what comes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<EndpointPolicyDirection>,
    /// To what goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EndpointPolicyDirection>,
}

/// What policy does in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPolicyDirection {
    /// Whether what is not allowed is denied.
    #[serde(default)]
    pub enforcing: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Who is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<AllowedIdentity>>,
    /// Who is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Vec<AllowedIdentity>>,
    /// Who is about to be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adding: Option<Vec<AllowedIdentity>>,
    /// Who is about to be no longer allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removing: Option<Vec<AllowedIdentity>>,
}

/// A peer and a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AllowedIdentity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub dest_port: Option<i64>,
    /// Number of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = null))]
    pub protocol: Option<i64>,
}

/// How an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointHealth {
    /// Its programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bpf: Option<String>,
    /// Whether it has a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// All in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overall_health: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// A change of state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatusChange {
    /// Whether it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// New state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}
