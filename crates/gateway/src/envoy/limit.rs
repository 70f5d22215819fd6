// SPDX-License-Identifier: Apache-2.0
//! Local rate limits: buckets of a listener, a virtual host or a route.

use super::fields::{Fields, Node, Result};
use super::headers;
use l7::{Name, RateLimit};
use std::time::Duration;

/// How the filter is called in a listener, and its configuration elsewhere.
pub(super) const FILTER: &str = "envoy.filters.http.local_ratelimit";
pub(super) const MESSAGE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// What clients of Envoy know a refusal by.
const MARK: (&str, &str) = ("x-envoy-ratelimited", "true");

/// What a level says of limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// What the level around it says.
    Inherited,
    /// Nothing is limited.
    Off,
    /// The bucket of this name.
    By(Name),
}

impl Limit {
    pub(super) fn or(self, outer: &Self) -> Self {
        if self == Self::Inherited { outer.clone() } else { self }
    }

    pub(super) fn name(&self) -> Option<Name> {
        match self {
            Self::By(name) => Some(name.clone()),
            Self::Inherited | Self::Off => None,
        }
    }
}

/// What an object says in its `typed_per_filter_config`.
pub(super) fn of_level(fields: &mut Fields<'_>, config: &str) -> Result<Limit> {
    let Some(mut filters) = fields.object("typed_per_filter_config")? else { return Ok(Limit::Inherited) };
    let limit = match filters.take(FILTER) {
        Some(node) => {
            let mut fields = node.fields()?;
            match fields.kind()? {
                MESSAGE => resolve(fields, config)?,
                other => return node.fault(format_args!("{other} is not supported")),
            }
        }
        None => Limit::Inherited,
    };
    filters.end()?;
    Ok(limit)
}

/// A `LocalRateLimit`, without its type.
pub(super) fn resolve(mut fields: Fields<'_>, config: &str) -> Result<Limit> {
    fields.skip(&["stat_prefix"]);
    fields.ignore(&[
        "stage",
        "enable_x_ratelimit_headers",
        "vh_rate_limits",
        "rate_limited_as_resource_exhausted",
        "request_headers_to_add_when_not_enforced",
        "always_consume_default_token_bucket",
    ]);
    fields.off(&["local_rate_limit_per_downstream_connection"])?;
    let enabled = [fields.object("filter_enabled")?, fields.object("filter_enforced")?];
    let enabled = enabled.into_iter().map(is_on).collect::<Result<Vec<_>>>()?;
    let status = fields.object("status")?.map(status).transpose()?.unwrap_or(429);
    let mut extra = Vec::new();
    if !fields.is_set("disable_x_envoy_ratelimited_header")? {
        extra.push((MARK.0.to_owned(), MARK.1.to_owned()));
    }
    for node in fields.items("response_headers_to_add")? {
        extra.push(headers::option(&node)?.0);
    }
    let bucket = fields.take("token_bucket");
    let (path, reading) = (fields.path.clone(), fields.reading());
    fields.end()?;
    let Some(bucket) = bucket else { return Ok(Limit::Inherited) };
    if enabled.contains(&false) {
        reading
            .note(format!("{path}: nothing is limited, since filter_enabled and filter_enforced are not both 100 %"));
        return Ok(Limit::Off);
    }
    let mut limits = reading.limits.borrow_mut();
    let name: Name = format!("{config} limit {}", limits.len()).into();
    limits.push(RateLimit { name: name.clone(), status, headers: extra, ..tokens(&bucket)? });
    Ok(Limit::By(name))
}

/// A `TokenBucket`.
fn tokens(node: &Node<'_>) -> Result<RateLimit> {
    let mut fields = node.fields()?;
    let burst = fields.required("max_tokens")?.number()?;
    let requests = fields.number("tokens_per_fill")?.unwrap_or(1);
    let interval = fields.duration("fill_interval")?.unwrap_or_default();
    fields.end()?;
    // The proxy is told milliseconds, and each token takes it a nanosecond at least.
    let interval = Duration::from_millis(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
    let each = interval.as_nanos().checked_div(u128::from(requests)).unwrap_or_default();
    if burst == 0 || each == 0 {
        return node.fault("there must be a token, and some of them must come back in a time of a millisecond or more");
    }
    Ok(RateLimit { name: "".into(), burst, requests, interval, status: 0, headers: Vec::new() })
}

/// A `RuntimeFractionalPercent`: all or nothing.
fn is_on(fields: Option<Fields<'_>>) -> Result<bool> {
    let Some(mut fields) = fields else { return Ok(false) };
    fields.skip(&["runtime_key"]);
    let Some(mut percent) = fields.object("default_value")? else { return fields.fault("has no default_value") };
    fields.end()?;
    let numerator: u32 = percent.number("numerator")?.unwrap_or_default();
    let denominator = denominator(&mut percent)?;
    if numerator != 0 && numerator < denominator {
        return percent.fault("a limit holds for all requests or for none");
    }
    percent.end()?;
    Ok(numerator != 0)
}

/// The denominator of a `FractionalPercent`.
pub(super) fn denominator(percent: &mut Fields<'_>) -> Result<u32> {
    match percent.text("denominator")?.unwrap_or("HUNDRED") {
        "HUNDRED" => Ok(100),
        "TEN_THOUSAND" => Ok(10_000),
        "MILLION" => Ok(1_000_000),
        other => percent.fault(format_args!("denominator {other} is not supported")),
    }
}

/// An `HttpStatus` by which requests are refused.
fn status(mut fields: Fields<'_>) -> Result<u16> {
    let Some(node) = fields.take("code") else { return fields.fault("has no code") };
    fields.end()?;
    match node.value.as_str() {
        Some("TooManyRequests") => Ok(429),
        Some("ServiceUnavailable") => Ok(503),
        _ => match node.number()? {
            status @ 400..=599 => Ok(status),
            other => node.fault(format_args!("{other} refuses nothing")),
        },
    }
}
