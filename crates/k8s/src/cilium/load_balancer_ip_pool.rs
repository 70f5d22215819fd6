// SPDX-License-Identifier: Apache-2.0
//! CiliumLoadBalancerIPPool.

use super::resource::resource;
use crate::crd::{self, AGE, column};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::ClusterResourceScope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

resource! {
    /// Addresses for Services of type LoadBalancer.
    CiliumLoadBalancerIPPool, ClusterResourceScope, "ciliumloadbalancerippools", {
        short_names: &["ippools", "ippool", "lbippool", "lbippools"],
        status_subresource: true,
        alpha: true,
        columns: &[
            column("Disabled", "boolean", ".spec.disabled"),
            column("Conflicting", "string", r#".status.conditions[?(@.type=="cilium.io/PoolConflict")].status"#),
            column("IPs Available", "string", r#".status.conditions[?(@.type=="cilium.io/IPsAvailable")].message"#),
            AGE,
        ],
    }
    {
        /// The addresses, and who may have them.
        #[serde(default)]
        spec: LoadBalancerIPPoolSpec,
        /// How many there are and whether they may be given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<LoadBalancerIPPoolStatus>,
    }
}

/// Content of a [`CiliumLoadBalancerIPPool`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIPPoolSpec {
    /// Whether the first and last address of a CIDR may be given: `Yes`, as if absent, or `No`.
    #[serde(default, rename = "allowFirstLastIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Yes", "No"]))]
    pub allow_first_last_ips: Option<String>,
    /// The addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<LoadBalancerIPBlock>>,
    /// Nothing new is given; who has an address keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = false))]
    pub disabled: Option<bool>,
    /// The Services that may have an address; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crd::policy::label_selector")]
    pub service_selector: Option<LabelSelector>,
}

/// A prefix, or the addresses from one to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadBalancerIPBlock {
    /// The prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "cidr"))]
    pub cidr: Option<String>,
    /// The first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The last address; `start` alone is one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

/// Status of a [`CiliumLoadBalancerIPPool`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadBalancerIPPoolStatus {
    /// One of each type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crd::condition::list")]
    pub conditions: Option<Vec<Condition>>,
}
