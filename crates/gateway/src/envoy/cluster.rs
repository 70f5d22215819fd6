// SPDX-License-Identifier: Apache-2.0
//! Clusters: a port of a Service, or addresses that are written down, and what may be taken of it.

use super::assignment;
use super::fields::{Fields, Node, Result, is_plain};
use crate::name::ObjectName;
use l7::{BackendProtocol, ClusterLimits};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time for a connection if nothing is said of it; Envoy's own.
const CONNECT: Duration = Duration::from_secs(5);
/// Requests that wait for a connection if nothing is said of it; Envoy's own.
const WAITING: u32 = 1024;
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How a cluster is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) limits: ClusterLimits,
    /// If the object says so itself.
    pub(crate) protocol: Option<BackendProtocol>,
    /// Where, if it is no port of a Service.
    pub(crate) addresses: BTreeSet<SocketAddr>,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// None: it is where its addresses are.
    pub(crate) port: Option<AskedPort>,
    pub(crate) spoken: Spoken,
}

/// A port of a Service as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedPort {
    pub(crate) service: ObjectName,
    /// Number or name; none: the only one.
    pub(crate) port: Option<Arc<str>>,
}

impl Cluster {
    /// The Service that it is a port of.
    pub(crate) fn service(&self) -> Option<&ObjectName> {
        self.port.as_ref().map(|asked| &asked.service)
    }
}

/// The `ClusterLoadAssignment`s among the resources, by name.
pub(super) type Assigned<'a> = dyn Fn(&str) -> Option<&'a Node<'a>> + 'a;

/// A `Cluster`, without its type and name.
pub(super) fn resolve(name: &str, mut fields: Fields<'_>, assigned: &Assigned<'_>) -> Result<Cluster> {
    fields.skip(&["alt_stat_name"]);
    fields.ignore(&[
        "outlier_detection",
        "health_checks",
        "common_lb_config",
        "ring_hash_lb_config",
        "maglev_lb_config",
        "least_request_lb_config",
        "round_robin_lb_config",
        "per_connection_buffer_limit_bytes",
        "upstream_connection_options",
        "connection_pool_per_downstream_connection",
        "ignore_health_on_host_removal",
        "dns_lookup_family",
        "metadata",
        "track_cluster_stats",
        "common_http_protocol_options",
    ]);
    let (port, addresses) = match fields.text("type")? {
        Some("EDS") => discovered(name, &mut fields, assigned)?,
        None | Some("STATIC") => (None, assignment::resolve(fields.required("load_assignment")?.fields()?)?),
        Some(other) => return fields.fault(format_args!("type {other} is not supported: EDS and STATIC are")),
    };
    if let Some(algorithm) = fields.text("lb_policy")?.filter(|policy| *policy != "LEAST_REQUEST") {
        let note = "is not honoured: of two endpoints, that with fewer requests is chosen";
        fields.reading().note(format!("{}.lb_policy: {algorithm} {note}", fields.path));
    }
    let connect = fields.duration("connect_timeout")?.filter(|time| !time.is_zero()).unwrap_or(CONNECT);
    let mut limits = ClusterLimits { connect, waiting: WAITING, ..ClusterLimits::default() };
    if let Some(breakers) = fields.object("circuit_breakers")? {
        circuit_breakers(breakers, &mut limits)?;
    }
    let protocol = protocol(&mut fields)?;
    fields.end()?;
    Ok(Cluster { port, spoken: Spoken { limits, protocol, addresses } })
}

/// Where a cluster is that names no addresses itself: where a resource says, or at a Service.
fn discovered(
    name: &str,
    fields: &mut Fields<'_>,
    assigned: &Assigned<'_>,
) -> Result<(Option<AskedPort>, BTreeSet<SocketAddr>)> {
    let mut service = name;
    if let Some(mut eds) = fields.object("eds_cluster_config")? {
        eds.skip(&["eds_config"]);
        service = eds.text("service_name")?.unwrap_or(name);
        eds.end()?;
    }
    if let Some(node) = assigned(service) {
        let mut fields = node.fields()?;
        fields.skip(&["@type"]);
        return Ok((None, assignment::resolve(fields)?));
    }
    match target(service) {
        Some((service, port)) => Ok((Some(AskedPort { service, port }), BTreeSet::new())),
        None => fields.fault(format_args!("{service:?} is no NAMESPACE/NAME or NAMESPACE/NAME:PORT of a Service")),
    }
}

/// A Service, and a port of it.
pub(super) fn target(text: &str) -> Option<(ObjectName, Option<Arc<str>>)> {
    let (namespace, rest) = text.split_once('/')?;
    let (name, port) = rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port)));
    let is_name = |text: &str| !text.is_empty() && is_plain(text) && !text.contains(['/', ':']);
    let valid = is_name(namespace) && is_name(name) && port.is_none_or(is_name);
    valid.then(|| (ObjectName::new(namespace, name), port.map(Arc::from)))
}

fn circuit_breakers(mut fields: Fields<'_>, limits: &mut ClusterLimits) -> Result<()> {
    fields.ignore(&["per_host_thresholds"]);
    for node in fields.items("thresholds")? {
        let mut threshold = node.fields()?;
        threshold.skip(&["track_remaining"]);
        threshold.ignore(&["max_connection_pools", "retry_budget"]);
        let priority = threshold.text("priority")?.unwrap_or("DEFAULT");
        let connections = threshold.number("max_connections")?;
        let waiting = threshold.number("max_pending_requests")?;
        let requests = threshold.number("max_requests")?;
        let retries = threshold.number("max_retries")?;
        threshold.end()?;
        if priority != "DEFAULT" {
            node.reading.note(format!("{}: priority {priority} is not honoured", node.path));
            continue;
        }
        limits.connections = connections.unwrap_or(limits.connections);
        limits.waiting = waiting.unwrap_or(limits.waiting);
        limits.requests = requests.unwrap_or(limits.requests);
        limits.retries = retries.or(limits.retries);
    }
    fields.end()
}

fn protocol(fields: &mut Fields<'_>) -> Result<Option<BackendProtocol>> {
    let mut protocol = fields.take("http2_protocol_options").map(|node| chosen(&node, BackendProtocol::Http2));
    if let Some(mut extensions) = fields.object("typed_extension_protocol_options")? {
        if let Some(node) = extensions.take(OPTIONS) {
            protocol = options(&node)?.or(protocol);
        }
        extensions.end()?;
    }
    Ok(protocol)
}

/// A protocol by its options, of which none is honoured.
fn chosen(options: &Node<'_>, protocol: BackendProtocol) -> BackendProtocol {
    if options.value.as_object().is_none_or(|options| !options.is_empty()) {
        options.reading.note(format!("{}: what it says of the protocol is not honoured", options.path));
    }
    protocol
}

/// An `HttpProtocolOptions`.
fn options(node: &Node<'_>) -> Result<Option<BackendProtocol>> {
    let mut fields = node.fields()?;
    fields.skip(&["@type"]);
    fields.ignore(&["common_http_protocol_options", "upstream_http_protocol_options"]);
    let mut protocol = None;
    if let Some(mut explicit) = fields.object("explicit_http_config")? {
        let (http2, http1) = (explicit.take("http2_protocol_options"), explicit.take("http_protocol_options"));
        explicit.end()?;
        let http1 = http1.map(|node| chosen(&node, BackendProtocol::Http1));
        protocol = http2.map(|node| chosen(&node, BackendProtocol::Http2)).or(http1);
    } else if fields.take("use_downstream_protocol_config").is_some() {
        node.reading.note(format!("{}.use_downstream_protocol_config is not honoured", node.path));
    }
    fields.end()?;
    Ok(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_after_a_service_and_perhaps_a_port() {
        let named = |port: Option<&str>| Some((ObjectName::new("shop", "cart"), port.map(Arc::from)));
        assert_eq!(target("shop/cart"), named(None));
        assert_eq!(target("shop/cart:80"), named(Some("80")));
        assert_eq!(target("shop/cart:http"), named(Some("http")));
        for text in ["cart", "/cart", "shop/", "shop/cart:", "a/b/c", "shop/cart:80:81", "", "shop/c\u{1b}"] {
            assert_eq!(target(text), None, "{text}");
        }
    }
}
