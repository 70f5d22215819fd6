// SPDX-License-Identifier: Apache-2.0
//! Sockets and certificates.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::bind_socket;
use crate::client::{Server, Tls};
use crate::proto::observer::ServerStatusRequest;
use crate::proto::observer::observer_client::ObserverClient;
use crate::{Config, Inputs, TlsFiles, fixture};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use statedb::Tasks;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const NAME: &str = "n1.default.hubble-grpc.cilium.io";

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/hubble.sock");
    drop(bind_socket(&path).unwrap());
    std::fs::write(path.with_extension("new"), "left by a crash").unwrap();
    let _listener = bind_socket(&path).unwrap();
    tokio::net::UnixStream::connect(&path).await.unwrap();
}

/// A certificate for the name, and its key, as PEM.
fn certificate(authority: &Issuer<'_, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn config(dir: &Path, listen: SocketAddr) -> Config {
    let file = |name: &str| dir.join(name);
    let tls = TlsFiles {
        certificate: file("server.crt"),
        key: file("server.key"),
        client_authorities: vec![file("client-ca.crt")],
    };
    Config { enabled: true, listen: Some(listen), socket: file("hubble.sock"), tls: Some(tls), ..Config::default() }
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_authority_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let (server, server_key) = certificate(&issuer);
    for (name, text) in [("server.crt", &server), ("server.key", &server_key), ("client-ca.crt", &authority)] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let listen = free_port();
    let tasks = Tasks::new(CancellationToken::new());
    let _outputs = crate::start(config(dir.path(), listen), Inputs { tables: fixture::tables().tables }, &tasks);
    let (client, client_key) = certificate(&issuer);
    let server = |identity| Server {
        address: listen.to_string(),
        tls: Some(Tls { authorities: authority.clone().into_bytes(), server_name: Some(NAME.to_owned()), identity }),
        timeout: None,
    };
    let known = server(Some((client.into_bytes(), client_key.into_bytes())));
    let answer = timeout(Duration::from_secs(10), async {
        loop {
            if let Ok(channel) = known.connect().await {
                break ObserverClient::new(channel).server_status(ServerStatusRequest {}).await;
            }
            tokio::task::yield_now().await;
        }
    });
    answer.await.unwrap().unwrap();
    // The server refuses after its part of the handshake, so it may be the first request that fails.
    let stranger = match server(None).connect().await {
        Ok(channel) => ObserverClient::new(channel).server_status(ServerStatusRequest {}).await.is_ok(),
        Err(_) => false,
    };
    assert!(!stranger);
}

#[tokio::test]
async fn missing_certificates_are_a_problem_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = Tasks::new(CancellationToken::new());
    let tables = fixture::tables().tables;
    let outputs = crate::start(config(dir.path(), free_port()), Inputs { tables }, &tasks);
    let problem = timeout(Duration::from_secs(10), async {
        loop {
            match outputs.status.problems().into_iter().next() {
                Some(problem) => break problem,
                None => tokio::task::yield_now().await,
            }
        }
    });
    assert!(problem.await.unwrap().contains("server.crt"));
}
