// SPDX-License-Identifier: Apache-2.0
//! CiliumCIDRGroup.

use super::resource::resource;
use kube::core::ClusterResourceScope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

resource! {
    /// A named list of prefixes for policies.
    CiliumCIDRGroup, ClusterResourceScope, "ciliumcidrgroups", {
        short_names: &["ccg"],
        alpha: true,
    }
    {
        /// The prefixes.
        #[serde(default)]
        spec: CIDRGroupSpec,
    }
}

/// Content of a [`CiliumCIDRGroup`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CIDRGroupSpec {
    /// The prefixes.
    #[serde(default, rename = "externalCIDRs")]
    #[schemars(length(min = 0), extend("items" = {"type": "string", "format": "cidr"}))]
    pub external_cidrs: Vec<String>,
}
