// SPDX-License-Identifier: Apache-2.0
//! Gateway API's objects as Rust types, whichever version of them the cluster serves.
//!
//! They decode anything that any version allows: a missing field is `None` or empty, an unknown one is ignored, and a value
//! out of a fixed set is text, because later versions add to the set. What a value means, and whether it is one, is for
//! the reader to say.

mod edges;
mod object;
mod policies;
mod references;
mod routes;
mod rules;
mod status;

pub use crate::cilium::{GatewayClassConfigSpec, GatewayClassConfigStatus, ServiceParameters};
pub use edges::*;
pub(crate) use object::served;
pub use object::{Object, Served, Spec};
pub use policies::*;
pub use references::*;
pub use routes::*;
pub use rules::*;
pub use status::*;

/// API group of the stable kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// API group in which kinds are tried out; `XListenerSet` was there before Gateway API 1.5.
pub const TRIAL_GROUP: &str = "gateway.networking.x-k8s.io";

#[cfg(test)]
mod tests;
