// SPDX-License-Identifier: Apache-2.0
//! TLS for clients: whom to trust, and which certificate to present.

use super::Tls;
use crate::pem;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

/// HTTP/2 servers send their settings first, usually at once.
const FIRST_WORD: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

/// How a host and port is connected to.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: TlsConnector,
    name: ServerName<'static>,
    place: String,
}

impl Dialer {
    /// Speaks this protocol there. The error is a message for people.
    pub(crate) fn new(place: &str, tls: Tls, protocol: &[u8]) -> Result<Self, String> {
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
        let name = tls.server_name.clone().unwrap_or_else(|| host.to_owned());
        let name =
            ServerName::try_from(name.clone()).map_err(|_| format!("{name:?} cannot be the name of a server"))?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config(tls, protocol)?)), name, place: place.to_owned() })
    }

    /// Connects.
    pub(crate) async fn dial(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.place).await?;
        self.tls.connect(self.name.clone(), stream).await
    }
}

/// Connects to a host and port. The error is a message for people.
pub(super) fn connector(
    place: &str,
    tls: Tls,
) -> Result<
    impl tower::Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future = Connecting>
    + Send
    + 'static,
    String,
> {
    let dialer = Dialer::new(place, tls, pem::ALPN)?;
    Ok(tower::service_fn(move |_: Uri| -> Connecting {
        let dialer = dialer.clone();
        Box::pin(async move {
            let mut stream = dialer.dial().await?;
            hear(&mut stream).await?;
            Ok(TokioIo::new(stream))
        })
    }))
}

/// Waits a while for the server's first bytes. Until then it is unknown whether it accepts our certificate (RFC 8446,
/// section 4.4.2), and the reason would be lost if it only surfaced with the first request. A server that waits for us
/// to speak first gets its turn.
async fn hear(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    match timeout(FIRST_WORD, stream.fill_buf()).await {
        Ok(Ok([])) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed the connection")),
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn config(tls: Tls, protocol: &[u8]) -> Result<ClientConfig, String> {
    let text = |error: Error| error.to_string();
    let provider = pem::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(text)?;
    let builder = if tls.allow_insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(trusted(&tls.authorities)?)
    };
    let mut config = match tls.identity {
        Some((certificate, key)) => {
            let chain = pem::certificates(&certificate).map_err(|why| format!("the client's certificate: {why}"))?;
            let key = pem::key(&key).map_err(|why| format!("the client's key: {why}"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|why| format!("the client's certificate and key: {why}"))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn trusted(authorities: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if authorities.is_empty() {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        pem::trust(&mut store, authorities).map_err(|why| format!("the certificates of authorities: {why}"))?;
    }
    Ok(store)
}

/// Accepts any certificate, but still requires the server to have its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
