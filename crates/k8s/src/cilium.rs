// SPDX-License-Identifier: Apache-2.0
//! Cilium's custom resources (group `cilium.io`, version `v2` unless they say another) as Rust types.
//!
//! Fields have the API's names. An absent list is `None`, an empty one `Some(vec![])`: in policies that is a difference.
//! Unknown fields are ignored, so that objects written by a newer version can be read.

mod cidr_group;
mod endpoint;
mod envoy_config;
mod gateway_class_config;
mod identity;
mod l2_announcement_policy;
mod load_balancer_ip_pool;
mod local_redirect_policy;
mod node;
mod policy;
mod resource;
mod validate;

pub use cidr_group::*;
pub use endpoint::*;
pub use envoy_config::*;
pub use gateway_class_config::*;
pub use identity::*;
pub use l2_announcement_policy::*;
pub use load_balancer_ip_pool::*;
pub use local_redirect_policy::*;
pub use node::*;
pub use policy::*;
pub use resource::{ApiVersion, Kind};
pub use validate::{Policy, Violation, validate, validate_rule};

/// API group of all of them.
pub const GROUP: &str = "cilium.io";
/// Annotation of a CiliumIdentity with the time at which it was last found in use.
pub const HEARTBEAT_ANNOTATION: &str = "io.cilium.heartbeat";
/// Label of a pod's namespace on a CiliumIdentity's metadata.
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

#[cfg(test)]
mod tests;
