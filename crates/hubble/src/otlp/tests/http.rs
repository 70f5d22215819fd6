// SPDX-License-Identifier: Apache-2.0
//! A collector that speaks HTTP, and what is shown to it.

use super::super::target::Protocol;
use super::{Address, DEADLINE, FLOWS, Running, Target, anywhere, start_to, target, until};
use crate::proto::opentelemetry::logs_service_server::LogsServiceServer;
use crate::proto::opentelemetry::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use crate::server::{TlsFile, TlsFiles, tls};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// Where the collector takes logs: it has another place at its root.
const LOGS: &str = "/otlp/v1/logs";
const SECRET: &str = "Bearer hush-hush";

/// Takes what there is no other answer for.
#[derive(Clone, Default)]
struct Collector {
    answers: Arc<Mutex<VecDeque<(StatusCode, &'static str)>>>,
    heard: Arc<Mutex<Vec<HeaderMap>>>,
    flows: Arc<Mutex<u64>>,
}

impl Collector {
    async fn serve(&self) -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind(anywhere()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route(LOGS, post(take)).with_state(self.clone());
        let serve = async move { axum::serve(listener, routes).await.unwrap() };
        (address, AbortOnDropHandle::new(tokio::spawn(serve)))
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Response {
    collector.heard.lock().push(headers);
    if let Some((status, text)) = collector.answers.lock().pop_front() {
        return (status, [("retry-after", "0")], text).into_response();
    }
    let request = ExportLogsServiceRequest::decode(body).unwrap();
    let scopes = request.resource_logs.iter().flat_map(|logs| &logs.scope_logs);
    let flows = scopes.flat_map(|scope| &scope.log_records).filter(|record| record.event_name == "hubble.flow");
    *collector.flows.lock() += flows.count() as u64;
    ExportLogsServiceResponse { partial_success: None }.encode_to_vec().into_response()
}

fn over_http(address: SocketAddr) -> Target {
    Target { protocol: Protocol::Http, ..target(&format!("http://{address}{LOGS}")) }
}

/// All that was pushed has come, in flows.
async fn arrives(running: &Running, collector: &Collector, before: u64) -> u64 {
    let pushed = before + running.push_until(|| running.counts.taken.get() > before * FLOWS).await;
    until(|| running.counts.taken.get() + running.lost("refused") == pushed * FLOWS).await;
    assert_eq!(*collector.flows.lock(), running.counts.taken.get());
    pushed
}

#[tokio::test]
async fn a_collector_that_speaks_http_gets_each_flow_once_and_is_asked_again_when_it_says_so() {
    let collector = Collector::default();
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    collector.answers.lock().extend(busy.map(|status| (status, "later\u{1b}[2J")));
    let (address, _serving) = collector.serve().await;
    let running = start_to(over_http(address), 4095).await;
    let early = running.push_until(|| running.problem().is_some()).await;
    let problem = running.problem().unwrap();
    assert!(problem.ends_with(": later[2J"), "{problem:?}");
    arrives(&running, &collector, early).await;
    assert_eq!(["overwritten", "refused", "rejected"].map(|why| running.lost(why)), [0; 3]);
    assert_eq!(running.problem(), None);
    let heard = collector.heard.lock().pop().unwrap();
    assert_eq!(heard["content-type"], "application/x-protobuf");
    assert_eq!(heard["host"], address.to_string());
}

#[tokio::test]
async fn what_it_refuses_is_counted_and_not_sent_again() {
    let collector = Collector::default();
    collector.answers.lock().push_back((StatusCode::BAD_REQUEST, "no such thing"));
    let (address, _serving) = collector.serve().await;
    let running = start_to(over_http(address), 4095).await;
    let early = running.push_until(|| running.lost("refused") > 0).await;
    assert!(running.problem().unwrap().contains("400 Bad Request: no such thing; flows are lost"));
    arrives(&running, &collector, early).await;
    assert!(running.lost("refused") > 0);
}

async fn until_problem(running: &Running, part: &str) {
    running.push_until(|| running.problem().is_some_and(|problem| problem.contains(part))).await;
}

/// As a Secret is mounted: behind a link.
fn secret(folder: &Path, name: &str, text: &str) {
    let data = folder.join("..data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join(name), text).unwrap();
    let _ = std::os::unix::fs::symlink(format!("..data/{name}"), folder.join(name));
}

#[tokio::test]
async fn headers_of_a_secret_go_with_each_request_as_they_are_then_and_into_no_message() {
    let folder = tempfile::tempdir().unwrap();
    secret(folder.path(), "authorization", &format!("{SECRET}\n"));
    secret(folder.path(), "x-tenant", "blue");
    let collector = Collector::default();
    let (address, _serving) = collector.serve().await;
    let target = Target { headers: Some(folder.path().to_owned()), ..over_http(address) };
    assert!(!format!("{:?}", target.headers().await.unwrap()).contains("hush"), "printed by accident");
    let running = start_to(target, 4095).await;
    running.push_until(|| !collector.heard.lock().is_empty()).await;
    let heard = collector.heard.lock().pop().unwrap();
    assert_eq!((&heard["authorization"], &heard["x-tenant"]), (&SECRET.parse().unwrap(), &"blue".parse().unwrap()));

    secret(folder.path(), "authorization", "Bearer next");
    let last = |collector: &Collector| collector.heard.lock().last().map(|heard| heard["authorization"].clone());
    running.push_until(|| last(&collector).is_some_and(|value| value == "Bearer next")).await;
    for (name, text, said) in [
        ("x-odd", "hush\nhush", "x-odd: it has what no header can have"),
        ("grpc-timeout", "hush", "grpc-timeout: this header is the protocol's own"),
        ("x bad", "hush", "x bad: this cannot be the name of a header"),
    ] {
        secret(folder.path(), name, text);
        until_problem(&running, said).await;
        assert!(!running.problem().unwrap().contains("hush"), "{:?}", running.problem());
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    // Nothing is sent without them.
    for name in ["authorization", "x-tenant"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    until_problem(&running, "there is no header in it").await;
    assert!(collector.heard.lock().iter().all(|heard| heard.contains_key("authorization")));
}

/// A certificate for the address, its key, and the authority that signed it, in a folder.
fn certificates(folder: &Path, issuer: &Issuer<'_, KeyPair>, authority: &str) -> [PathBuf; 3] {
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    let texts = [("tls.crt", signed.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authority.to_owned())];
    texts.map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    })
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// Serves those who have a certificate of the authority, by either protocol.
async fn serve_encrypted(
    grpc: super::Collector,
    http: Collector,
    protocol: Protocol,
    [certificate, key, ca]: [PathBuf; 3],
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let file = |path| TlsFile { option: "test", path };
    let files = TlsFiles { certificate: file(certificate), key: file(key), client_authorities: vec![file(ca)] };
    let alpn: &[u8] = if protocol == Protocol::Grpc { b"h2" } else { b"http/1.1" };
    let config = tls::read(&files).await.unwrap().config(&files, alpn).unwrap();
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = match protocol {
        Protocol::Grpc => tonic::service::Routes::new(LogsServiceServer::new(grpc)).into_axum_router(),
        Protocol::Http => Router::new().route(LOGS, post(take)).with_state(http),
    };
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, routes) = (TlsAcceptor::from(Arc::clone(&config)), routes.clone());
            tokio::spawn(async move {
                // Who has no certificate is let go.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(routes);
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    };
    (address, AbortOnDropHandle::new(tokio::spawn(serve)))
}

#[tokio::test]
async fn a_collector_that_asks_for_a_certificate_is_shown_the_one_there_is_then() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (issuer, pem) = authority();
        let [server, client] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (grpc, http) = (super::Collector::default(), Collector::default());
        let files = certificates(server.path(), &issuer, &pem);
        let (address, _serving) = serve_encrypted(grpc.clone(), http.clone(), protocol, files).await;
        // At first, one that another authority has signed.
        let (stranger, _) = authority();
        let [certificate, key, ca] = certificates(client.path(), &stranger, &pem);
        let path = if protocol == Protocol::Http { LOGS } else { "" };
        let target = Target {
            address: <Address as model::config::Value>::parse(&format!("https://{address}{path}")).unwrap(),
            protocol,
            authorities: Some(ca),
            identity: Some((certificate, key)),
            ..target("http://127.0.0.1:1")
        };
        let running = start_to(target, 4095).await;
        running.push_until(|| running.problem().is_some()).await;
        assert_eq!(running.counts.taken.get(), 0);
        certificates(client.path(), &issuer, &pem);
        tokio::time::timeout(DEADLINE, running.push_until(|| running.counts.taken.get() > 0)).await.unwrap();
        until(|| running.problem().is_none()).await;
        assert_eq!(grpc.flows() + *http.flows.lock(), running.counts.taken.get());
    }
}
