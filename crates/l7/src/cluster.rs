// SPDX-License-Identifier: Apache-2.0
//! Where requests go: the endpoints behind one port of a Service, and how they are spoken to.

use crate::compact::exact;
use crate::{Name, time};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// How the endpoints of one port of a Service are spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// What [`crate::Target`]s and [`Endpoints`] refer to.
    pub name: Name,
    /// Which HTTP.
    #[serde(default)]
    pub protocol: BackendProtocol,
    /// Whether they are spoken to in TLS.
    #[serde(default)]
    pub tls: Option<BackendTls>,
    /// Whether each connection begins with a PROXY header that tells of the client.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What the proxy may take of them.
    #[serde(default)]
    pub limits: ClusterLimits,
    /// Whether all that comes from one address goes to one endpoint, as long as it is there and well.
    #[serde(default)]
    pub by_client: bool,
    /// The status with which requests are answered instead of forwarded: what the cluster is configured by is invalid.
    #[serde(default)]
    pub refuse: Option<u16>,
}

/// Which HTTP backends are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendProtocol {
    /// What they choose in TLS; in clear HTTP/2 for gRPC, and HTTP/1.1 otherwise.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, in clear with prior knowledge.
    Http2,
}

/// How backends prove who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTls {
    /// The name in the hello, and what the certificate must be for unless `names` says otherwise.
    pub hostname: String,
    /// Names of which the certificate must have one.
    #[serde(default)]
    pub names: Vec<PeerName>,
    /// Who must have signed it.
    pub trust: Trust,
    /// Name of the [`crate::Certificate`] that the proxy shows.
    #[serde(default)]
    pub certificate: Option<Name>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerName {
    /// A host name.
    Hostname(String),
    /// A URI, such as a SPIFFE ID.
    Uri(String),
}

/// Who is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// The authorities that the proxy's image comes with.
    System,
    /// These [`crate::TrustAnchors`].
    Anchors(Vec<Name>),
}

/// A version of the PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What the proxy may take of a cluster. Each is counted in metrics when it is hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterLimits {
    /// Connections; above it requests wait, or the answer is 503.
    pub connections: u32,
    /// Requests that wait for a connection at a time; above it the answer is 503.
    pub waiting: u32,
    /// Requests at a time; above it the answer is 503.
    pub requests: u32,
    /// Requests that are sent again at a time; above it there is no other attempt. None: as many as their routes allow.
    pub retries: Option<u32>,
    /// Time for a connection, TLS included.
    #[serde(with = "time")]
    pub connect: Duration,
    /// How long a connection without a request is kept.
    #[serde(with = "time")]
    pub idle: Duration,
}

impl Default for ClusterLimits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            waiting: 0,
            requests: 100_000,
            retries: None,
            connect: Duration::from_secs(2),
            idle: Duration::from_secs(60),
        }
    }
}

/// The endpoints of a cluster. They change more often than the cluster does, so they travel apart from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Name of the [`Cluster`].
    pub cluster: Name,
    /// The zone whose endpoints are preferred, if the Service asks for that: this node's, or what stands for the node alone.
    #[serde(default)]
    pub prefer_zone: Option<Name>,
    /// All of them.
    #[serde(deserialize_with = "exact")]
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it takes requests.
    #[serde(default)]
    pub state: EndpointState,
    /// Its zone, or the one that it is to serve.
    #[serde(default)]
    pub zone: Option<Name>,
    /// Its security identity, for the access log.
    #[serde(default)]
    pub identity: u32,
}

/// Whether an endpoint takes requests (Kubernetes' conditions `ready`, `serving`, `terminating`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EndpointState {
    /// It does.
    #[default]
    Ready,
    /// It still does, but is about to end: it gets requests if none is ready.
    Terminating,
    /// It does not.
    Unready,
}
