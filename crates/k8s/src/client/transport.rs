// SPDX-License-Identifier: Apache-2.0
//! Connections to one API server: requests share one over HTTP/2 where supported, and silently dead ones are detected
//! and closed.

use super::limits::Limits;
use super::retry::Retry;
use hyper::Request;
use hyper::header::UPGRADE;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Error;
use kube::client::{Body, ConfigExt};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;

type Connector = TimeoutConnector<HttpsConnector<HttpConnector>>;

/// Versions of HTTP that may be agreed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Versions {
    All,
    /// A connection that is taken over for another protocol (exec, port-forward) cannot be shared.
    Http1,
}

/// A client of one server.
pub(super) fn client(config: &kube::Config, limits: &Limits) -> kube::Result<kube::Client> {
    if let Some(proxy_url) = config.proxy_url.clone() {
        return Err(Error::ProxyProtocolDisabled { proxy_url, protocol_feature: "kube/http-proxy" });
    }
    let shared = http(connector(config, limits, Versions::All)?, limits);
    let upgraded = http(connector(config, limits, Versions::Http1)?, limits);
    let send = tower::service_fn(move |request: Request<Body>| {
        if request.headers().contains_key(UPGRADE) { upgraded.request(request) } else { shared.request(request) }
    });
    let retry = Retry::new().map_err(|error| Error::Service(error.into()))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(DecompressionLayer::new().gzip(!config.disable_compression))
        .layer(RetryLayer::new(retry))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(send);
    Ok(kube::Client::new(service, config.default_namespace.clone()))
}

fn http(connector: Connector, limits: &Limits) -> Client<Connector, Body> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(limits.silence)
        .http2_keep_alive_timeout(limits.probe)
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

fn connector(config: &kube::Config, limits: &Limits, versions: Versions) -> kube::Result<Connector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // HTTP/1 has no pings of its own.
    tcp.set_keepalive(Some(limits.silence));
    tcp.set_keepalive_interval(Some(limits.probe));
    tcp.set_keepalive_retries(Some(1));
    tcp.set_tcp_user_timeout(Some(limits.silence.saturating_add(limits.probe)));
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name =
            name.try_into().map_err(kube::client::RustlsTlsError::InvalidServerName).map_err(Error::RustlsTls)?;
        builder = builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
    }
    let mut connector = TimeoutConnector::new(match versions {
        Versions::All => builder.enable_all_versions().wrap_connector(tcp),
        Versions::Http1 => builder.enable_http1().wrap_connector(tcp),
    });
    connector.set_connect_timeout(Some(limits.connect));
    Ok(connector)
}
