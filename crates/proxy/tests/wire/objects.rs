// SPDX-License-Identifier: Apache-2.0
//! Objects, as short as can be.

use l7::{
    Attachment, Backend, BackendProtocol, Cluster, ClusterLimits, Endpoint, Endpoints, Forward, HttpForward,
    HttpServer, Limits, Listener, Object, Route, RouteAction, RouteMatch, Serve, TableRef,
};
use std::net::SocketAddr;

pub(crate) fn listener(address: SocketAddr, serve: Serve) -> Listener {
    Listener {
        name: format!("listener-{address}").into(),
        address,
        port: None,
        transparent: false,
        clear: None,
        node: false,
        proxy_protocol: false,
        limits: Limits::default(),
        serve,
        sources: Vec::new(),
    }
}

/// Everything of table `t`.
pub(crate) fn site() -> HttpServer {
    HttpServer { tables: vec![TableRef { host: "*".parse().unwrap(), table: "t".into() }], ..HttpServer::default() }
}

pub(crate) fn http(address: SocketAddr) -> Listener {
    listener(address, Serve::Http(site()))
}

pub(crate) fn route(name: &str, path: &str, action: RouteAction) -> Route {
    Route::plain(name, Attachment::any("t"), [RouteMatch::below(path)], action)
}

pub(crate) fn to(cluster: &str, weight: u32) -> Backend {
    Backend::to(cluster, weight)
}

pub(crate) fn forward(cluster: &str) -> HttpForward {
    HttpForward { backends: vec![to(cluster, 1)], ..HttpForward::default() }
}

pub(crate) fn bytes_to(cluster: &str) -> Forward {
    Forward { route: "bytes".into(), backends: vec![to(cluster, 1)] }
}

pub(crate) fn cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        protocol: BackendProtocol::Auto,
        tls: None,
        proxy_protocol: None,
        by_client: false,
        limits: ClusterLimits::default(),
        refuse: None,
    }
}

pub(crate) fn endpoints(cluster: &str, addresses: &[SocketAddr]) -> Endpoints {
    let endpoint =
        |address: &SocketAddr| Endpoint { address: *address, state: Default::default(), zone: None, identity: 7 };
    Endpoints { cluster: cluster.into(), prefer_zone: None, endpoints: addresses.iter().map(endpoint).collect() }
}

/// A listener whose requests all go to one backend.
pub(crate) fn simple(address: SocketAddr, backend: SocketAddr) -> Vec<Object> {
    vec![
        http(address).into(),
        route("all", "/", RouteAction::Forward(forward("c"))).into(),
        cluster("c").into(),
        endpoints("c", &[backend]).into(),
    ]
}
