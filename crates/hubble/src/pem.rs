// SPDX-License-Identifier: Apache-2.0
//! Certificates and keys out of PEM, and the cryptography that uses them.

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// gRPC's ALPN protocol.
pub(crate) const ALPN: &[u8] = b"h2";

/// The same for client and server, and for the whole process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// All certificates; at least one. The error is a message for people.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    if all.is_empty() { Err("there is none in it".to_owned()) } else { Ok(all) }
}

/// The first private key, of any of the three encodings.
pub(crate) fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        other => other.to_string(),
    })
}

/// Adds certificates to the trusted ones.
pub(crate) fn trust(store: &mut RootCertStore, text: &[u8]) -> Result<(), String> {
    certificates(text)?.into_iter().try_for_each(|one| store.add(one)).map_err(|error| error.to_string())
}
