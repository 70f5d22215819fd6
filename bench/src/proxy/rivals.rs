// SPDX-License-Identifier: Apache-2.0
//! The others, and the backend: Envoy, and nginx with kept connections to the backend. `scripts/bootstrap --bench` installs them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Contestant, Ports, clock, last_cpu, local, made, on};
use crate::run::Running;

const BACKEND: u16 = 18_080;
const ENVOY: Ports = Ports { http1: 18_180, http2: 18_180, tls: 18_182 };
const NGINX: Ports = Ports { http1: 18_280, http2: 18_281, tls: 18_282 };

/// The certificate that all show.
pub(super) fn certificate(folder: &Path) -> Result<()> {
    let arguments =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let files = ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"];
    made(folder, "openssl", &[&arguments[..], &files].concat())
}

/// A server that answers everything at once: in clear by HTTP/1.1 and HTTP/2, and in TLS, at three ports in a row.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    _running: Running,
}

impl Backend {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let ports = Ports { http1: BACKEND, http2: BACKEND + 1, tls: BACKEND + 2 };
        let text = nginx_conf(ports, "", "location / { return 200 \"0123456789abcdef\"; }");
        let running = nginx_at(folder, "backend", &text, last_cpu())?;
        let address = local(BACKEND);
        let answers = || std::net::TcpStream::connect(address).map(drop).context("the backend does not listen");
        clock::poll(super::DEADLINE, Duration::from_millis(20), answers)?;
        Ok(Self { address, _running: running })
    }
}

/// What a server of nginx listens at, and what it does.
fn nginx_conf(ports: Ports, upstream: &str, locations: &str) -> String {
    let Ports { http1, http2, tls } = ports;
    format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n access_log off; keepalive_requests 1000000000; client_body_temp_path .; proxy_temp_path .;\n\
         fastcgi_temp_path .; uwsgi_temp_path .; scgi_temp_path .; variables_hash_max_size 4096;\n {upstream}\n\
         server {{\n listen 127.0.0.1:{http1} backlog=4096; listen 127.0.0.1:{http2} http2 backlog=4096;\n\
         listen 127.0.0.1:{tls} ssl http2 backlog=4096;\n ssl_certificate ../cert.pem; ssl_certificate_key ../key.pem;\n\
         {locations}\n }}\n}}\n"
    )
}

fn nginx_at(folder: &Path, name: &str, text: &str, cpu: usize) -> Result<Running> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("nginx.conf"), text)?;
    let started = Running::start(on(cpu, "nginx").arg("-p").arg(&folder).args(["-e", "stderr", "-c", "nginx.conf"]));
    started.context("nginx is installed by scripts/bootstrap --bench")
}

pub(super) fn nginx(folder: &Path, backend: SocketAddr, routes: usize) -> Result<Contestant> {
    let upstream = format!("upstream b {{ server {backend}; keepalive 1024; keepalive_requests 1000000000; }}");
    let pass = "{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; }";
    let mut locations = format!("location / {pass}\n");
    for number in 1..routes {
        writeln!(locations, "location /route-{number}/ {pass}")?;
    }
    let running = nginx_at(folder, "nginx", &nginx_conf(NGINX, &upstream, &locations), 0)?;
    Ok(Contestant { name: "nginx", ports: NGINX, process: Some(running.id()), _running: Box::new(running) })
}

pub(super) fn envoy(folder: &Path, backend: SocketAddr, routes: usize) -> Result<Contestant> {
    let folder = folder.join("envoy");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("envoy.json"), envoy_json(&folder, backend, routes).to_string())?;
    let mut command = on(0, "envoy");
    command.arg("-c").arg(folder.join("envoy.json"));
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
    let running = Running::start(&mut command).context("Envoy is installed by scripts/bootstrap --bench")?;
    Ok(Contestant { name: super::REFERENCE, ports: ENVOY, process: Some(running.id()), _running: Box::new(running) })
}

fn envoy_json(folder: &Path, backend: SocketAddr, routes: usize) -> serde_json::Value {
    use serde_json::json;
    let type_of = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let route = |prefix: String| json!({"match": {"prefix": prefix}, "route": {"cluster": "b"}});
    let mut all: Vec<_> = (1..routes).map(|number| route(format!("/route-{number}/"))).collect();
    all.push(route("/".to_owned()));
    let manager = json!({
        "@type": type_of("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "h", "codec_type": "AUTO", "generate_request_id": true,
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": all}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": type_of("filters.http.router.v3.Router")}}],
    });
    let filters = json!([{"name": "h", "typed_config": manager}]);
    let file = |name: &str| json!({"filename": folder.with_file_name(name)});
    let tls = json!({
        "@type": type_of("transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{"certificate_chain": file("cert.pem"), "private_key": file("key.pem")}],
        },
    });
    let clear = json!({"name": "clear", "address": address(ENVOY.http1), "filter_chains": [{"filters": filters}]});
    let secure = json!({"name": "tls", "address": address(ENVOY.tls),
        "filter_chains": [{"filters": filters, "transport_socket": {"name": "tls", "typed_config": tls}}]});
    let most = json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    let endpoint = json!({"endpoint": {"address": address(backend.port())}});
    json!({"static_resources": {"listeners": [clear, secure], "clusters": [{
        "name": "b", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": "b", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }]}})
}
