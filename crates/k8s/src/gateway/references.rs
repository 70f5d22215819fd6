// SPDX-License-Identifier: Apache-2.0
//! How objects name each other.

use serde::{Deserialize, Serialize};

/// The parent that a route attaches to: a Gateway, a ListenerSet or a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    /// Gateway API's if unset; empty for Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Gateway` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The referring object's if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    /// Listener, or port of a Service; all if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// All if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// An object in this namespace or another: a Secret, a ConfigMap, parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// What it means to be unset depends on the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it means to be unset depends on the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    pub name: String,
    /// The referring object's if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Part of a policy's target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Where a rule sends what it matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendRef {
    /// The core group if unset.
    pub group: Option<String>,
    /// `Service` if unset.
    pub kind: Option<String>,
    pub name: String,
    /// The route's if unset.
    pub namespace: Option<String>,
    /// Required for Services.
    pub port: Option<i64>,
    /// Share of the rule's traffic; 1 if unset.
    pub weight: Option<i64>,
    /// Applied to what is sent to this backend.
    pub filters: Vec<super::Filter>,
}
