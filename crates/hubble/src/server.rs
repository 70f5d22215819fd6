// SPDX-License-Identifier: Apache-2.0
//! Listening: on a socket for this node, and on the network for relays.

#[cfg(test)]
mod tests;

use crate::config::TlsFiles;
use crate::peers::Peers;
use crate::proto::observer::observer_server::ObserverServer;
use crate::proto::peer::peer_server::PeerServer;
use crate::service::Service;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// Between attempts to listen.
const RETRY: Duration = Duration::from_secs(5);

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
    /// A file with a certificate or key could not be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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
}

impl Services {
    /// Serves the socket for ever; opens it again when that fails.
    pub(crate) async fn serve_socket(self, path: PathBuf) {
        loop {
            let result = self.socket(&path).await;
            self.retry("socket", result).await;
        }
    }

    /// Serves the network for ever; tries again while the port is taken or the certificates are not there yet.
    pub(crate) async fn serve_network(self, address: SocketAddr, tls: Option<TlsFiles>) {
        loop {
            let result = self.network(address, tls.as_ref()).await;
            self.retry("network", result).await;
        }
    }

    async fn socket(&self, path: &Path) -> Result<(), ServeError> {
        let listen = |source| ServeError::Listen { address: path.display().to_string(), source };
        let listener = bind_socket(path).map_err(listen)?;
        self.serving("socket", &path.display().to_string());
        let router = self.router(Server::builder()).await;
        Ok(router.serve_with_incoming(UnixListenerStream::new(listener)).await?)
    }

    async fn network(&self, address: SocketAddr, tls: Option<&TlsFiles>) -> Result<(), ServeError> {
        let mut server = Server::builder();
        if let Some(files) = tls {
            server = server.tls_config(load_tls(files).await?)?;
        }
        let listen = |source| ServeError::Listen { address: address.to_string(), source };
        let listener = bind_network(address).await.map_err(listen)?;
        self.serving("network", &address.to_string());
        let router = self.router(server).await;
        Ok(router.serve_with_incoming(TcpListenerStream::new(listener)).await?)
    }

    async fn router(&self, mut server: Server) -> Router {
        let (health, health_server) = tonic_health::server::health_reporter();
        health.set_serving::<ObserverServer<Service>>().await;
        health.set_serving::<PeerServer<Peers>>().await;
        server
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
        let known = self.problems.lock().insert(listener, message.clone());
        if known.as_ref() != Some(&message) {
            tracing::warn!(error = message, "flows are not served, will be tried again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Opens the socket so that nobody can connect before its permissions are set: it gets its name when it is ready.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o660))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

async fn bind_network(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // A kernel without IPv6 has no `::` to listen on.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) => {
            if address.ip().is_unspecified() {
                TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())).await
            } else {
                Err(error)
            }
        }
        result => result,
    }
}

async fn load_tls(files: &TlsFiles) -> Result<ServerTlsConfig, ServeError> {
    let identity = Identity::from_pem(read(&files.certificate).await?, read(&files.key).await?);
    let mut authorities = Vec::new();
    for path in &files.client_authorities {
        authorities.append(&mut read(path).await?);
        authorities.push(b'\n');
    }
    let config = ServerTlsConfig::new().identity(identity);
    Ok(if authorities.is_empty() { config } else { config.client_ca_root(Certificate::from_pem(authorities)) })
}

async fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    tokio::fs::read(path).await.map_err(|source| ServeError::File { path: path.to_owned(), source })
}
