// SPDX-License-Identifier: Apache-2.0
//! GatewayClass, Gateway, ListenerSet: where traffic comes in.

use super::object::{Served, Spec};
use super::{
    GatewayClassStatus, GatewayStatus, ListenerSetStatus, ObjectReference, ParentReference, RouteGroupKind, TRIAL_GROUP,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which controller serves Gateways of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassSpec {
    /// The controller's name.
    pub controller_name: String,
    /// What the controller is to know besides.
    pub parameters_ref: Option<ObjectReference>,
}

impl Spec for GatewayClassSpec {
    type Status = GatewayClassStatus;
    const SERVED: &'static [Served] = &[
        Served::stable("v1", "GatewayClass", "gatewayclasses"),
        Served::stable("v1beta1", "GatewayClass", "gatewayclasses"),
    ];
}

/// Which controller routes what pods send to Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshSpec {
    /// The controller's name.
    pub controller_name: String,
    /// What the controller is to know besides.
    pub parameters_ref: Option<ObjectReference>,
}

impl Spec for MeshSpec {
    /// It says the same as that of a class.
    type Status = GatewayClassStatus;
    const SERVED: &'static [Served] =
        &[Served { group: TRIAL_GROUP, version: "v1alpha1", kind: "XMesh", plural: "xmeshes" }];
}

/// A way in for traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    pub gateway_class_name: String,
    /// What is listened for.
    pub listeners: Vec<Listener>,
    /// Addresses that are asked for.
    pub addresses: Vec<GatewayAddress>,
    /// What the objects that the controller makes are given.
    pub infrastructure: Option<GatewayInfrastructure>,
    /// Which ListenerSets may add listeners.
    pub allowed_listeners: Option<AllowedListeners>,
    /// TLS of the whole Gateway.
    pub tls: Option<GatewayTls>,
}

impl Spec for GatewaySpec {
    type Status = GatewayStatus;
    const SERVED: &'static [Served] =
        &[Served::stable("v1", "Gateway", "gateways"), Served::stable("v1beta1", "Gateway", "gateways")];
}

/// Listeners that are added to a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetSpec {
    /// The Gateway.
    pub parent_ref: ParentReference,
    /// What is listened for.
    pub listeners: Vec<Listener>,
}

impl Spec for ListenerSetSpec {
    type Status = ListenerSetStatus;
    const SERVED: &'static [Served] = &[
        Served::stable("v1", "ListenerSet", "listenersets"),
        Served { group: TRIAL_GROUP, version: "v1alpha1", kind: "XListenerSet", plural: "xlistenersets" },
    ];
}

/// A port, protocol and name that a Gateway answers to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Name, unique in its object.
    pub name: String,
    /// Host name or `*.` and a suffix; any if unset.
    pub hostname: Option<String>,
    pub port: i64,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP` or `UDP`.
    pub protocol: String,
    /// Certificates.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    pub allowed_routes: Option<AllowedRoutes>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    /// `Terminate`, which is the default, or `Passthrough`.
    pub mode: Option<String>,
    /// Secrets with a certificate and its key.
    pub certificate_refs: Vec<ObjectReference>,
    /// Settings of a controller.
    pub options: BTreeMap<String, String>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    /// From where; from the listener's namespace if unset.
    pub namespaces: Option<FromNamespaces>,
    /// Of which kinds; those that suit the protocol if empty.
    pub kinds: Vec<RouteGroupKind>,
}

/// Which ListenerSets may attach to a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedListeners {
    /// From where; from nowhere if unset.
    pub namespaces: Option<FromNamespaces>,
}

/// A choice of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FromNamespaces {
    /// `All`, `Selector`, `Same` or `None`.
    pub from: Option<String>,
    /// With `Selector`.
    pub selector: Option<LabelSelector>,
}

/// An address that a Gateway asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayAddress {
    /// `IPAddress`, which is the default, `Hostname`, or a controller's own.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Any of the type if unset.
    pub value: Option<String>,
}

/// What the objects that are made for a Gateway are given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayInfrastructure {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// What the controller is to know besides, in the Gateway's namespace.
    pub parameters_ref: Option<ObjectReference>,
}

/// TLS of a whole Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTls {
    /// Towards backends.
    pub backend: Option<GatewayBackendTls>,
    /// Towards clients.
    pub frontend: Option<FrontendTls>,
}

/// TLS of a Gateway towards backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayBackendTls {
    /// Secret with the certificate that the Gateway shows.
    pub client_certificate_ref: Option<ObjectReference>,
}

/// TLS of a Gateway towards clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTls {
    /// For HTTPS listeners on ports that have nothing else.
    pub default: FrontendTlsConfig,
    pub per_port: Vec<FrontendTlsPort>,
}

/// TLS of a port towards clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTlsPort {
    pub port: i64,
    /// What holds there.
    pub tls: FrontendTlsConfig,
}

/// What is asked of clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTlsConfig {
    /// How certificates of clients are judged; none is asked for if unset.
    pub validation: Option<FrontendTlsValidation>,
}

/// How certificates of clients are judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTlsValidation {
    /// ConfigMaps with the authorities' certificates.
    #[serde(rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// `AllowValidOnly`, which is the default, or `AllowInsecureFallback`.
    pub mode: Option<String>,
}
