// SPDX-License-Identifier: Apache-2.0
//! How many requests are let through.

use crate::{Name, time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A bucket of tokens, of which each request of the routes that refer to it takes one. Without one a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// What [`crate::Route`]s refer to. Those that name the same one share its tokens.
    pub name: Name,
    /// How many tokens there can be, and are at first.
    pub burst: u32,
    /// How many come back within [`Self::interval`], evenly.
    pub requests: u32,
    /// The interval; never 0.
    #[serde(with = "time")]
    pub interval: Duration,
    /// The status of a refusal.
    pub status: u16,
    /// Headers of a refusal.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}
