// SPDX-License-Identifier: Apache-2.0
//! Where the metrics are served: in plain text, or with TLS, and then never without. Certificates may come late and change at any time.

use crate::server::{CertificateEnd, Certificates, Problems, ServeError, TlsFiles, note};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use surface::{Connections, Router};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The name among problems.
const METRICS: &str = "metrics";
const CERTIFICATE: &str = "certificate of the metrics";
/// HTTP's name in the handshake.
const HTTP: &[u8] = b"http/1.1";
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves for ever.
pub(crate) async fn serve(
    address: SocketAddr,
    tls: Option<TlsFiles>,
    problems: Problems,
    pace: Duration,
    render: impl Fn(bool) -> String + Clone + Send + Sync + 'static,
) {
    let page = surface::negotiated_page(render);
    let Some(files) = tls else { return surface::serve_at(address, page).await };
    let end = CertificateEnd::default();
    let certificates = Certificates {
        files: &files,
        protocol: HTTP,
        listener: METRICS,
        ending: CERTIFICATE,
        problems: &problems,
        end: &end,
        pace,
    };
    loop {
        let Err(error) = encrypted(address, &certificates, &page).await;
        note(&problems, METRICS, &format!("metrics of flows are not served: {error}"));
        tokio::time::sleep(pace).await;
    }
}

async fn encrypted(
    address: SocketAddr,
    certificates: &Certificates<'_>,
    page: &Router,
) -> Result<Infallible, ServeError> {
    let (used, config) = certificates.read().await?;
    let listener = surface::listen(address).await;
    let listener = listener.map_err(|source| ServeError::Listen { address: address.to_string(), source })?;
    certificates.problems.lock().remove(METRICS);
    let latest = config.subscribe();
    tokio::select! {
        never = accept(listener, latest, page) => Ok(never),
        never = certificates.renew(used, config) => Ok(never),
    }
}

async fn accept(listener: TcpListener, latest: watch::Receiver<Arc<ServerConfig>>, page: &Router) -> Infallible {
    let answer = |stream| answer(TlsAcceptor::from(Arc::clone(&latest.borrow())), stream, page.clone());
    Connections::of_pages().accept(listener, answer).await
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream, page: Router) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => surface::serve_connection(stream, page).await,
        Ok(Err(error)) => tracing::debug!(%error, "refused a client of the metrics"),
        Err(_) => {}
    }
}
