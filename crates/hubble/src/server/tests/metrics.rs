// SPDX-License-Identifier: Apache-2.0
//! Metrics of flows with TLS.

use super::{Authority, DEADLINE, FILES, NAME, files, install, until};
use crate::metrics::serve;
use crate::pem;
use crate::server::{Problems, TlsFiles};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

const ASKED: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

struct Served {
    dir: tempfile::TempDir,
    address: SocketAddr,
    problems: Problems,
    _serving: AbortOnDropHandle<()>,
}

impl Served {
    /// With the files of this authority; clients need a certificate of it if it is mutual.
    fn start(authority: Option<&Authority>, mutual: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, ports::free()));
        authority.inspect(|authority| install(dir.path(), authority));
        let mut tls: TlsFiles = files(dir.path());
        if !mutual {
            tls.client_authorities.clear();
        }
        let problems = Problems::default();
        let pace = Duration::from_millis(20);
        let serving = serve(address, Some(tls), Arc::clone(&problems), pace, |_| "hubble_flows 1\n".to_owned());
        Self { dir, address, problems, _serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// Whether a client gets the metrics that trusts one authority and has a certificate of, perhaps, another one.
    async fn answers(&self, trusted: &Authority, own: Option<&Authority>) -> bool {
        let mut store = RootCertStore::empty();
        pem::trust(&mut store, trusted.pem.as_bytes()).unwrap();
        let builder = ClientConfig::builder_with_provider(pem::provider()).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(store);
        let config = match own.map(Authority::sign) {
            Some((certificate, key)) => {
                let chain = pem::certificates(certificate.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, pem::key(key.as_bytes()).unwrap()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let Ok(stream) = TcpStream::connect(self.address).await else { return false };
        let name = ServerName::try_from(NAME).unwrap();
        match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(stream) => ask(stream).await.contains("hubble_flows 1"),
            Err(_) => false,
        }
    }

    fn problem(&self, parts: &[&str]) -> bool {
        self.problems.lock().values().any(|problem| parts.iter().all(|part| problem.contains(part)))
    }
}

/// What is answered, as far as it goes.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(ASKED).await?;
        stream.read_to_end(&mut answer).await
    };
    let _ = timeout(DEADLINE, talk).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn metrics_with_tls_are_never_served_without() {
    let ours = Authority::new();
    let served = Served::start(Some(&ours), false);
    until("metrics", async || served.answers(&ours, None).await).await;
    let plain = ask(TcpStream::connect(served.address).await.unwrap()).await;
    assert!(!plain.contains("hubble_flows"), "{plain}");
    assert!(!served.answers(&Authority::new(), None).await, "a client believes its own authority only");
}

#[tokio::test]
async fn with_authorities_of_clients_only_theirs_read_metrics() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let served = Served::start(Some(&ours), true);
    until("metrics", async || served.answers(&ours, Some(&ours)).await).await;
    assert!(!served.answers(&ours, None).await);
    assert!(!served.answers(&ours, Some(&theirs)).await);
}

#[tokio::test]
async fn certificates_of_metrics_may_come_late_and_are_renewed_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let served = Served::start(None, true);
    until("a problem", async || served.problem(&["metrics of flows are not served", FILES[0]])).await;
    TcpStream::connect(served.address).await.unwrap_err();
    install(served.dir.path(), &old);
    until("metrics", async || served.answers(&old, Some(&old)).await).await;
    assert!(!served.problem(&["metrics"]), "{:?}", served.problems.lock());
    install(served.dir.path(), &new);
    until("metrics with the new ones", async || served.answers(&new, Some(&new)).await).await;
    assert!(!served.answers(&new, Some(&old)).await);
    std::fs::write(served.dir.path().join(FILES[1]), "no key").unwrap();
    until("a problem", async || served.problem(&["metrics", FILES[1], "stay in use"])).await;
    assert!(served.answers(&new, Some(&new)).await);
}
