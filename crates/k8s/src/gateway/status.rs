// SPDX-License-Identifier: Apache-2.0
//! What controllers say of objects.

use super::ParentReference;
use serde::{Deserialize, Serialize};

/// A condition of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Generation of the object that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` changed last (RFC 3339).
    pub last_transition_time: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Status of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassStatus {
    pub conditions: Vec<Condition>,
    /// What the controller can do, by name.
    #[serde(deserialize_with = "features")]
    pub supported_features: Vec<SupportedFeature>,
}

/// Something that a controller can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SupportedFeature {
    pub name: String,
}

/// Before Gateway API 1.2 a feature was its mere name.
fn features<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<SupportedFeature>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Feature {
        Named(SupportedFeature),
        Name(String),
    }
    let features = Vec::<Feature>::deserialize(deserializer)?;
    let named = features.into_iter().map(|feature| match feature {
        Feature::Named(feature) => feature,
        Feature::Name(name) => SupportedFeature { name },
    });
    Ok(named.collect())
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// Addresses that it is reached at.
    pub addresses: Vec<StatusAddress>,
    pub conditions: Vec<Condition>,
    /// Its own listeners.
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets add listeners to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<i64>,
}

/// An address that a Gateway is reached at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub value: String,
}

/// Status of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerSetStatus {
    pub conditions: Vec<Condition>,
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: String,
    /// Port, which XListenerSet wants to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Which routes may attach.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many have.
    pub attached_routes: i64,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteGroupKind {
    /// Gateway API's if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub kind: String,
}

/// Status of a route: what each controller says, for each parent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// For each parent.
    pub parents: Vec<RouteParentStatus>,
}

/// What a controller says of a route for one parent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    /// The parent, as the route names it.
    pub parent_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    pub conditions: Vec<Condition>,
}

/// Status of a policy: what each controller says, for each Gateway that the policy works for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    /// For each Gateway.
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// What a controller says of a policy for one Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyAncestorStatus {
    /// The Gateway.
    pub ancestor_ref: ParentReference,
    /// Who says so.
    pub controller_name: String,
    pub conditions: Vec<Condition>,
}
