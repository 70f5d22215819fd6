// SPDX-License-Identifier: Apache-2.0
//! Certificates of servers and clients.

use crate::authority::{Authority, AuthorityError};
use crate::config::{Certificate, Usage};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;

/// A signed certificate and its key, as PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) ends: OffsetDateTime,
}

/// Signs what is asked for, with a key of its own.
pub(crate) fn sign(wanted: &Certificate, authority: &Authority, now: OffsetDateTime) -> Result<Leaf, AuthorityError> {
    let (begins, ends) = authority.validity(wanted.validity, now)?;
    let mut params = CertificateParams::new(wanted.hosts.clone())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, wanted.common_name.as_str());
    params.distinguished_name = name;
    for usage in &wanted.usage {
        match usage {
            Usage::Signing => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
            Usage::KeyEncipherment => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            Usage::ServerAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            Usage::ClientAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
        }
    }
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (begins, ends);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority.issuer())?.pem();
    Ok(Leaf { certificate, key: key.serialize_pem(), ends })
}
