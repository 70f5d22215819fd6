// SPDX-License-Identifier: Apache-2.0
//! The authority that signs: made, read out of PEM, renewed. A renewed one has the same key, name and key identifier, so that what it signed
//! stays valid, and those who hold the certificate before trust what it signs next. A key that has leaked is replaced by deleting the Secret.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::prelude::{ParsedExtension, X509Certificate};

/// How far clocks may be behind the one of whoever signs.
const SKEW: Duration = Duration::from_secs(3600);

/// Why an authority cannot sign.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// There is no certificate in what should be one.
    #[error("ca.crt: no certificate of an authority can be read: {0}")]
    Certificate(String),
    /// There is no key in what should be one. What is there is not told.
    #[error("ca.key: no private key can be read")]
    Key,
    /// They are two pairs' halves.
    #[error("ca.key is not the key of ca.crt")]
    Pair,
    /// It is over.
    #[error("ca.crt: it ended on {0}")]
    Ended(OffsetDateTime),
    /// The name has something that cannot be written again as it is.
    #[error("ca.crt: its name cannot be kept, so it cannot be renewed")]
    Name,
    /// The library refuses.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
}

/// An authority that can sign.
pub(crate) struct Authority {
    /// What others trust: all certificates of `ca.crt`.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
    ends: OffsetDateTime,
    renewal: Result<(DistinguishedName, KeyIdMethod), AuthorityError>,
}

impl Authority {
    /// A new one.
    pub(crate) fn make(name: &str, validity: Duration, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let mut distinguished = DistinguishedName::new();
        distinguished.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let params = params((distinguished.clone(), KeyIdMethod::Sha256), validity, now)?;
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            ends: params.not_after,
            renewal: Ok((distinguished, KeyIdMethod::Sha256)),
            issuer: Issuer::new(params, key),
        })
    }

    /// The one that a Secret holds.
    pub(crate) fn read(certificate: &[u8], key: &[u8]) -> Result<Self, AuthorityError> {
        let malformed = |why: &dyn ToString| AuthorityError::Certificate(why.to_string());
        let der = CertificateDer::from_pem_slice(certificate).map_err(|error| malformed(&error))?;
        let text = String::from_utf8(certificate.to_vec()).map_err(|error| malformed(&error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| malformed(&error))?;
        if !parsed.is_ca() {
            return Err(malformed(&"it is the certificate of no authority"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| AuthorityError::Key)?;
        let key = KeyPair::try_from(&key).map_err(|_| AuthorityError::Key)?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(AuthorityError::Pair);
        }
        let ends = parsed.validity().not_after.to_datetime();
        let renewal = name_of(&parsed).ok_or(AuthorityError::Name).map(|name| (name, key_id_of(&parsed)));
        Ok(Self { certificate: text, ends, renewal, issuer: Issuer::from_ca_cert_der(&der, key)? })
    }

    /// The same with another end.
    pub(crate) fn renewed(self, validity: Duration, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let same = self.renewal?;
        let params = params(same.clone(), validity, now)?;
        let certificate = params.self_signed(self.issuer.key())?.pem();
        Ok(Self { certificate, ends: params.not_after, renewal: Ok(same), ..self })
    }

    /// Whether it ends before something that it signs now would.
    pub(crate) fn ends_within(&self, validity: Duration, now: OffsetDateTime) -> bool {
        self.ends < now + validity
    }

    /// When something ends that it signs now: no later than itself.
    pub(crate) fn validity(
        &self,
        wanted: Duration,
        now: OffsetDateTime,
    ) -> Result<(OffsetDateTime, OffsetDateTime), AuthorityError> {
        if self.ends <= now {
            return Err(AuthorityError::Ended(self.ends));
        }
        Ok((now - SKEW, self.ends.min(now + wanted)))
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The key, as a Secret holds it.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

fn params(
    (name, key_id): (DistinguishedName, KeyIdMethod),
    validity: Duration,
    now: OffsetDateTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name;
    params.key_identifier_method = key_id;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = (now - SKEW, now + validity);
    Ok(params)
}

/// The subject; none if a part of it could not be encoded again just as it is.
fn name_of(certificate: &X509Certificate<'_>) -> Option<DistinguishedName> {
    use x509_parser::der_parser::asn1_rs::Tag;
    let mut name = DistinguishedName::new();
    for set in certificate.subject().iter() {
        let mut parts = set.iter();
        let (part, None) = (parts.next()?, parts.next()) else { return None };
        let kind = DnType::from_oid(&part.attr_type().iter()?.collect::<Vec<_>>());
        let text = std::str::from_utf8(part.attr_value().data).ok()?;
        let value = match part.attr_value().header.tag() {
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            _ => return None,
        };
        name.push(kind, value);
    }
    Some(name)
}

fn key_id_of(certificate: &X509Certificate<'_>) -> KeyIdMethod {
    let told = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    told.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
}

#[cfg(test)]
mod tests;
