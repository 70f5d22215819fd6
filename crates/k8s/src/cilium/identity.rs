// SPDX-License-Identifier: Apache-2.0
//! CiliumIdentity.

use super::resource::resource;
use crate::crd::{AGE, column};
use kube::core::ClusterResourceScope;
use std::collections::BTreeMap;

resource! {
    /// A security identity. Its name is the number.
    CiliumIdentity, ClusterResourceScope, "ciliumidentities", {
        short_names: &["ciliumid"],
        status_subresource: true,
        columns: &[column("Namespace", "string", r".metadata.labels.io\.kubernetes\.pod\.namespace"), AGE],
    }
    {
        /// The labels that make it, `source:key` to value.
        #[serde(default, rename = "security-labels")]
        security_labels: BTreeMap<String, String>,
    }
}
