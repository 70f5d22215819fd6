// SPDX-License-Identifier: Apache-2.0
//! Route configurations: virtual hosts, and the rules of each.

use super::action::{self, Retried};
use super::fields::{Fields, Node, Result, is_plain};
use super::headers;
use super::limit::{self, Limit};
use super::matches;
use crate::route::Rule;
use l7::{Backend, Filters, HostMatch, Precedence, Rare, RouteAction, RouteMatch, Target};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The hosts of a listener that have the same rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VirtualHost {
    pub(crate) name: Arc<str>,
    pub(crate) hosts: Vec<HostMatch>,
    /// Targets are Envoy's names of clusters.
    pub(crate) rules: Vec<Rule>,
}

/// What all of a listener's rules have in common.
pub(super) struct Common<'a> {
    /// The object.
    pub(super) config: &'a Arc<str>,
    pub(super) created: i64,
    /// What the listener says of limits; none if it has no filter for them.
    pub(super) limit: Option<Limit>,
}

impl VirtualHost {
    /// One that refuses every request.
    pub(super) fn refusing(common: &Common<'_>) -> Self {
        let rule = common.answering(500, 0);
        Self { name: "refused".into(), hosts: vec![HostMatch::Any], rules: vec![rule] }
    }
}

impl Common<'_> {
    fn precedence(&self, place: usize) -> Precedence {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Precedence { created: self.created, source: Arc::clone(self.config), place, ..Precedence::default() }
    }

    /// A rule for all requests that nothing before is for.
    fn answering(&self, status: u16, place: usize) -> Rule {
        let matches = [RouteMatch { precedence: self.precedence(place), ..RouteMatch::default() }].into();
        Rule { matches, filters: Rare::default(), action: RouteAction::Respond(status), rate_limit: None }
    }

    /// What a level says of limits, which its listener must have a filter for.
    fn limit(&self, fields: &mut Fields<'_>) -> Result<Limit> {
        let limit = limit::of_level(fields, self.config)?;
        if limit != Limit::Inherited && self.limit.is_none() {
            return fields.fault(format_args!("the listener has no filter {}", limit::FILTER));
        }
        Ok(limit)
    }
}

/// A `RouteConfiguration`, without its type.
pub(super) fn resolve(common: &Common<'_>, mut fields: Fields<'_>) -> Result<Vec<VirtualHost>> {
    fields.skip(&["name"]);
    fields.ignore(&[
        "internal_only_headers",
        "validate_clusters",
        "max_direct_response_body_size_bytes",
        "ignore_port_in_host_matching",
        "metadata",
    ]);
    fields.off(&["most_specific_header_mutations_wins", "ignore_path_parameters_in_path_matching"])?;
    let outer = Level {
        changes: headers::changes(&mut fields)?,
        limit: common.limit(&mut fields)?.or(common.limit.as_ref().unwrap_or(&Limit::Off)),
        retry: None,
    };
    let hosts = fields.items("virtual_hosts")?;
    fields.end()?;
    let mut taken = BTreeSet::new();
    hosts.iter().map(|node| virtual_host(common, &outer, node, &mut taken)).collect()
}

/// What holds within a level unless something else is said further in.
struct Level {
    changes: Filters,
    limit: Limit,
    retry: Option<Retried>,
}

fn virtual_host(
    common: &Common<'_>,
    outer: &Level,
    node: &Node<'_>,
    taken: &mut BTreeSet<HostMatch>,
) -> Result<VirtualHost> {
    let mut fields = node.fields()?;
    fields.ignore(&[
        "virtual_clusters",
        "include_request_attempt_count",
        "include_attempt_count_in_response",
        "include_is_timeout_retry_header",
        "per_request_buffer_limit_bytes",
        "metadata",
    ]);
    let name = fields.text("name")?.unwrap_or_default();
    let name = if is_plain(name) { name } else { "" }.into();
    if let Some(tls) = fields.take("require_tls")
        && tls.text()? != "NONE"
    {
        return tls.fault("there is no TLS");
    }
    let level = Level {
        changes: headers::within(&headers::changes(&mut fields)?, &outer.changes),
        limit: common.limit(&mut fields)?.or(&outer.limit),
        retry: fields.object("retry_policy")?.map(action::retry).transpose()?,
    };
    let mut hosts = Vec::new();
    for domain in fields.items("domains")? {
        let host = domain_of(&domain)?;
        if !taken.insert(host.clone()) {
            return domain.fault("is another virtual host's already");
        }
        hosts.push(host);
    }
    let routes = fields.items("routes")?;
    fields.end()?;
    if hosts.is_empty() {
        return node.fault("has no domains");
    }
    let rules = routes.iter().enumerate().map(|(place, route)| rule(common, &level, place, route));
    let mut rules = rules.collect::<Result<Vec<_>>>()?;
    if !hosts.contains(&HostMatch::Any) {
        // What is for this virtual host is for no wider one.
        rules.push(common.answering(404, rules.len()));
    }
    Ok(VirtualHost { name, hosts, rules })
}

/// Requests are looked at without the port of their host.
fn domain_of(node: &Node<'_>) -> Result<HostMatch> {
    let text = node.text()?;
    let (host, port) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if port.is_some() {
        node.reading.note(format!("{}: its port is not honoured", node.path));
    }
    if text.is_empty() {
        return node.fault("is no domain");
    }
    node.usable(host.parse().map_err(|error: l7::ParseHostError| error.to_string()))
}

fn rule(common: &Common<'_>, outer: &Level, place: usize, node: &Node<'_>) -> Result<Rule> {
    let mut fields = node.fields()?;
    fields.skip(&["name", "stat_prefix"]);
    fields.ignore(&["metadata", "decorator", "tracing", "per_request_buffer_limit_bytes"]);
    let wanted = matches::resolve(&fields.required("match")?)?;
    let changes = headers::within(&headers::changes(&mut fields)?, &outer.changes);
    let rate_limit = common.limit(&mut fields)?.or(&outer.limit).name();
    let asked = [fields.take("route"), fields.take("redirect"), fields.take("direct_response")];
    fields.end()?;
    let (mut action, rewrite) = match &asked {
        [Some(forward), None, None] => action::forward(forward, outer.retry.as_ref())?,
        [None, Some(redirect), None] => (action::redirect(redirect)?, l7::Rewrite::default()),
        [None, None, Some(answer)] => (action::answer(answer)?, l7::Rewrite::default()),
        _ => return node.fault("has not one of route, redirect and direct_response"),
    };
    let mut filters = Filters { rewrite, ..changes };
    to_backends(&mut filters, &mut action);
    let matches = [RouteMatch { precedence: common.precedence(place), ..wanted }].into();
    Ok(Rule { matches, filters: filters.into(), action, rate_limit })
}

/// The clusters that an action names.
pub(super) fn clusters(action: &RouteAction) -> Vec<&l7::Name> {
    let RouteAction::Forward(forward) = action else { return Vec::new() };
    targets(&forward.backends).chain(forward.mirrors.iter().map(|mirror| &mirror.cluster)).collect()
}

/// The clusters of backends.
pub(super) fn targets(backends: &[Backend]) -> impl Iterator<Item = &l7::Name> {
    backends.iter().filter_map(|backend| match &backend.target {
        Target::Cluster(name) => Some(name),
        Target::Status(_) => None,
    })
}

/// Changes of one backend come before those of the route: if there are any, each backend has both.
fn to_backends(filters: &mut Filters, action: &mut RouteAction) {
    let RouteAction::Forward(forward) = action else { return };
    if forward.backends.iter().all(|backend| backend.filters.is_default()) {
        return;
    }
    for backend in &mut forward.backends {
        backend.filters = headers::within(&backend.filters.value(), filters).into();
    }
    *filters = Filters { rewrite: std::mem::take(&mut filters.rewrite), ..Filters::default() };
}
