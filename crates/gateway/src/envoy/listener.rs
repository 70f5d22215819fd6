// SPDX-License-Identifier: Apache-2.0
//! Listeners: one filter chain, which is an HTTP connection manager or a TCP proxy.

use super::bytes::{self, Connections};
use super::fields::{Fields, Node, Result};
use super::limit::{self, Limit};
use super::routes::{self, Common, VirtualHost};
use std::collections::BTreeMap;
use std::sync::Arc;

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const INSPECTORS: [&str; 2] = [
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
];

/// What a listener does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Served {
    /// With requests.
    Requests(Vec<VirtualHost>),
    /// With connections, whatever is in them.
    Connections(Connections),
}

impl Served {
    /// Refuses everybody.
    pub(super) fn refusing(common: &Common<'_>, node: Option<&Node<'_>>) -> Self {
        // Who sends bytes waits for no answer.
        if node.is_some_and(is_for_bytes) {
            return Self::Connections(Connections::refusing());
        }
        Self::Requests(vec![VirtualHost::refusing(common)])
    }

    /// Those of requests.
    pub(crate) fn hosts(&self) -> &[VirtualHost] {
        match self {
            Self::Requests(hosts) => hosts,
            Self::Connections(_) => &[],
        }
    }

    /// The clusters that it names.
    pub(super) fn clusters(&self) -> Vec<&l7::Name> {
        match self {
            Self::Requests(hosts) => {
                hosts.iter().flat_map(|host| &host.rules).flat_map(|rule| routes::clusters(&rule.action)).collect()
            }
            Self::Connections(connections) => routes::targets(&connections.backends).collect(),
        }
    }
}

/// What a listener may refer to.
pub(super) struct Context<'a> {
    pub(super) config: &'a Arc<str>,
    pub(super) created: i64,
    /// Route configurations by name.
    pub(super) routes: &'a BTreeMap<&'a str, Node<'a>>,
}

impl Context<'_> {
    pub(super) fn common(&self, limit: Option<Limit>) -> Common<'_> {
        Common { config: self.config, created: self.created, limit }
    }
}

/// A `Listener`, without its type and name.
pub(super) fn resolve(context: &Context<'_>, mut fields: Fields<'_>) -> Result<Served> {
    fields.skip(&["stat_prefix", "traffic_direction", "internal_listener"]);
    fields.ignore(&[
        "address",
        "additional_addresses",
        "access_log",
        "per_connection_buffer_limit_bytes",
        "socket_options",
        "enable_reuse_port",
        "tcp_backlog_size",
        "continue_on_listener_filters_timeout",
        "listener_filters_timeout",
        "metadata",
        "bind_to_port",
        "drain_type",
        "tcp_fast_open_queue_length",
        "connection_balance_config",
    ]);
    for node in fields.items("listener_filters")? {
        let kind = filter_kind(&node)?.0;
        if !INSPECTORS.contains(&kind) {
            return node.fault(format_args!("{kind} is not supported"));
        }
    }
    let chains = fields.items("filter_chains")?;
    let [chain] = chains.as_slice() else { return fields.fault("has not exactly one of filter_chains") };
    fields.end()?;
    let mut chain = chain.fields()?;
    chain.skip(&["name"]);
    let filters = chain.items("filters")?;
    let [filter] = filters.as_slice() else { return chain.fault("has not exactly one of filters") };
    chain.end()?;
    match filter_kind(filter)? {
        (MANAGER, Some(manager)) => self::manager(context, manager).map(Served::Requests),
        (bytes::PROXY, Some(proxy)) => bytes::resolve(proxy).map(Served::Connections),
        (other, _) => filter.fault(format_args!("{other} is not supported: HttpConnectionManager and TcpProxy are")),
    }
}

/// Whether a listener that cannot be used would be for bytes.
fn is_for_bytes(listener: &Node<'_>) -> bool {
    fn first<'a>(node: &Node<'a>, list: &str) -> Option<Node<'a>> {
        node.fields().ok()?.items(list).ok()?.into_iter().next()
    }
    let filter = first(listener, "filter_chains").and_then(|chain| first(&chain, "filters"));
    filter.is_some_and(|filter| filter_kind(&filter).is_ok_and(|(kind, _)| kind == bytes::PROXY))
}

/// The message of a filter, and its fields.
fn filter_kind<'a>(node: &Node<'a>) -> Result<(&'a str, Option<Fields<'a>>)> {
    let mut filter = node.fields()?;
    let name = filter.text("name")?.unwrap_or_default();
    let Some(mut config) = filter.object("typed_config")? else {
        filter.end()?;
        return Ok((name, None));
    };
    filter.end()?;
    Ok((config.kind()?, Some(config)))
}

fn manager(context: &Context<'_>, mut fields: Fields<'_>) -> Result<Vec<VirtualHost>> {
    // What is skipped is done here in any case: other protocols are agreed on, and paths are in one form.
    fields.skip(&[
        "stat_prefix",
        "upgrade_configs",
        "normalize_path",
        "strip_any_host_port",
        "strip_matching_host_port",
    ]);
    fields.ignore(&[
        "access_log",
        "access_log_options",
        "add_user_agent",
        "always_set_request_id_in_response",
        "codec_type",
        "common_http_protocol_options",
        "delayed_close_timeout",
        "drain_timeout",
        "forward_client_cert_details",
        "generate_request_id",
        "http2_protocol_options",
        "http_protocol_options",
        "internal_address_config",
        "local_reply_config",
        "max_request_headers_kb",
        "preserve_external_request_id",
        "request_headers_timeout",
        "request_id_extension",
        "request_timeout",
        "server_header_transformation",
        "server_name",
        "set_current_client_cert_details",
        "skip_xff_append",
        "stream_error_on_invalid_http_message",
        "stream_idle_timeout",
        "tracing",
        "use_remote_address",
        "via",
        "xff_num_trusted_hops",
    ]);
    fields.off(&["merge_slashes"])?;
    if let Some(action) = fields.take("path_with_escaped_slashes_action")
        && !matches!(action.text()?, "KEEP_UNCHANGED" | "IMPLEMENTATION_SPECIFIC_DEFAULT")
    {
        return action.fault("encoded slashes stay as they are");
    }
    let limit = http_filters(context, &fields.items("http_filters")?)?;
    let common = context.common(limit);
    let inline = fields.object("route_config")?;
    let named = fields.object("rds")?;
    let path = fields.path.clone();
    fields.end()?;
    match (inline, named) {
        (Some(routes), None) => routes::resolve(&common, routes),
        (None, Some(mut rds)) => {
            rds.skip(&["config_source"]);
            let name = rds.required("route_config_name")?;
            rds.end()?;
            let routes = context.routes.get(name.text()?).map(Node::fields).transpose()?;
            let Some(mut routes) = routes else {
                return name.fault("there is no such RouteConfiguration among the resources");
            };
            routes.skip(&["@type"]);
            routes::resolve(&common, routes)
        }
        _ => Err(super::fields::Fault(format!("{path}: has not one of route_config and rds"))),
    }
}

/// What the filters say of limits. Any filter that is not known may be there to refuse somebody.
fn http_filters(context: &Context<'_>, filters: &[Node<'_>]) -> Result<Option<Limit>> {
    let mut limit = None;
    for node in filters {
        match filter_kind(node)? {
            (ROUTER, fields) => fields.map_or(Ok(()), router)?,
            ("envoy.filters.http.router", None) => {}
            (limit::MESSAGE, Some(fields)) if limit.is_none() => {
                limit = Some(limit::resolve(fields, context.config)?);
            }
            (other, _) => return node.fault(format_args!("{other} is not supported")),
        }
    }
    Ok(limit)
}

fn router(mut fields: Fields<'_>) -> Result<()> {
    fields.ignore(&[
        "dynamic_stats",
        "start_child_span",
        "upstream_log",
        "upstream_log_options",
        "suppress_envoy_headers",
        "strict_check_headers",
        "respect_expected_rq_timeout",
        "suppress_grpc_request_failure_code_stats",
    ]);
    fields.end()
}
