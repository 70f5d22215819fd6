// SPDX-License-Identifier: Apache-2.0
//! Objects decoded one by one, so that an invalid one does not fail the whole list.

use kube::Api;
use kube::core::{DynamicResourceScope, ObjectMeta};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// An object, or why it cannot be decoded.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<K> {
    metadata: ObjectMeta,
    pub(super) object: Result<K, String>,
}

/// The same API for guarded objects, with the client mapped by `client`.
pub(super) fn api<K: kube::Resource>(
    api: Api<K>,
    kind: &K::DynamicType,
    client: impl FnOnce(kube::Client) -> kube::Client,
) -> Api<Guarded<K>> {
    match api.namespace().map(str::to_owned) {
        Some(namespace) => Api::namespaced_with(client(api.into_client()), &namespace, kind),
        None => Api::all_with(client(api.into_client()), kind),
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Head {
            metadata: ObjectMeta,
        }
        let value = serde_json::Value::deserialize(deserializer)?;
        match K::deserialize(&value) {
            Ok(object) => Ok(Self { metadata: ObjectMeta::default(), object: Ok(object) }),
            Err(error) => {
                let head = Head::deserialize(&value).map_err(D::Error::custom)?;
                Ok(Self { metadata: head.metadata, object: Err(error.to_string()) })
            }
        }
    }
}

impl<K: kube::Resource> kube::Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    // Unknown to the compiler here, and not needed: the namespace is taken over from the original.
    type Scope = DynamicResourceScope;

    fn kind(kind: &K::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &K::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &K::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &K::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.object {
            Ok(object) => object.meta(),
            Err(_) => &self.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.object {
            Ok(object) => object.meta_mut(),
            Err(_) => &mut self.metadata,
        }
    }
}
