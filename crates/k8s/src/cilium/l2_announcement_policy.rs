// SPDX-License-Identifier: Apache-2.0
//! CiliumL2AnnouncementPolicy.

use super::resource::resource;
use crate::crd::{self, AGE};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::ClusterResourceScope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

resource! {
    /// Which addresses of Services nodes announce on their links.
    CiliumL2AnnouncementPolicy, ClusterResourceScope, "ciliuml2announcementpolicies", {
        version: "v2alpha1",
        short_names: &["l2announcement"],
        status_subresource: true,
        columns: &[AGE],
    }
    {
        /// Which, who and where.
        #[serde(default)]
        spec: L2AnnouncementPolicySpec,
        /// What is wrong with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<L2AnnouncementPolicyStatus>,
    }
}

/// Content of a [`CiliumL2AnnouncementPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2AnnouncementPolicySpec {
    /// Announce `spec.externalIPs` of Services.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Option::is_none")]
    pub external_ips: Option<bool>,
    /// Regular expressions of names of devices; all native ones if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,
    /// Announce the addresses in `status.loadBalancer` of Services.
    #[serde(default, rename = "loadBalancerIPs", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ips: Option<bool>,
    /// The nodes that may announce; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crd::policy::label_selector")]
    pub node_selector: Option<LabelSelector>,
    /// The Services whose addresses are announced; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crd::policy::label_selector")]
    pub service_selector: Option<LabelSelector>,
}

/// Status of a [`CiliumL2AnnouncementPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct L2AnnouncementPolicyStatus {
    /// One of each type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crd::condition::list")]
    pub conditions: Option<Vec<Condition>>,
}
