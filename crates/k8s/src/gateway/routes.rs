// SPDX-License-Identifier: Apache-2.0
//! The kinds of routes.

use super::object::{Served, Spec};
use super::{BackendRef, HttpRule, ParentReference, RouteStatus};
use serde::{Deserialize, Serialize};

/// Routes HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteSpec {
    /// What it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Host names; those of the listener if empty.
    pub hostnames: Vec<String>,
    pub rules: Vec<HttpRule>,
}

impl Spec for HttpRouteSpec {
    type Status = RouteStatus;
    const SERVED: &'static [Served] =
        &[Served::stable("v1", "HTTPRoute", "httproutes"), Served::stable("v1beta1", "HTTPRoute", "httproutes")];
}

/// Routes gRPC calls. Its rules differ from those of [`HttpRouteSpec`] in their matches alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    /// What it attaches to.
    pub parent_refs: Vec<ParentReference>,
    /// Host names; those of the listener if empty.
    pub hostnames: Vec<String>,
    pub rules: Vec<super::GrpcRule>,
}

impl Spec for GrpcRouteSpec {
    type Status = RouteStatus;
    const SERVED: &'static [Served] =
        &[Served::stable("v1", "GRPCRoute", "grpcroutes"), Served::stable("v1alpha2", "GRPCRoute", "grpcroutes")];
}

macro_rules! stream_route {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $plural:literal, [$($version:literal),*]) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            /// What it attaches to.
            pub parent_refs: Vec<ParentReference>,
            /// Names of servers, where the protocol tells them; those of the listener if empty.
            pub hostnames: Vec<String>,
            /// Rules, of which the first counts.
            pub rules: Vec<StreamRule>,
        }

        impl Spec for $name {
            type Status = RouteStatus;
            const SERVED: &'static [Served] = &[$(Served::stable($version, $kind, $plural)),*];
        }
    };
}

stream_route! {
    /// Routes TLS connections by the name of the server.
    TlsRouteSpec, "TLSRoute", "tlsroutes", ["v1", "v1alpha3", "v1alpha2"]
}
stream_route! {
    /// Routes TCP connections.
    TcpRouteSpec, "TCPRoute", "tcproutes", ["v1", "v1alpha2"]
}
stream_route! {
    /// Routes UDP datagrams.
    UdpRouteSpec, "UDPRoute", "udproutes", ["v1", "v1alpha2"]
}

/// Where connections or datagrams go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRule {
    pub name: Option<String>,
    /// Where they go.
    pub backend_refs: Vec<BackendRef>,
}
