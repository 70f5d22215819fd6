// SPDX-License-Identifier: Apache-2.0
//! TLS of the network listener: files that may come late and change at any time, and the handshakes that they decide.
//!
//! No way leads from here to plain text. Without usable files there is no configuration, hence no listener; a connection whose handshake
//! does not succeed is closed.

use super::greeting::{CLIENTS, Greeted, Lobby, Seat};
use crate::pem;
use futures::StreamExt;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;

/// Where certificates are that serve the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: TlsFile,
    /// Private key.
    pub key: TlsFile,
    /// Authorities whose clients are let in; without any, clients need no certificate.
    pub client_authorities: Vec<TlsFile>,
}

/// A file that a configuration key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// The key, for errors.
    pub option: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// Why there is no TLS. Each names the configuration key and the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file that is not there, or not for us.
    #[error("{option}: cannot read {path}: {source}")]
    Read {
        /// The configuration key.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{option}: no usable {what} in {path}: {reason}")]
    Malformed {
        /// The configuration key.
        option: &'static str,
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Files that do not go together.
    #[error(
        "{} and {}: {} and {} cannot be used together: {source}",
        certificate.option, key.option, certificate.path.display(), key.path.display()
    )]
    Pair {
        /// The certificate's file.
        certificate: Box<TlsFile>,
        /// The key's file.
        key: Box<TlsFile>,
        /// Why.
        source: rustls::Error,
    },
    /// The library refuses.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// What the files held when they were read. It cannot be printed: one of them is a private key.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<Vec<u8>>,
}

/// Reads all files.
pub(crate) async fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
    let mut authorities = Vec::new();
    let certificate = files.certificate.read().await?;
    let key = files.key.read().await?;
    for file in &files.client_authorities {
        authorities.push(file.read().await?);
    }
    Ok(Contents { certificate, key, authorities })
}

impl TlsFile {
    async fn read(&self) -> Result<Vec<u8>, TlsError> {
        let Self { option, path } = self;
        tokio::fs::read(path).await.map_err(|source| TlsError::Read { option, path: path.clone(), source })
    }

    /// What is wrong with it, given what it should hold and why it does not.
    fn malformed(&self, what: &'static str) -> impl Fn(String) -> TlsError {
        let Self { option, path } = self.clone();
        move |reason| TlsError::Malformed { option, what, path: path.clone(), reason }
    }
}

impl Contents {
    /// What these files, which are named in errors, make of a connection.
    pub(crate) fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = pem::certificates(&self.certificate);
        let chain = chain.map_err(files.certificate.malformed("certificate"))?;
        let key = pem::key(&self.key).map_err(files.key.malformed("private key"))?;
        let mut trusted = RootCertStore::empty();
        for (file, text) in files.client_authorities.iter().zip(&self.authorities) {
            pem::trust(&mut trusted, text).map_err(file.malformed("certificate"))?;
        }
        let provider = pem::provider();
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = if files.client_authorities.is_empty() {
            builder.with_no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| rustls::Error::General(e.to_string()))?)
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
            certificate: Box::new(files.certificate.clone()),
            key: Box::new(files.key.clone()),
            source,
        })?;
        config.alpn_protocols = vec![pem::ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Connections whose handshake has succeeded, each with the configuration of the moment at which it was opened.
pub(super) fn connections(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    lobby: Lobby,
) -> impl Stream<Item = io::Result<Greeted<TlsStream<TcpStream>>>> {
    TcpListenerStream::new(listener)
        .map(move |accepted| shake_hands(accepted, Arc::clone(&config.borrow()), lobby.seat()))
        // One more than there are seats, so that somebody is always let in and another one loses its seat.
        .buffer_unordered(CLIENTS + 1)
        .filter_map(std::future::ready)
}

/// None for a client that is not let in; an error is one of the listener.
async fn shake_hands(
    accepted: io::Result<TcpStream>,
    config: Arc<ServerConfig>,
    mut seat: Seat,
) -> Option<io::Result<Greeted<TlsStream<TcpStream>>>> {
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => return Some(Err(error)),
    };
    let from = stream.peer_addr().map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string());
    let shaken = tokio::select! {
        shaken = TlsAcceptor::from(config).accept(stream) => shaken,
        () = seat.over() => Err(io::ErrorKind::TimedOut.into()),
    };
    match shaken {
        Ok(stream) => Some(Ok(Greeted::new(stream, seat))),
        Err(error) => {
            tracing::debug!(from, %error, "refused a client of the network listener");
            None
        }
    }
}
