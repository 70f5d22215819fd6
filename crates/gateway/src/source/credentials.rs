// SPDX-License-Identifier: Apache-2.0
//! Certificates with their keys, and authorities: whether they can be used, and, for those who hand them to a proxy, what they are.
//!
//! The operator copies those that Gateways refer to into one namespace, the only one of which agents may read Secrets. Both judge them
//! alike, so that what is said of a certificate is what the proxy makes of it.

use crate::name::ObjectName;
use k8s::k8s_openapi::api::core::v1 as core;
use l7::Pem;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Label of a copy with the namespace of its original.
pub const OWNING_NAMESPACE: &str = "secretsync.cilium.io/owning-secret-namespace";
/// Label of a copy with the name of its original.
pub const OWNING_NAME: &str = "secretsync.cilium.io/owning-secret-name";
/// Label of a copy that is not of a Secret, with the kind of its original.
pub const OWNING_KIND: &str = "secretsync.cilium.io/owning-kind";

/// Whether a row has what was read, or only what was found of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What was read, for a proxy.
    Content,
    /// Nothing of it.
    Nothing,
}

/// A Secret with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// Namespace and name of the Secret.
    pub name: ObjectName,
    /// Version of the Secret.
    pub version: Arc<str>,
    /// Why it cannot be used.
    pub fault: Option<Arc<str>>,
    /// Certificate chain and key, if they can be used and were to be kept.
    pub content: Option<(Pem, Pem)>,
}

impl statedb::Row for KeyPair {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// Kind (ConfigMap, or Secret), namespace and name of an object with authorities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnchorsName {
    /// Whether it is a Secret.
    pub secret: bool,
    /// Namespace and name.
    pub name: ObjectName,
}

impl std::fmt::Display for AnchorsName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", if self.secret { "Secret" } else { "ConfigMap" }, self.name)
    }
}

/// A ConfigMap or Secret with certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// Kind, namespace and name.
    pub name: AnchorsName,
    /// Version of the object.
    pub version: Arc<str>,
    /// Why it cannot be used.
    pub fault: Option<Arc<str>>,
    /// The certificates, if they can be used and were to be kept.
    pub content: Option<Pem>,
}

impl statedb::Row for Anchors {
    type Key = AnchorsName;
    fn key(&self) -> AnchorsName {
        self.name.clone()
    }
}

/// The row of a Secret; none if it holds neither a certificate nor a key.
#[must_use]
pub fn ingest_secret(keep: Keep, object: &core::Secret) -> Option<KeyPair> {
    key_pair(keep, ObjectName::of(&object.metadata)?, object)
}

/// The row of a copy, under the name of its original.
#[must_use]
pub fn ingest_synced(object: &core::Secret) -> Option<KeyPair> {
    let (secret, name) = original(object)?;
    if secret { key_pair(Keep::Content, name, object) } else { None }
}

/// Whether the original is a Secret, and its name.
fn original(object: &core::Secret) -> Option<(bool, ObjectName)> {
    let label = |key| object.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let secret = label(OWNING_KIND).is_none_or(|kind| kind == "Secret");
    Some((secret, ObjectName::new(label(OWNING_NAMESPACE)?, label(OWNING_NAME)?)))
}

fn key_pair(keep: Keep, name: ObjectName, object: &core::Secret) -> Option<KeyPair> {
    let data = |key| object.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let (chain, key) = (data("tls.crt"), data("tls.key"));
    let is_tls = object.type_.as_deref() == Some("kubernetes.io/tls");
    if !is_tls && chain.is_none() && key.is_none() {
        return None;
    }
    let read = read_pair(chain.unwrap_or_default(), key.unwrap_or_default());
    let version = object.metadata.resource_version.as_deref().unwrap_or_default().into();
    let fault = read.as_ref().err().map(|fault| Arc::from(fault.as_str()));
    let content = read.ok().filter(|_| keep == Keep::Content);
    Some(KeyPair { name, version, fault, content })
}

fn read_pair(chain: &[u8], key: &[u8]) -> Result<(Pem, Pem), String> {
    let text = |field: &str, bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("{field} is no text"))?;
        Ok::<_, String>(Pem::from(text))
    };
    let certificates = certificates("tls.crt", chain)?;
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key in PEM".to_owned())?;
    let private = any_supported_type(&private).map_err(|_| "tls.key is of no supported type".to_owned())?;
    match CertifiedKey::new(certificates, private).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err("tls.key is not the key of tls.crt".to_owned()),
    }
    Ok((text("tls.crt", chain)?, text("tls.key", key)?))
}

/// One or more certificates.
fn certificates(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|_| format!("{field} is not PEM"))?;
    if certificates.is_empty() {
        return Err(format!("{field} holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// The row of a ConfigMap; none if it has no `ca.crt`.
#[must_use]
pub fn ingest_config_map(keep: Keep, object: &core::ConfigMap) -> Option<Anchors> {
    let name = AnchorsName { secret: false, name: ObjectName::of(&object.metadata)? };
    let text = object.data.as_ref()?.get("ca.crt")?;
    Some(anchors(keep, name, &object.metadata, text.as_bytes()))
}

/// The row of a Secret with authorities; none if it has no `ca.crt`.
#[must_use]
pub fn ingest_anchors(keep: Keep, object: &core::Secret) -> Option<Anchors> {
    let name = AnchorsName { secret: true, name: ObjectName::of(&object.metadata)? };
    anchors_of_secret(keep, name, object)
}

/// The row of a copy with authorities, under the name of its original.
#[must_use]
pub fn ingest_synced_anchors(object: &core::Secret) -> Option<Anchors> {
    let (secret, name) = original(object)?;
    anchors_of_secret(Keep::Content, AnchorsName { secret, name }, object)
}

fn anchors_of_secret(keep: Keep, name: AnchorsName, object: &core::Secret) -> Option<Anchors> {
    let bytes = object.data.as_ref()?.get("ca.crt")?;
    Some(anchors(keep, name, &object.metadata, &bytes.0))
}

fn anchors(keep: Keep, name: AnchorsName, meta: &k8s::kube::api::ObjectMeta, pem: &[u8]) -> Anchors {
    let read = certificates("ca.crt", pem).and_then(|certificates| {
        let mut store = rustls::RootCertStore::empty();
        certificates
            .into_iter()
            .try_for_each(|certificate| store.add(certificate))
            .map_err(|_| "ca.crt holds a certificate that cannot be read".to_owned())?;
        std::str::from_utf8(pem).map(Pem::from).map_err(|_| "ca.crt is no text".to_owned())
    });
    Anchors {
        name,
        version: meta.resource_version.as_deref().unwrap_or_default().into(),
        fault: read.as_ref().err().map(|fault| Arc::from(fault.as_str())),
        content: read.ok().filter(|_| keep == Keep::Content),
    }
}
