// SPDX-License-Identifier: Apache-2.0
//! Listening: on a socket for this node, and on the network for relays.

mod greeting;
#[cfg(test)]
mod tests;
mod tls;

use crate::client::HEALTH_SERVICE;
use crate::config::TlsFiles;
use crate::peers::Peers;
use crate::proto::observer::observer_server::ObserverServer;
use crate::proto::peer::peer_server::PeerServer;
use crate::service::Service;
use futures::{Stream, StreamExt};
use greeting::{Greeted, Lobby};
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tls::TlsError;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::ServingStatus;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Between attempts to listen, and between looks at the certificates: kubelet renews a mounted Secret within a minute or so.
    pub(crate) pace: Duration,
    /// Until a client has shaken hands and begun to talk.
    pub(crate) greeting: Duration,
    /// Until a silent client is asked whether it lives, and then until it has answered.
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

/// What does not work at the moment, by listener.
pub(crate) type Problems = Arc<Mutex<BTreeMap<&'static str, String>>>;

/// All that is needed to answer.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) observer: Service,
    pub(crate) peers: Peers,
    pub(crate) problems: Problems,
    pub(crate) times: Times,
}

impl Services {
    /// Serves the socket for ever; opens it again when that fails.
    pub(crate) async fn serve_socket(self, path: PathBuf) {
        loop {
            let result = self.socket(&path).await;
            self.retry(SOCKET, result).await;
        }
    }

    /// Serves the network for ever; tries again while the port is taken or the certificates are not there yet.
    pub(crate) async fn serve_network(self, address: SocketAddr, tls: Option<TlsFiles>) {
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
        Ok(self.router().await.serve_with_incoming(self.greeted(UnixListenerStream::new(listener))).await?)
    }

    async fn plain_network(&self, address: SocketAddr) -> Result<(), ServeError> {
        let listener = bind_network(address).await?;
        self.serving(NETWORK, &address.to_string());
        Ok(self.router().await.serve_with_incoming(self.greeted(TcpListenerStream::new(listener))).await?)
    }

    async fn network(&self, address: SocketAddr, files: &TlsFiles) -> Result<(), ServeError> {
        let contents = tls::read(files).await?;
        let (config, latest) = watch::channel(contents.config(files)?);
        let listener = bind_network(address).await?;
        self.serving(NETWORK, &address.to_string());
        let connections = tls::connections(listener, latest, Lobby::new(self.times.greeting));
        tokio::select! {
            ended = self.router().await.serve_with_incoming(connections) => Ok(ended?),
            never = self.renew(files, contents, config) => match never {},
        }
    }

    /// Takes in what becomes of the files, for connections to come. Files that cannot be used change nothing.
    async fn renew(
        &self,
        files: &TlsFiles,
        mut used: tls::Contents,
        config: watch::Sender<Arc<ServerConfig>>,
    ) -> Infallible {
        loop {
            tokio::time::sleep(self.times.pace).await;
            let outcome = match tls::read(files).await {
                Ok(contents) if contents == used => Ok(None),
                Ok(contents) => contents.config(files).map(|config| Some((contents, config))),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(None) => drop(self.problems.lock().remove(NETWORK)),
                Ok(Some((contents, renewed))) => {
                    used = contents;
                    config.send_replace(renewed);
                    self.problems.lock().remove(NETWORK);
                    tracing::info!("reloaded the certificates of the flow server");
                }
                Err(error) => self.note(NETWORK, &format!("{error}; certificates read before stay in use")),
            }
        }
    }

    /// Connections of a listener without TLS.
    fn greeted<IO>(&self, accepted: impl Stream<Item = io::Result<IO>>) -> impl Stream<Item = io::Result<Greeted<IO>>> {
        let lobby = Lobby::new(self.times.greeting);
        accepted.map(move |accepted| accepted.map(|io| Greeted::new(io, lobby.seat())))
    }

    async fn router(&self) -> Router {
        let (health, health_server) = tonic_health::server::health_reporter();
        health.set_service_status(HEALTH_SERVICE, ServingStatus::Serving).await;
        health.set_serving::<ObserverServer<Service>>().await;
        health.set_serving::<PeerServer<Peers>>().await;
        Server::builder()
            .http2_keepalive_interval(Some(self.times.silence))
            .http2_keepalive_timeout(Some(self.times.silence))
            .add_service(health_server)
            .add_service(ObserverServer::new(self.observer.clone()))
            .add_service(PeerServer::new(self.peers.clone()))
    }

    fn serving(&self, listener: &'static str, address: &str) {
        self.problems.lock().remove(listener);
        tracing::info!(address, "serving flows");
    }

    async fn retry(&self, listener: &'static str, result: Result<(), ServeError>) {
        let message = result.err().map_or_else(|| "ended".to_owned(), |error| error.to_string());
        self.note(listener, &format!("flows are not served: {message}"));
        tokio::time::sleep(self.times.pace).await;
    }

    /// Shows a problem in the status, and logs it when it is new.
    fn note(&self, listener: &'static str, message: &str) {
        let text = format!("{listener}: {message}");
        let known = self.problems.lock().insert(listener, text.clone());
        if known.as_ref() != Some(&text) {
            tracing::warn!("{text}");
        }
    }
}

async fn bind_network(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let result = match TcpListener::bind(address).await {
        // A kernel without IPv6 has no `::` to listen on.
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
