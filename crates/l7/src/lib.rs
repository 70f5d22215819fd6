// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod certificate;
mod cluster;
mod compact;
mod exchange;
pub mod explain;
mod filter;
mod host;
pub mod link;
mod listener;
mod mesh;
mod object;
pub mod passing;
mod rate_limit;
mod route;
mod socket;
pub mod syntax;
mod time;

pub use certificate::{Certificate, Pem, TrustAnchors};
pub use cluster::{
    BackendProtocol, BackendTls, Cluster, ClusterLimits, Endpoint, EndpointState, Endpoints, PeerName, ProxyProtocol,
    Trust,
};
pub use compact::Rare;
pub use exchange::{Exchange, Outcome, REDACTED};
pub use filter::{Cors, Filters, HeaderChanges, Mirror, Origin, PathChange, Redirect, Rewrite, Share};
pub use host::{HostMatch, ParseHostError};
pub use listener::{
    Alpn, ClientValidation, Consumer, HttpServer, Limits, Listener, Mesh, Serve, ServiceServer, Source, TableRef,
    Termination, TlsAction, TlsServer,
};
pub use mesh::{Client, Permission, Server};
pub use object::{Key, Kind, Object, Snapshot, Update, Version};
pub use rate_limit::RateLimit;
pub use route::{
    Answer, Attachment, Backend, Forward, HttpForward, PathMatch, Persistence, Precedence, Retry, RetryBudget, Route,
    RouteAction, RouteMatch, Target, TokenKey, ValueMatch,
};
pub use socket::{BACKLOG, Place};

use std::sync::Arc;

/// Name of an object, unique among those of its kind. What it says is the producer's affair; it is shown to users.
pub type Name = Arc<str>;
