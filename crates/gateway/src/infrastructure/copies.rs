// SPDX-License-Identifier: Apache-2.0
//! Credentials that Gateways and policies refer to, and may refer to, are copied into the one namespace of which agents may read
//! Secrets. What nobody refers to any more, or may not, is taken away.

use crate::edge::Edge;
use crate::name::ObjectName;
use crate::resolve::Resolved;
use crate::serve::{shown, trusted};
use crate::source::{Anchors, KeyPair, OWNING_KIND, OWNING_NAME, OWNING_NAMESPACE, original};
use crate::tls_policy;
use k8s::k8s_openapi::ByteString;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use statedb::{Inputs, Reader, Tasks};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The most that a name can have.
const LONGEST: usize = 253;
/// The most that the value of a label can have.
const LONGEST_LABEL: usize = 63;

/// A credential that is to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// It is a ConfigMap with authorities; otherwise a Secret with a certificate.
    pub config_map: bool,
    /// Namespace and name of the original.
    pub original: ObjectName,
    /// Version of the original.
    pub version: Arc<str>,
}

impl statedb::Row for Copy {
    type Key = (bool, ObjectName);
    fn key(&self) -> (bool, ObjectName) {
        (self.config_map, self.original.clone())
    }
}

/// Keeps what is to be copied.
pub(super) fn derive(tasks: &Tasks, resolved: &Resolved) -> Reader<Copy> {
    let objects = resolved.objects.clone();
    let (showing, trusting) = (resolved.edges.rows.index(shown), resolved.edges.rows.index(trusted));
    let policies = objects.tls_policies.index(tls_policy::anchors);
    let inputs = Inputs::of(&resolved.edges.rows, |edge: &Edge| {
        let pairs = shown(edge).into_iter().map(|name| (false, name));
        pairs.chain(trusted(edge).into_iter().map(|name| (true, name))).collect::<Vec<_>>()
    })
    .and(&objects.key_pairs, |pair: &KeyPair| [(false, pair.name.clone())])
    .and(&objects.anchors, |anchors: &Anchors| [(true, anchors.name.clone())])
    .and(&objects.tls_policies, |policy| {
        tls_policy::anchors(policy).into_iter().map(|name| (true, name)).collect::<Vec<_>>()
    });
    let row = move |(config_map, original): &(bool, ObjectName), _: Option<&Copy>| {
        let version = if *config_map {
            let used = !trusting.get(original).is_empty() || !policies.get(original).is_empty();
            let anchors = objects.anchors.snapshot().get(original)?;
            anchors.fault.is_none().then(|| anchors.version.clone()).filter(|_| used)?
        } else {
            let pair = objects.key_pairs.snapshot().get(original)?;
            pair.fault.is_none().then(|| pair.version.clone()).filter(|_| !showing.get(original).is_empty())?
        };
        Some(Copy { config_map: *config_map, original: original.clone(), version })
    };
    statedb::derive(tasks, "gateway-copies", inputs, row).rows
}

impl Copy {
    /// Names that the copy may have: the first, unless it is that of another original, whose namespace and name make the same text.
    #[must_use]
    pub fn names(&self) -> [String; 2] {
        let ObjectName { namespace, name } = &self.original;
        let plain = format!("{namespace}-{}{name}", if self.config_map { "configmap-" } else { "" });
        let mut hasher = DefaultHasher::new();
        (self.config_map, namespace, name).hash(&mut hasher);
        let hash = format!("{:016x}", hasher.finish());
        let head: String = plain.chars().take(LONGEST - 1 - hash.len()).collect();
        let hashed = format!("{}-{hash}", head.trim_end_matches(['-', '.']));
        [if plain.len() <= LONGEST { plain } else { hashed.clone() }, hashed]
    }

    /// Whether a Secret is the copy.
    #[must_use]
    pub fn is_copy(&self, secret: &core::Secret) -> bool {
        original(secret).is_some_and(|original| original == (self.config_map, self.original.clone()))
    }

    /// What of the original's data is copied: the certificate and its key, or the authorities, and nothing that is kept beside them.
    #[must_use]
    pub fn content(&self, mut data: BTreeMap<String, ByteString>) -> BTreeMap<String, ByteString> {
        let keys: &[&str] = if self.config_map { &["ca.crt"] } else { &["tls.crt", "tls.key"] };
        data.retain(|key, _| keys.contains(&key.as_str()));
        data
    }

    /// The copy of what was read of the original, under a name in `namespace`.
    #[must_use]
    pub fn secret(&self, name: &str, namespace: &str, data: BTreeMap<String, ByteString>) -> core::Secret {
        let ObjectName { namespace: owner, name: original } = &self.original;
        let mut labels = BTreeMap::from([(OWNING_NAMESPACE.to_owned(), owner.to_string())]);
        let mut annotations = BTreeMap::new();
        let told = if original.len() <= LONGEST_LABEL { &mut labels } else { &mut annotations };
        told.insert(OWNING_NAME.to_owned(), original.to_string());
        if self.config_map {
            labels.insert(OWNING_KIND.to_owned(), "ConfigMap".to_owned());
        }
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
        let kind = if self.config_map { "Opaque" } else { "kubernetes.io/tls" };
        core::Secret { metadata, type_: Some(kind.to_owned()), data: Some(data), ..core::Secret::default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::source::ingest_synced;

    fn of(namespace: &str, name: &str) -> Copy {
        Copy { config_map: false, original: ObjectName::new(namespace, name), version: "1".into() }
    }

    #[test]
    fn what_is_kept_beside_a_certificate_is_not_copied() {
        let all = ["ca.crt", "ca.key", "keystore.jks", "tls.crt", "tls.key"];
        let data = || all.iter().map(|key| ((*key).to_owned(), ByteString::default())).collect();
        let keys = |copy: &Copy| copy.content(data()).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(&of("n", "c")), ["tls.crt", "tls.key"]);
        assert_eq!(keys(&Copy { config_map: true, ..of("n", "c") }), ["ca.crt"]);
    }

    #[test]
    fn a_copy_tells_of_its_original_alone_however_long_its_name() {
        for original in [of("a-b", "c"), of("a", "b-c"), of("a", &"n".repeat(253))] {
            let [plain, hashed] = original.names();
            assert!(plain.len() <= LONGEST && hashed.len() <= LONGEST);
            let secret = original.secret(&plain, "cilium-secrets", BTreeMap::new());
            assert!(original.is_copy(&secret));
            assert!(!Copy { config_map: true, ..original.clone() }.is_copy(&secret));
            assert_eq!(ingest_synced(&secret).unwrap().name, original.original);
        }
        assert_eq!(of("a-b", "c").names().first(), of("a", "b-c").names().first());
        assert_ne!(of("a-b", "c").names().last(), of("a", "b-c").names().last());
    }
}
