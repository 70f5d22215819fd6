// SPDX-License-Identifier: Apache-2.0
//! What is done with requests that match: where they are sent, and how often.

use super::fields::{Fields, Node, Result};
use super::headers;
use super::limit::denominator;
use super::matches::pattern;
use l7::{
    Answer, Backend, Filters, HttpForward, Mirror, PathChange, Redirect, Retry, RetryBudget, Rewrite, RouteAction,
    Share, syntax,
};
use std::time::Duration;

/// Time for an answer if nothing is said of it; Envoy's own.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Between two attempts if nothing is said of it; Envoy's own.
const BACKOFF: Duration = Duration::from_millis(25);
/// Longest body of an answer that no backend is asked for; Envoy's own.
const LONGEST_BODY: usize = 4096;

/// What a text is as another path.
type Change = fn(String) -> PathChange;

/// What an action is, and what it changes. Targets are Envoy's names of clusters.
pub(super) type Acted = (RouteAction, Rewrite);

/// A `RouteAction`. `retry`: what the virtual host says of it.
pub(super) fn forward(node: &Node<'_>, retry: Option<&Retried>) -> Result<Acted> {
    let mut fields = node.fields()?;
    fields.skip(&["max_grpc_timeout", "upgrade_configs"]);
    fields.ignore(&[
        "idle_timeout",
        "hash_policy",
        "priority",
        "max_stream_duration",
        "append_x_forwarded_host",
        "cluster_not_found_response_code",
        "flush_timeout",
    ]);
    let mut forward = HttpForward { backends: backends(&mut fields, headers::changes)?, ..HttpForward::default() };
    forward.timeout = Some(fields.duration("timeout")?.unwrap_or(TIMEOUT)).filter(|timeout| !timeout.is_zero());
    let own = fields.object("retry_policy")?.map(self::retry).transpose()?;
    if let Some((retry, attempt)) = own.or_else(|| retry.cloned()) {
        (forward.retry, forward.attempt_timeout) = (Some(Box::new(retry)), attempt);
    }
    forward.mirrors = fields.items("request_mirror_policies")?.iter().map(mirror).collect::<Result<_>>()?;
    let rewrite = rewrite(&mut fields)?;
    fields.end()?;
    Ok((RouteAction::Forward(forward), rewrite))
}

/// The cluster, or several by weight. `changes`: what may be changed on the way to one of several.
pub(super) fn backends(
    fields: &mut Fields<'_>,
    changes: fn(&mut Fields<'_>) -> Result<Filters>,
) -> Result<Vec<Backend>> {
    if let Some(name) = fields.text("cluster")? {
        return Ok(vec![Backend::to(name, 1)]);
    }
    let Some(mut weighted) = fields.object("weighted_clusters")? else { return fields.fault("names no cluster") };
    weighted.ignore(&["runtime_key_prefix", "total_weight"]);
    let clusters = weighted.items("clusters")?;
    weighted.end()?;
    let share = |node: &Node<'_>| {
        let mut fields = node.fields()?;
        let name = fields.required("name")?.text()?;
        let weight = fields.number("weight")?.unwrap_or_default();
        let filters = changes(&mut fields)?;
        fields.end()?;
        Ok(Backend { filters: filters.into(), ..Backend::to(name, weight) })
    };
    clusters.iter().map(share).collect()
}

fn rewrite(fields: &mut Fields<'_>) -> Result<Rewrite> {
    let mut rewrite = Rewrite::default();
    if let Some(node) = fields.take("host_rewrite_literal") {
        node.usable(syntax::authority(node.text()?))?;
        rewrite.host = Some(node.text()?.to_owned());
    }
    if let Some(node) = fields.take("prefix_rewrite") {
        rewrite.path = Some(PathChange::Start(node.usable(syntax::path(node.text()?))?));
    }
    if let Some(node) = fields.take("regex_rewrite") {
        let mut fields = node.fields()?;
        let expression = fields.required("pattern")?;
        let pattern = pattern(&expression)?;
        let groups = expression.usable(syntax::pattern(&pattern))?.captures_len();
        let with = fields.text("substitution")?.unwrap_or_default();
        node.usable(syntax::substitution(with, groups))?;
        fields.end()?;
        if rewrite.path.replace(PathChange::Replace { pattern, with: with.to_owned() }).is_some() {
            return node.fault("excludes prefix_rewrite");
        }
    }
    Ok(rewrite)
}

/// Whether there is another attempt, and the time for each.
pub(super) type Retried = (Retry, Option<Duration>);

/// A `RetryPolicy`.
pub(super) fn retry(mut fields: Fields<'_>) -> Result<Retried> {
    fields.ignore(&[
        "retry_priority",
        "retry_host_predicate",
        "host_selection_retry_max_attempts",
        "per_try_idle_timeout",
        "rate_limited_retry_back_off",
        "retriable_headers",
        "retriable_request_headers",
        "retry_options_predicates",
    ]);
    let attempts = fields.number("num_retries")?.unwrap_or(1);
    let listed = fields.items("retriable_status_codes")?;
    let listed = listed.iter().map(Node::number).collect::<Result<Vec<u16>>>()?;
    let mut statuses = Vec::new();
    if let Some(node) = fields.take("retry_on") {
        for word in node.text()?.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "5xx" => statuses.extend(500..=599),
                "gateway-error" => statuses.extend(502..=504),
                "retriable-4xx" => statuses.push(409),
                "retriable-status-codes" => statuses.extend_from_slice(&listed),
                // Of these there is another attempt in any case.
                "connect-failure" | "reset" | "reset-before-request" | "refused-stream" => {}
                other => node.reading.note(format!("{}: {other} is not honoured", node.path)),
            }
        }
    }
    statuses.sort_unstable();
    statuses.dedup();
    if statuses.iter().any(|status| !(200..=599).contains(status)) {
        return fields.fault("retriable_status_codes has something that is no status of an answer");
    }
    let attempt = fields.duration("per_try_timeout")?.filter(|timeout| !timeout.is_zero());
    let mut backoff = BACKOFF;
    if let Some(mut times) = fields.object("retry_back_off")? {
        times.ignore(&["max_interval"]);
        backoff = times.duration("base_interval")?.unwrap_or(backoff);
        times.end()?;
    }
    fields.end()?;
    Ok((Retry { attempts, statuses, backoff, budget: RetryBudget::default() }, attempt))
}

fn mirror(node: &Node<'_>) -> Result<Mirror> {
    let mut fields = node.fields()?;
    fields.ignore(&["trace_sampled", "disable_shadow_host_suffix_append"]);
    let cluster = fields.required("cluster")?.text()?.into();
    let mut share = Share::ALL;
    if let Some(mut fraction) = fields.object("runtime_fraction")? {
        fraction.skip(&["runtime_key"]);
        let mut percent = fraction.required("default_value")?.fields()?;
        fraction.end()?;
        share = Share {
            numerator: percent.number("numerator")?.unwrap_or_default(),
            denominator: denominator(&mut percent)?,
        };
        percent.end()?;
    }
    fields.end()?;
    Ok(Mirror { cluster, share })
}

/// A `RedirectAction`.
pub(super) fn redirect(node: &Node<'_>) -> Result<RouteAction> {
    let mut fields = node.fields()?;
    fields.off(&["strip_query"])?;
    let mut redirect = Redirect { status: status(&mut fields)?, ..Redirect::default() };
    if let Some(node) = fields.take("host_redirect") {
        node.usable(syntax::authority(node.text()?))?;
        redirect.host = Some(node.text()?.to_owned());
    }
    redirect.port = fields.number("port_redirect")?;
    let https = fields.is_set("https_redirect")?;
    redirect.scheme = fields.text("scheme_redirect")?.or(https.then_some("https")).map(ToOwned::to_owned);
    if redirect.scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return fields.fault("scheme_redirect is neither http nor https");
    }
    let changes: [(&str, Change); 2] = [("path_redirect", PathChange::Full), ("prefix_rewrite", PathChange::Start)];
    for (name, change) in changes {
        if let Some(node) = fields.take(name) {
            redirect.path = Some(change(node.usable(syntax::path(node.text()?))?));
        }
    }
    fields.end()?;
    Ok(RouteAction::Redirect(Box::new(redirect)))
}

fn status(fields: &mut Fields<'_>) -> Result<u16> {
    Ok(match fields.text("response_code")?.unwrap_or("MOVED_PERMANENTLY") {
        "MOVED_PERMANENTLY" => 301,
        "FOUND" => 302,
        "SEE_OTHER" => 303,
        "TEMPORARY_REDIRECT" => 307,
        "PERMANENT_REDIRECT" => 308,
        other => return fields.fault(format_args!("response_code {other} is not supported")),
    })
}

/// A `DirectResponseAction`.
pub(super) fn answer(node: &Node<'_>) -> Result<RouteAction> {
    let mut fields = node.fields()?;
    let code = fields.required("status")?;
    let status = code.number()?;
    if !(200..=599).contains(&status) {
        return code.fault(format_args!("{status} is no status of an answer"));
    }
    let mut body = String::new();
    if let Some(mut source) = fields.object("body")? {
        source.required("inline_string")?.text()?.clone_into(&mut body);
        source.end()?;
    }
    if body.len() > LONGEST_BODY {
        return node.fault(format_args!("the body has more than {LONGEST_BODY} bytes"));
    }
    fields.end()?;
    Ok(RouteAction::Answer(Answer { status, body }))
}
