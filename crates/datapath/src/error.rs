// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between user space and the kernel, each with the object it happened to.

use std::io;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failure of a request to the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room for another entry.
    #[error("map {map} is full ({entries} entries)")]
    MapFull {
        /// Name of the map.
        map: &'static str,
        /// Its capacity.
        entries: u32,
    },
    /// An array does not reach that far.
    #[error("map {map} has no index {index} (it has {entries} entries)")]
    NoSuchIndex {
        /// Name of the map.
        map: &'static str,
        /// The index asked for.
        index: String,
        /// Its capacity.
        entries: u32,
    },
    /// An operation on a map failed.
    #[error("map {map}: {operation} failed")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}
