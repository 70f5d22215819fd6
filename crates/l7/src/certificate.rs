// SPDX-License-Identifier: Apache-2.0
//! Certificates, keys and trust anchors. They travel apart from what refers to them, so that one that changes changes alone.

use crate::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A PEM document. It may hold a private key, so it is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pem(Arc<str>);

impl Pem {
    /// The document.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Pem {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

/// A certificate that the proxy shows, to clients or to backends, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What listeners and clusters refer to.
    pub name: Name,
    /// The certificate, then its issuers.
    pub chain: Pem,
    /// The private key of the first certificate.
    pub key: Pem,
}

/// Certificates of authorities against which peers are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustAnchors {
    /// What listeners and clusters refer to.
    pub name: Name,
    /// One or more certificates.
    pub certificates: Pem,
}

#[cfg(test)]
mod tests {
    use super::Certificate;

    #[test]
    fn a_key_is_never_shown() {
        let certificate = Certificate { name: "shop".into(), chain: "CHAIN".into(), key: "SECRET".into() };
        assert!(!format!("{certificate:?}").contains("SECRET"));
    }
}
