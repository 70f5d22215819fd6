// SPDX-License-Identifier: Apache-2.0
//! CiliumGatewayClassConfig.

use super::GROUP;
use super::resource::resource;
use crate::crd::{self, AGE, column, wide};
use crate::gateway::{Condition, Served, Spec};
use kube::core::NamespaceResourceScope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

resource! {
    /// What a GatewayClass or a Gateway is parameterised with.
    CiliumGatewayClassConfig, NamespaceResourceScope, "ciliumgatewayclassconfigs", {
        version: "v2alpha1",
        short_names: &["cgcc"],
        status_subresource: true,
        columns: &[
            column("Accepted", "string", r#".status.conditions[?(@.type=="Accepted")].status"#),
            AGE,
            wide("Description", "string", ".spec.description"),
        ],
    }
    {
        /// What is wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<GatewayClassConfigSpec>,
        /// Whether it can be had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<GatewayClassConfigStatus>,
    }
}

/// Content of a [`CiliumGatewayClassConfig`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassConfigSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub description: Option<String>,
    /// How the Services of Gateways are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceParameters>,
}

impl Spec for GatewayClassConfigSpec {
    type Status = GatewayClassConfigStatus;
    const SERVED: &'static [Served] = &[Served {
        group: GROUP,
        version: "v2alpha1",
        kind: "CiliumGatewayClassConfig",
        plural: "ciliumgatewayclassconfigs",
    }];
}

/// How the Service of a Gateway is to be; fields are those of Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceParameters {
    /// Whether node ports are given out besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `Cluster` or `Local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "Cluster"))]
    pub external_traffic_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<Vec<String>>,
    /// One family or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// Prefixes of clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Whether these are let in or kept out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "Allow", "enum" = ["Allow", "Deny"]))]
    pub load_balancer_source_ranges_policy: Option<String>,
    /// Which endpoints are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "LoadBalancer", "enum" = ["LoadBalancer", "NodePort"]))]
    pub kind: Option<String>,
}

/// Status of a [`CiliumGatewayClassConfig`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayClassConfigStatus {
    /// One of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crd::condition::list")]
    pub conditions: Vec<Condition>,
}
