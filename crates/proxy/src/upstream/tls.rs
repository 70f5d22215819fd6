// SPDX-License-Identifier: Apache-2.0
//! TLS to backends.

use super::pool::Speak;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How the endpoints of a cluster are spoken to in TLS.
#[derive(Clone, Debug)]
pub(crate) struct ClientTls {
    name: ServerName<'static>,
    bytes: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

impl ClientTls {
    pub(crate) fn new(name: ServerName<'static>, config: ClientConfig) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Self { name, bytes: offering(&[]), http1: offering(&[b"http/1.1"]), either: offering(&[b"h2", b"http/1.1"]) }
    }

    pub(super) async fn connect(&self, stream: TcpStream, speak: Option<Speak>) -> io::Result<TlsStream<TcpStream>> {
        let config = match speak {
            None => &self.bytes,
            Some(Speak::Http1) => &self.http1,
            // An endpoint that speaks HTTP/1.1 only says so, rather than nothing.
            Some(Speak::Http2 | Speak::Either) => &self.either,
        };
        TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), stream).await
    }
}
