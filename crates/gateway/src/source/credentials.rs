// SPDX-License-Identifier: Apache-2.0
//! Certificates with their keys, and authorities: whether they can be used, and, for those who hand them to a proxy, what they are.
//!
//! The operator copies those that Gateways refer to into one namespace, the only one of which agents may read Secrets. Both judge them
//! alike, so that what is said of a certificate is what the proxy makes of it.

use crate::name::ObjectName;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::kube::api::ObjectMeta;
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

/// A ConfigMap with certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchors {
    /// Namespace and name of the ConfigMap.
    pub name: ObjectName,
    /// Version of the ConfigMap.
    pub version: Arc<str>,
    /// Why it cannot be used.
    pub fault: Option<Arc<str>>,
    /// The certificates, if they can be used and were to be kept.
    pub content: Option<Pem>,
}

impl statedb::Row for Anchors {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
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
    let (config_map, name) = original(object)?;
    if config_map { None } else { key_pair(Keep::Content, name, object) }
}

/// Of a copy: whether its original is a ConfigMap, and the original's name.
#[must_use]
pub fn original(copy: &core::Secret) -> Option<(bool, ObjectName)> {
    let labels = copy.metadata.labels.as_ref()?;
    // A label is too short for some names.
    let annotated = || copy.metadata.annotations.as_ref()?.get(OWNING_NAME);
    let name = labels.get(OWNING_NAME).or_else(annotated)?;
    let config_map = labels.get(OWNING_KIND).is_some_and(|kind| kind == "ConfigMap");
    Some((config_map, ObjectName::new(labels.get(OWNING_NAMESPACE)?.as_str(), name.as_str())))
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
    let fault = read.as_ref().err().map(|fault| Arc::from(*fault));
    let content = read.ok().filter(|_| keep == Keep::Content);
    Some(KeyPair { name, version, fault, content })
}

fn read_pair(chain: &[u8], key: &[u8]) -> Result<(Pem, Pem), &'static str> {
    let certificates = certificates(chain).ok_or("tls.crt holds no certificate in PEM")?;
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key in PEM")?;
    let private = any_supported_type(&private).map_err(|_| "tls.key is of no supported type")?;
    match CertifiedKey::new(certificates, private).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err("tls.key is not the key of tls.crt"),
    }
    let text = |bytes| std::str::from_utf8(bytes).map(Pem::from);
    text(chain).and_then(|chain| Ok((chain, text(key)?))).map_err(|_| "tls.crt or tls.key is no text")
}

/// One or more certificates.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|certificates| !certificates.is_empty())
}

/// The row of a ConfigMap; none if it has no `ca.crt`.
#[must_use]
pub fn ingest_config_map(keep: Keep, object: &core::ConfigMap) -> Option<Anchors> {
    let text = object.data.as_ref()?.get("ca.crt")?;
    Some(anchors(keep, ObjectName::of(&object.metadata)?, &object.metadata, text.as_bytes()))
}

/// The row of a copy with authorities, under the name of its original.
#[must_use]
pub fn ingest_synced_anchors(object: &core::Secret) -> Option<Anchors> {
    let (_, name) = original(object).filter(|(config_map, _)| *config_map)?;
    let bytes = object.data.as_ref()?.get("ca.crt")?;
    Some(anchors(Keep::Content, name, &object.metadata, &bytes.0))
}

fn anchors(keep: Keep, name: ObjectName, meta: &ObjectMeta, pem: &[u8]) -> Anchors {
    let read = read_authorities(pem);
    Anchors {
        name,
        version: meta.resource_version.as_deref().unwrap_or_default().into(),
        fault: read.as_ref().err().map(|fault| Arc::from(*fault)),
        content: read.ok().filter(|_| keep == Keep::Content),
    }
}

fn read_authorities(pem: &[u8]) -> Result<Pem, &'static str> {
    let certificates = certificates(pem).ok_or("ca.crt holds no certificate in PEM")?;
    let mut store = rustls::RootCertStore::empty();
    let added = certificates.into_iter().try_for_each(|certificate| store.add(certificate));
    added.map_err(|_| "ca.crt holds a certificate that cannot be read")?;
    std::str::from_utf8(pem).map(Pem::from).map_err(|_| "ca.crt is no text")
}
