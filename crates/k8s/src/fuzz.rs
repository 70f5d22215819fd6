// SPDX-License-Identifier: Apache-2.0
//! For the fuzz targets of crates that read objects and no JSON. Not part of the product.

/// An object, if that is one.
#[must_use]
pub fn object<T: serde::de::DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}
