// SPDX-License-Identifier: Apache-2.0
//! Listening: on a socket for this node, and on the network for relays.

mod certificates;
mod greeting;
mod places;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

use crate::{pem, proto};
pub(crate) use certificates::Certificates;
use futures::{Stream, StreamExt};
use greeting::{Greeted, Lobby};
use parking_lot::Mutex;
use places::Places;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tls::TlsError;
pub use tls::{TlsFile, TlsFiles};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Router;

/// Timeouts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Delay between attempts to listen, and between checks of the certificates: the kubelet refreshes a mounted Secret
    /// within a minute or so.
    pub(crate) pace: Duration,
    /// For a client to complete its handshake and start talking.
    pub(crate) greeting: Duration,
    /// Until a silent client is pinged, and then for its reply.
    pub(crate) silence: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [pace, greeting, silence] = [5, 10, 15].map(Duration::from_secs);
        Self { pace, greeting, silence }
    }
}

/// The names of the listeners among problems.
const SOCKET: &str = "socket";
const NETWORK: &str = "network";
/// The name of a certificate that ends soon.
const CERTIFICATE: &str = "certificate";

/// After a connection could not be accepted.
const BREATH: Duration = Duration::from_millis(100);

/// Why flows are not served somewhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The socket or port could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// There are no usable certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Serving ended.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

/// Current problems, by listener.
pub(crate) type Problems = Arc<Mutex<BTreeMap<Cow<'static, str>, String>>>;

/// Shows a problem in the status, or that there is none any more, and logs it when it is new.
pub(crate) fn report(problems: &Problems, of: impl Into<Cow<'static, str>>, problem: Option<String>) {
    let (mut problems, of) = (problems.lock(), of.into());
    match problem {
        None => drop(problems.remove(&of)),
        Some(problem) => {
            let text = format!("{of}: {problem}");
            if !problems.contains_key(&of) {
                tracing::warn!("{text}");
            }
            problems.insert(of, text);
        }
    }
}

/// Serves the same to everybody, over and over: a listener that fails is opened again.
#[derive(Clone)]
pub struct Listeners {
    pub(crate) routes: Routes,
    pub(crate) problems: Problems,
    pub(crate) times: Times,
    pub(crate) certificate_end: CertificateEnd,
}

/// When the certificate of the network listener expires. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CertificateEnd(Gauge);

impl CertificateEnd {
    /// Adds the metric to a page.
    pub fn register(&self, registry: &mut Registry) {
        let help = "When the certificate of the flow server on the network expires, in seconds since 1970";
        registry.register("hubble_certificate_end_timestamp_seconds", help, self.0.clone());
    }
}

/// Adds server reflection for these gRPC services.
#[must_use]
#[expect(clippy::expect_used, reason = "the build script made these bytes")]
pub fn with_reflection(routes: Routes, services: &[&str]) -> Routes {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        services.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let current = builder().build_v1().expect("descriptors of the protocol");
    // Older clients use only this one.
    let alpha = builder().build_v1alpha().expect("descriptors of the protocol");
    routes.add_service(current).add_service(alpha)
}

impl Listeners {
    /// Serves these.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self {
            routes,
            problems: Problems::default(),
            times: Times::default(),
            certificate_end: CertificateEnd::default(),
        }
    }

    /// Serves the socket for ever, reopening it on failure.
    pub async fn serve_socket(self, path: PathBuf) {
        loop {
            let result = self.socket(&path).await;
            self.retry(SOCKET, result).await;
        }
    }

    /// Serves the network for ever, retrying while the port is taken or the certificates are missing.
    pub async fn serve_network(self, address: SocketAddr, tls: Option<TlsFiles>) {
        loop {
            let result = match &tls {
                Some(files) => self.network(address, files).await,
                None => self.plain_network(address).await,
            };
            self.retry(NETWORK, result).await;
        }
    }

    async fn socket(&self, path: &Path) -> Result<(), ServeError> {
        let listen = |source| ServeError::Listen { address: path.display().to_string(), source };
        let listener = rest::listen(path).and_then(UnixListener::from_std).map_err(listen)?;
        self.serving(SOCKET, &path.display().to_string());
        Ok(self.router().serve_with_incoming(self.greeted(paced(UnixListenerStream::new(listener)), |_| None)).await?)
    }

    async fn plain_network(&self, address: SocketAddr) -> Result<(), ServeError> {
        let listener = bind_network(address).await?;
        self.serving(NETWORK, &address.to_string());
        Ok(self.router().serve_with_incoming(self.greeted(paced(TcpListenerStream::new(listener)), address_of)).await?)
    }

    async fn network(&self, address: SocketAddr, files: &TlsFiles) -> Result<(), ServeError> {
        let certificates = Certificates {
            files,
            protocol: pem::ALPN,
            listener: NETWORK,
            ending: CERTIFICATE,
            problems: &self.problems,
            end: &self.certificate_end,
            pace: self.times.pace,
        };
        let (contents, config) = certificates.read().await?;
        let listener = bind_network(address).await?;
        self.serving(NETWORK, &address.to_string());
        let (lobby, accepted) = (Lobby::new(self.times.greeting), paced(TcpListenerStream::new(listener)));
        let connections = tls::connections(accepted, config.subscribe(), lobby);
        tokio::select! {
            ended = self.router().serve_with_incoming(connections) => Ok(ended?),
            never = certificates.renew(contents, config) => match never {},
        }
    }

    /// Connections of a listener without TLS.
    fn greeted<IO>(
        &self,
        accepted: impl Stream<Item = io::Result<IO>>,
        from: impl Fn(&IO) -> Option<IpAddr>,
    ) -> impl Stream<Item = io::Result<Greeted<IO>>> {
        let (lobby, places) = (Lobby::new(self.times.greeting), Places::default());
        let greet = move |io| {
            let place = places.take(from(&io));
            Greeted::new(io, lobby.seat(), place)
        };
        accepted.map(move |accepted| accepted.map(&greet))
    }

    fn router(&self) -> Router {
        Server::builder()
            .http2_keepalive_interval(Some(self.times.silence))
            .http2_keepalive_timeout(Some(self.times.silence))
            .add_routes(self.routes.clone())
    }

    fn serving(&self, listener: &'static str, address: &str) {
        self.problems.lock().remove(listener);
        tracing::info!(address, "serving flows");
    }

    async fn retry(&self, listener: &'static str, result: Result<(), ServeError>) {
        let message = result.err().map_or_else(|| "ended".to_owned(), |error| error.to_string());
        note(&self.problems, listener, &format!("flows are not served: {message}"));
        tokio::time::sleep(self.times.pace).await;
    }
}

/// Shows a problem of a listener in the status, and logs it when it is new.
pub(crate) fn note(problems: &Problems, listener: &'static str, message: &str) {
    let text = format!("{listener}: {message}");
    let known = problems.lock().insert(listener.into(), text.clone());
    if known.as_ref() != Some(&text) {
        tracing::warn!("{text}");
    }
}

/// Waits a little after each failure to accept: with no file descriptor left the next one fails at once, too.
fn paced<IO>(accepted: impl Stream<Item = io::Result<IO>>) -> impl Stream<Item = io::Result<IO>> {
    accepted.then(async |accepted| {
        if accepted.is_err() {
            tokio::time::sleep(BREATH).await;
        }
        accepted
    })
}

fn address_of(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().ok().map(|address| address.ip().to_canonical())
}

async fn bind_network(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let result = match TcpListener::bind(address).await {
        // A kernel without IPv6 cannot listen on `::`.
        Err(error)
            if error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
                && address.ip().is_unspecified() =>
        {
            TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())).await
        }
        result => result,
    };
    result.map_err(|source| ServeError::Listen { address: address.to_string(), source })
}
