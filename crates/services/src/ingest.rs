// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' Services and EndpointSlices to source rows. An object with a field that cannot be read is an error that names the
//! field, and the row that an earlier version of the object gave stays. What can be read but not honoured is a [`Problem`] of the row.

mod annotations;
pub(crate) mod limits;
mod own_node;
mod redirect;
pub(crate) mod said;
mod service;
mod slice;

use crate::Config;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use own_node::{OwnNode, ingest_own_node};
pub(crate) use redirect::target;
pub use redirect::{JudgedRedirect, Redirect, RedirectFrom, RedirectPort, ingest_redirect, judge_redirect};
pub use said::HonouredCondition;
pub use service::{Service, ServicePort, ingest_service, ingest_service_to_judge};
pub use slice::{EndpointSlice, Port, SliceEndpoint, SliceName, ingest_slice, ingest_slice_to_judge};

/// Something in an object that is not honoured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the field, or the annotation.
    pub field: String,
    /// Why, and what happens instead.
    pub reason: String,
}

/// Bytes of a field's path, which names an object at most.
const LONGEST_FIELD: usize = 320;
/// Bytes of a reason: values that authors wrote can be as long as an object.
const LONGEST_REASON: usize = 512;

impl Problem {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (field, reason) = (field.into(), reason.into());
        Self { field: k8s::shortened(field, LONGEST_FIELD), reason: k8s::shortened(reason, LONGEST_REASON) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";

fn names(meta: &ObjectMeta) -> Option<(Arc<str>, Arc<str>)> {
    Some((meta.namespace.as_deref()?.into(), meta.name.as_deref()?.into()))
}

/// When the object was made, in seconds since 1970; 0 if it does not say.
fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether no other proxy is to take care of the object.
fn ours(config: &Config, meta: &ObjectMeta) -> bool {
    match label(meta, PROXY_NAME) {
        Some(name) => !config.proxy_name.is_empty() && name == config.proxy_name,
        None => config.proxy_name.is_empty(),
    }
}

fn port_name(name: Option<&str>) -> Option<Arc<str>> {
    name.filter(|n| !n.is_empty()).map(Arc::from)
}

/// Whether connections to the address can be anybody's but the host's own: at others, a Service would take what is not meant for it.
pub(crate) fn is_routable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests;
