// SPDX-License-Identifier: Apache-2.0
//! Certificates and trust anchors, parsed, and what rustls makes of them.

pub(crate) mod hello;

use crate::invalid::{InField, Invalid};
use l7::{Alpn, BackendTls, Certificate, Name, PeerName, Termination, Trust, TrustAnchors};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::upstream::ClientTls;

#[cfg(test)]
mod tests;

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static ONE: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(ONE.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// All certificates and anchors that can be used, by name.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) certificates: HashMap<Name, Arc<CertifiedKey>>,
    pub(crate) anchors: HashMap<Name, Arc<Vec<CertificateDer<'static>>>>,
    system: OnceLock<Arc<RootCertStore>>,
}

/// How clients' certificates are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verification {
    authorities: Vec<Arc<Vec<CertificateDer<'static>>>>,
    allow_unverified: bool,
}

/// A certificate with a key that belongs to it.
pub(crate) fn certified(certificate: &Certificate) -> Result<Arc<CertifiedKey>, Invalid> {
    let chain = all(certificate.chain.expose(), "chain")?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.expose().as_bytes()).in_field("key")?;
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).in_field("key")
}

/// The certificates of authorities.
pub(crate) fn anchors(anchors: &TrustAnchors) -> Result<Arc<Vec<CertificateDer<'static>>>, Invalid> {
    let all = all(anchors.certificates.expose(), "certificates")?;
    store([&all])?;
    Ok(Arc::new(all))
}

fn all(pem: &str, field: &str) -> Result<Vec<CertificateDer<'static>>, Invalid> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().in_field(field)?;
    if all.is_empty() { Err(Invalid::new(field, "no certificate is in it")) } else { Ok(all) }
}

fn store<'a>(all: impl IntoIterator<Item = &'a Vec<CertificateDer<'static>>>) -> Result<RootCertStore, Invalid> {
    let mut store = RootCertStore::empty();
    for certificate in all.into_iter().flatten() {
        store.add(certificate.clone()).in_field("certificates")?;
    }
    Ok(store)
}

impl Credentials {
    /// How TLS of clients ends here. A certificate that is not there is not shown, and without any no client gets in.
    pub(crate) fn server(&self, termination: &Termination) -> Result<Arc<ServerConfig>, Invalid> {
        let certificates = termination.certificates.iter().filter_map(|name| self.certificates.get(name).cloned());
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.in_field("versions")?;
        let builder = match &termination.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let roots = Arc::new(self.store(&client.trust, "client.trust")?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().in_field("client.trust")?;
                builder.with_client_cert_verifier(match client.allow_unverified {
                    true => Arc::new(Anybody(verifier)),
                    false => verifier,
                })
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(certificates.collect())));
        config.alpn_protocols = termination.alpn.iter().map(|alpn| protocol(*alpn).to_vec()).collect();
        // Tickets of this configuration only: one that was given without a client's certificate must not replace one elsewhere.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().in_field("tickets")?;
        // Clients keep them. A store here would take its place in memory for each name that is served.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// How the endpoints of a cluster are spoken to.
    pub(crate) fn client(&self, tls: &BackendTls) -> Result<ClientTls, Invalid> {
        let name = ServerName::try_from(tls.hostname.clone()).in_field("tls.hostname")?;
        let roots = match &tls.trust {
            Trust::Anchors(names) => Arc::new(self.store(names, "tls.trust")?),
            Trust::System => self.system(),
        };
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().in_field("tls.trust")?;
        let verifier = Arc::new(Named { verifier, names: tls.names.clone() });
        let builder = builder.in_field("versions")?.dangerous().with_custom_certificate_verifier(verifier);
        let config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certified = self.certificates.get(name).cloned();
                let certified =
                    certified.ok_or_else(|| Invalid::new("tls.certificate", format!("{name} is not there")))?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
            }
        };
        Ok(ClientTls::new(name, config))
    }

    /// How clients are verified, if they are.
    pub(crate) fn verification(&self, termination: &Termination) -> Option<Verification> {
        let client = termination.client.as_ref()?;
        let authorities = client.trust.iter().filter_map(|name| self.anchors.get(name).cloned());
        Some(Verification { authorities: authorities.collect(), allow_unverified: client.allow_unverified })
    }

    fn store(&self, names: &[Name], field: &str) -> Result<RootCertStore, Invalid> {
        let named = |name: &Name| {
            self.anchors.get(name).map(Arc::as_ref).ok_or_else(|| Invalid::new(field, format!("{name} is not there")))
        };
        store(names.iter().map(named).collect::<Result<Vec<_>, _>>()?)
    }

    fn system(&self) -> Arc<RootCertStore> {
        let load = || {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(store)
        };
        Arc::clone(self.system.get_or_init(load))
    }
}

fn protocol(alpn: Alpn) -> &'static [u8] {
    match alpn {
        Alpn::Http2 => b"h2",
        Alpn::Http1 => b"http/1.1",
    }
}

/// Shows the first certificate that is valid for the client's name, otherwise the first.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        let Some(name) = hello.server_name().filter(|_| self.0.len() > 1) else { return Some(Arc::clone(first)) };
        let name = ServerName::try_from(name).ok()?;
        let valid = |certified: &&Arc<CertifiedKey>| {
            let parsed = certified.end_entity_cert().ok().and_then(|der| ParsedCertificate::try_from(der).ok());
            parsed.is_some_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
        };
        Some(Arc::clone(self.0.iter().find(valid).unwrap_or(first)))
    }
}

/// Asks clients for a certificate, and lets them in whatever they show.
#[derive(Debug)]
struct Anybody(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Verifies a backend: its signer, and one of the names it must have.
#[derive(Debug)]
struct Named {
    verifier: Arc<WebPkiServerVerifier>,
    /// None: the name in the hello.
    names: Vec<PeerName>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let as_named = self.verifier.verify_server_cert(certificate, issuers, name, ocsp, now);
        if self.names.is_empty() {
            return as_named;
        }
        match as_named {
            // The chain is good: only the name was not.
            Ok(_) => {}
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(error) => return Err(error),
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let hostname = |name: &str| {
            let name = ServerName::try_from(name).ok();
            name.is_some_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
        };
        let uris = uris(certificate);
        let has = |name: &PeerName| match name {
            PeerName::Hostname(name) => hostname(name),
            PeerName::Uri(uri) => uris.contains(uri),
        };
        match self.names.iter().any(has) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// URIs among the certificate's alternative names.
fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}
