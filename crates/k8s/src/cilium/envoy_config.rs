// SPDX-License-Identifier: Apache-2.0
//! CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig. What their resources are is not said here: they are read as they come.

use super::resource::resource;
use crate::crd::policy as published;
use crate::crd::{AGE, schema};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

resource! {
    /// How requests for Services of its namespace are served.
    CiliumEnvoyConfig, NamespaceResourceScope, "ciliumenvoyconfigs", {
        short_names: &["cec"],
        columns: &[AGE],
    }
    {
        /// For whom, and how.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<EnvoyConfigSpec>,
    }
}

resource! {
    /// How requests for Services are served.
    CiliumClusterwideEnvoyConfig, ClusterResourceScope, "ciliumclusterwideenvoyconfigs", {
        short_names: &["ccec"],
        columns: &[AGE],
    }
    {
        /// For whom, and how.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<EnvoyConfigSpec>,
    }
}

/// Content of a [`CiliumEnvoyConfig`] or [`CiliumClusterwideEnvoyConfig`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyConfigSpec {
    /// Services that requests may be sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_services: Option<Vec<BackendService>>,
    /// The nodes on which it holds; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<published::Selector>")]
    pub node_selector: Option<LabelSelector>,
    /// Listeners, routes, clusters and so on.
    #[schemars(schema_with = "resources")]
    pub resources: Vec<Value>,
    /// Services whose requests go to a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<ServiceListener>>,
}

/// A Service that requests may be sent to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendService {
    pub name: String,
    /// That of the object, or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Numbers or names of its ports; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<Vec<String>>,
}

/// A Service whose requests go to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceListener {
    /// Name of the listener; the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    pub name: String,
    /// That of the object, or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its ports; all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "ports")]
    pub ports: Option<Vec<i64>>,
}

fn resources(_: &mut SchemaGenerator) -> schemars::Schema {
    let any = schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    schemars::json_schema!({"type": "array", "items": any})
}

fn ports(_: &mut SchemaGenerator) -> schemars::Schema {
    schema::list(schema::integer()).into()
}
