// SPDX-License-Identifier: Apache-2.0
//! CiliumLocalRedirectPolicy.

use super::resource::resource;
use crate::crd::policy as published;
use crate::crd::{AGE, schema};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::NamespaceResourceScope;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

const PORT_NAME: &str = "^([0-9]{1,4})|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$";

resource! {
    /// What pods send to a Service or an address goes to pods of their own node.
    CiliumLocalRedirectPolicy, NamespaceResourceScope, "ciliumlocalredirectpolicies", {
        short_names: &["clrp"],
        categories: &["ciliumpolicy"],
        columns: &[AGE],
    }
    {
        /// From where, and to which pods.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spec: Option<LocalRedirectPolicySpec>,
        /// Not written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<LocalRedirectPolicyStatus>,
    }
}

/// Content of a [`CiliumLocalRedirectPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRedirectPolicySpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The pods.
    #[schemars(extend("x-kubernetes-validations" = immutable("redirectBackend")))]
    pub redirect_backend: RedirectBackend,
    /// What goes to them.
    #[schemars(schema_with = "frontend")]
    pub redirect_frontend: RedirectFrontend,
    /// What these pods send themselves is not redirected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = false, "x-kubernetes-validations" = immutable("skipRedirectFromBackend")))]
    pub skip_redirect_from_backend: Option<bool>,
}

/// Pods, and the ports that they serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedirectBackend {
    /// The pods, of the policy's namespace.
    #[schemars(with = "published::Selector")]
    pub local_endpoint_selector: LabelSelector,
    /// Their ports; each has a name if there are several.
    pub to_ports: Vec<PortInfo>,
}

/// An address or a Service: one of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedirectFrontend {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_matcher: Option<AddressMatcher>,
    /// The cluster addresses of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_matcher: Option<ServiceMatcher>,
}

/// An address and ports of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressMatcher {
    /// The address.
    #[schemars(extend("x-kubernetes-validations" = [{"message": "must be an IP address", "rule": "isIP(self)"}]))]
    pub ip: String,
    /// Its ports; each has a name if there are several.
    pub to_ports: Vec<PortInfo>,
}

/// A Service and ports of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMatcher {
    /// The policy's own namespace.
    pub namespace: String,
    pub service_name: String,
    /// Its ports; all if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ports: Option<Vec<PortInfo>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortInfo {
    /// Name, by which ports of the frontend and of the backend belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = PORT_NAME))]
    pub name: Option<String>,
    /// Number.
    #[schemars(extend("pattern" = "^[0-9]{1,5}$"))]
    pub port: String,
    /// `TCP` or `UDP`.
    #[schemars(extend("enum" = ["TCP", "UDP"]))]
    pub protocol: String,
}

/// Status of a [`CiliumLocalRedirectPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LocalRedirectPolicyStatus {
    /// Whether it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
}

fn immutable(field: &str) -> serde_json::Value {
    json!([{"message": format!("{field} is immutable"), "rule": "self == oldSelf"}])
}

fn frontend(generator: &mut SchemaGenerator) -> schemars::Schema {
    let mut frontend = RedirectFrontend::json_schema(generator);
    let one_of = ["addressMatcher", "serviceMatcher"].map(schema::required);
    frontend.insert("oneOf".to_owned(), json!(one_of));
    frontend.insert("x-kubernetes-validations".to_owned(), immutable("redirectFrontend"));
    frontend
}
