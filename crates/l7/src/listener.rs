// SPDX-License-Identifier: Apache-2.0
//! Where clients come in: one listener is one socket.

use crate::route::Forward;
use crate::{HostMatch, Name, time};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// One socket and what is done with whatever arrives at it.
///
/// Several listeners of Gateway API that share a port are one of these: which of them serves a connection or a request is told by its
/// [`TlsServer`]s and [`TableRef`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Shown in logs and metrics.
    pub name: Name,
    /// Where it listens. Of several listeners of a protocol that want one address, one has it.
    pub address: SocketAddr,
    /// The port that clients know it by; none: its own.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether it takes connections to any address that the kernel hands it (`IP_TRANSPARENT`).
    #[serde(default)]
    pub transparent: bool,
    /// The socket is in the node's own network, so the agent opens it ([`crate::link::NodeSockets`]). Otherwise it is in the proxy's.
    #[serde(default)]
    pub node: bool,
    /// Whether each connection begins with a PROXY header (v1 or v2). One that does not is refused.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// What a client may take.
    #[serde(default)]
    pub limits: Limits,
    /// What is spoken.
    pub serve: Serve,
    /// Beside TLS: what is served to clients that begin without it. None: they are refused.
    #[serde(default)]
    pub clear: Option<HttpServer>,
    /// The objects that say so, for whoever asks whether they are in force.
    #[serde(default)]
    pub sources: Vec<Source>,
}

/// An object of Kubernetes that a listener follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Kind, namespace and name.
    pub object: Name,
    /// Which one of those that had the name, one after the other.
    #[serde(default)]
    pub uid: Name,
    /// Which state of it.
    pub generation: i64,
    /// When the Gateway was made, in seconds since 1970. Of two listeners that want one address, the older has it.
    #[serde(default)]
    pub created: i64,
}

/// What is spoken at a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Serve {
    /// HTTP/1.1, and HTTP/2 with prior knowledge, in clear.
    Http(HttpServer),
    /// TLS: the most specific server for the name in the hello takes the connection; without one it is refused.
    Tls(Vec<TlsServer>),
    /// Bytes.
    Tcp(Forward),
    /// Bytes that pods send to a Service. What policy lets each reach counts here too, so a proxy that does not know of it serves nothing
    /// rather than everybody.
    Service(ServiceServer),
    /// Datagrams. Those of one client address go to one backend until it has been quiet for [`Limits::idle`].
    Udp(Forward),
}

/// What is done with the connections for some names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsServer {
    /// Names in the hello. A hello without a name goes to whoever serves [`HostMatch::Any`].
    pub hosts: Vec<HostMatch>,
    /// What is done.
    pub action: TlsAction,
}

/// What is done with a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsAction {
    /// It goes to a backend as it is, hello included.
    Passthrough(Forward),
    /// TLS ends here, and the bytes in it go to a backend.
    Tcp(Termination, Forward),
    /// TLS ends here, and HTTP is in it.
    Http(Termination, HttpServer),
}

/// How TLS of clients ends here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// Names of [`crate::Certificate`]s. The first that is valid for the client's name is shown, otherwise the first.
    pub certificates: Vec<Name>,
    /// Whether clients must show a certificate.
    #[serde(default)]
    pub client: Option<ClientValidation>,
    /// Protocols offered, the preferred one first. None: the client's offer is not answered.
    #[serde(default)]
    pub alpn: Vec<Alpn>,
}

/// A protocol in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Alpn {
    /// HTTP/2.
    #[serde(rename = "h2")]
    Http2,
    /// HTTP/1.1.
    #[serde(rename = "http/1.1")]
    Http1,
}

/// How clients' certificates are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientValidation {
    /// Names of [`crate::TrustAnchors`].
    pub trust: Vec<Name>,
    /// Whether a client without a certificate, or with one that does not verify, is let in all the same.
    #[serde(default)]
    pub allow_unverified: bool,
}

/// How HTTP is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpServer {
    /// The most specific one for the host of a request has its routes; without one the answer is 404.
    pub tables: Vec<TableRef>,
    /// How many proxies before this one are believed what they write into `X-Forwarded-For` and its like.
    #[serde(default)]
    pub trusted_hops: u32,
    /// It is a Service's, for pods: whose client is known ([`crate::Client`]), and may reach what it is sent to ([`crate::Permission`]).
    #[serde(default)]
    pub mesh: Option<Mesh>,
}

/// What pods send to a Service is routed by who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mesh {
    /// Namespaces whose pods have routes of their own, instead of those of the server's tables.
    pub consumers: Vec<Consumer>,
    /// The server's tables are for the pods of other namespaces.
    pub produces: bool,
}

/// Where the bytes go that pods send to a Service: of a pod that is known ([`crate::Client`]), to what it may reach
/// ([`crate::Permission`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceServer {
    /// Where they go.
    pub forward: Forward,
    /// Pods of namespaces with routes of their own speak HTTP instead.
    #[serde(default)]
    pub consumers: Option<HttpServer>,
}

/// A namespace with routes of its own for a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// The namespace.
    pub namespace: Name,
    /// What [`crate::Attachment`]s refer to.
    pub table: Name,
}

/// A set of routes for some hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRef {
    /// The hosts.
    pub host: HostMatch,
    /// What [`crate::Attachment`]s refer to.
    pub table: Name,
}

/// What a client may take of a listener. Each is counted in metrics when it is hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Open connections, or UDP clients. What is above is closed at once, or the oldest connection of whoever has more.
    pub connections: u32,
    /// Streams of one HTTP/2 connection at a time.
    pub streams: u32,
    /// Requests after which a connection is ended.
    pub requests_per_connection: Option<u64>,
    /// Size of a request's line and headers in bytes; above it the answer is 431.
    pub header_bytes: u32,
    /// Number of a request's headers; above it the answer is 431.
    pub headers: u32,
    /// Size of a request's body in bytes; above it the answer is 413.
    pub body_bytes: Option<u64>,
    /// Time for what precedes a request: PROXY header, TLS handshake, and each request's headers.
    #[serde(with = "time")]
    pub header_time: Duration,
    /// Time in which nothing happens: between requests, in a body, in a stream of bytes, and before an answer whose route has no time-out.
    #[serde(with = "time")]
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 50_000,
            streams: 128,
            requests_per_connection: None,
            header_bytes: 60 * 1024,
            headers: 100,
            body_bytes: None,
            header_time: Duration::from_secs(10),
            idle: Duration::from_secs(300),
        }
    }
}
