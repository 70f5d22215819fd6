// SPDX-License-Identifier: Apache-2.0
//! Single-writer tables.

/// A row.
pub trait Row: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Key.
    type Key: Ord + Clone + std::fmt::Debug + Send + Sync + 'static;
    /// Its key.
    fn key(&self) -> Self::Key;
}
