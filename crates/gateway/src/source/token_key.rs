// SPDX-License-Identifier: Apache-2.0
//! The key of session persistence: what one node's proxy gives a client, another's has to understand. The operator makes it once, in the
//! namespace of which agents may read Secrets.

use k8s::k8s_openapi::ByteString;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Name of the Secret.
pub const TOKEN_KEY: &str = "cilium-session-persistence";
/// The key in it.
const KEY: &str = "key";

/// The key. One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey(pub l7::TokenKey);

impl statedb::Row for TokenKey {
    type Key = ();
    fn key(&self) {}
}

/// The row of the Secret; none if there is no key in it.
#[must_use]
pub fn ingest_token_key(object: &core::Secret) -> Option<TokenKey> {
    if object.metadata.name.as_deref() != Some(TOKEN_KEY) {
        return None;
    }
    let ByteString(bytes) = object.data.as_ref()?.get(KEY)?;
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(|key| TokenKey(key.into()))
}

/// The Secret with a key.
#[must_use]
pub fn token_key_secret(key: [u8; 32]) -> core::Secret {
    let metadata = ObjectMeta { name: Some(TOKEN_KEY.to_owned()), ..ObjectMeta::default() };
    let data = BTreeMap::from([(KEY.to_owned(), ByteString(key.to_vec()))]);
    core::Secret { metadata, data: Some(data), ..core::Secret::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_is_made_is_read_and_a_short_one_is_none() {
        let mut secret = token_key_secret([7; 32]);
        assert_eq!(ingest_token_key(&secret), Some(TokenKey([7; 32].into())));
        secret.data = Some(BTreeMap::from([(KEY.to_owned(), ByteString(vec![7; 31]))]));
        assert_eq!(ingest_token_key(&secret), None);
        secret.metadata.name = Some("other".to_owned());
        secret.data = token_key_secret([7; 32]).data;
        assert_eq!(ingest_token_key(&secret), None);
    }
}
