// SPDX-License-Identifier: Apache-2.0
//! Where the metrics are served: in plain text, or with TLS, and then never without. Certificates may come late and change at any time.

use crate::server::{CertificateEnd, Certificates, Problems, ServeError, TlsFiles, note};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use surface::Connections;
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
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) {
    let Some(files) = tls else { return surface::serve_metrics(address, render).await };
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
        let Err(error) = encrypted(address, &certificates, render.clone()).await;
        note(&problems, METRICS, &format!("metrics of flows are not served: {error}"));
        tokio::time::sleep(pace).await;
    }
}

async fn encrypted(
    address: SocketAddr,
    certificates: &Certificates<'_>,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<Infallible, ServeError> {
    let (used, config) = certificates.read().await?;
    let listener = surface::listen(address).await;
    let listener = listener.map_err(|source| ServeError::Listen { address: address.to_string(), source })?;
    certificates.problems.lock().remove(METRICS);
    let latest = config.subscribe();
    tokio::select! {
        never = accept(listener, latest, render) => Ok(never),
        never = certificates.renew(used, config) => Ok(never),
    }
}

async fn accept(
    listener: TcpListener,
    latest: watch::Receiver<Arc<ServerConfig>>,
    render: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Infallible {
    let answer = |stream| answer(TlsAcceptor::from(Arc::clone(&latest.borrow())), stream, render.clone());
    Connections::of_pages().accept(listener, answer).await
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream, render: impl Fn() -> String + Clone + Send + Sync + 'static) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => surface::serve_connection(stream, surface::metrics_page(render)).await,
        Ok(Err(error)) => tracing::debug!(%error, "refused a client of the metrics"),
        Err(_) => {}
    }
}
