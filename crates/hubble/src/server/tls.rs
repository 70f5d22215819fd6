// SPDX-License-Identifier: Apache-2.0
//! TLS of the network listener: files that may appear late and change at any time, and the handshakes made with them.
//!
//! There is no fallback to plain text. Without valid files there is no configuration, hence no listener; a connection
//! whose handshake fails is closed.

use super::address_of;
use super::greeting::{CLIENTS, Greeted, Lobby, Seat};
use super::places::Places;
use crate::pem;
use futures::StreamExt;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

/// Certificate files of the network listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: TlsFile,
    /// Private key.
    pub key: TlsFile,
    /// CAs of accepted clients; without any, clients need no certificate.
    pub client_authorities: Vec<TlsFile>,
}

/// A file named by a configuration key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFile {
    /// The key, for errors.
    pub option: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// Why there is no TLS. Each variant names the configuration key and the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file that is missing or unreadable.
    #[error("{option}: cannot read {path}: {source}")]
    Read {
        /// The configuration key.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with the wrong content.
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
    /// Files that do not match.
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
    /// The library rejected it.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// The files' contents. Not printable: one of them is a private key.
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
    /// When the first certificate of the chain expires, in seconds since 1970; none if that cannot be told.
    pub(super) fn ends(&self) -> Option<i64> {
        let chain = pem::certificates(&self.certificate).ok()?;
        let ends = |der: &[u8]| Some(x509_parser::parse_x509_certificate(der).ok()?.1.validity().not_after.timestamp());
        chain.iter().filter_map(|certificate| ends(certificate)).min()
    }

    /// Builds the configuration for a protocol from these files, which errors name.
    pub(crate) fn config(&self, files: &TlsFiles, protocol: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
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
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Connections with a completed handshake, each with the configuration at the time it was opened.
pub(super) fn connections(
    accepted: impl Stream<Item = io::Result<TcpStream>>,
    config: watch::Receiver<Arc<ServerConfig>>,
    lobby: Lobby,
) -> impl Stream<Item = io::Result<Greeted<TlsStream<TcpStream>>>> {
    let places = Places::default();
    accepted
        .map(move |accepted| shake_hands(accepted, Arc::clone(&config.borrow()), lobby.seat(), places.clone()))
        // One more than there are slots, so that someone is always admitted and another loses its slot.
        .buffer_unordered(CLIENTS + 1)
        .filter_map(std::future::ready)
}

/// None for a rejected client; an error is the listener's.
async fn shake_hands(
    accepted: io::Result<TcpStream>,
    config: Arc<ServerConfig>,
    mut seat: Seat,
    places: Places,
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
        Ok(stream) => {
            let place = places.take(address_of(stream.get_ref().0));
            Some(Ok(Greeted::new(stream, seat, place)))
        }
        Err(error) => {
            tracing::debug!(from, %error, "refused a client of the network listener");
            None
        }
    }
}
