// SPDX-License-Identifier: Apache-2.0
//! Rules of HTTPRoutes, and what those of GRPCRoutes have in common with them.

use super::backend::weight;
use super::filters::{self, Asked};
use super::matches::{self, Origin};
use super::{Found, Rule};
use crate::cluster;
use crate::duration;
use k8s::gateway::{BackendRef, Filter, HttpMatch, HttpRule, Retry, SessionPersistence, Timeouts};
use l7::{Backend, HttpForward, Persistence, RouteAction, RouteMatch, Target, syntax};
use std::sync::Arc;
use std::time::Duration;

/// What requests are answered with whose rule, or whose share of it, has nowhere to go.
const NOWHERE: u16 = 500;
/// Between two attempts, if nothing else is asked for.
const BACKOFF: Duration = Duration::from_millis(25);

/// The rules of an HTTPRoute.
pub(super) fn resolve(found: &mut Found<'_>, rules: &[HttpRule]) -> Vec<Rule> {
    let any = [HttpMatch::default()];
    let rules = rules.iter().enumerate().map(|(number, rule)| {
        let asked = if rule.matches.is_empty() { &any[..] } else { &rule.matches };
        let matches = |origin: &Origin<'_>| asked.iter().map(|asked| matches::http(origin, asked)).collect();
        let parts = Parts { filters: &rule.filters, backends: &rule.backend_refs };
        build(found, number, matches, |found| {
            let (asked, mut forward) = parts.resolve(found)?;
            timeouts(&mut forward, rule.timeouts.as_ref())?;
            forward.retry = rule.retry.as_ref().map(retry).transpose()?.map(Box::new);
            forward.persistence = rule.session_persistence.as_ref().map(persistence).transpose()?.map(Box::new);
            Ok((asked, forward))
        })
    });
    in_place(rules.collect())
}

/// Numbers the matches of a route by their places in it.
pub(super) fn in_place(mut rules: Vec<Rule>) -> Vec<Rule> {
    let matches = rules.iter_mut().flat_map(|rule| Arc::make_mut(&mut rule.matches));
    for (place, one) in (0..).zip(matches) {
        one.precedence.place = place;
    }
    rules
}

/// A rule out of its matches and of what is done with what they match. What cannot be done is not passed over: such requests are refused.
pub(super) fn build(
    found: &mut Found<'_>,
    number: usize,
    matches: impl FnOnce(&Origin<'_>) -> Vec<Result<RouteMatch, String>>,
    action: impl FnOnce(&mut Found<'_>) -> Result<(Asked, HttpForward), String>,
) -> Rule {
    let source: Arc<str> = found.route.name.name.to_string().into();
    let origin = Origin { created: found.route.meta.created, source: &source };
    let (matches, faults): (Vec<_>, Vec<_>) = matches(&origin).into_iter().partition(Result::is_ok);
    let matches = matches.into_iter().flatten().collect();
    let action = action(found);
    let fault = faults.into_iter().find_map(Result::err).or_else(|| action.as_ref().err().cloned());
    if let Some(fault) = fault {
        found.dropped.push(format!("{number}: {fault}"));
    }
    let (filters, action) = match action {
        Ok((asked, _)) if asked.foreign => (asked.changes, RouteAction::Respond(NOWHERE)),
        Ok((Asked { changes, redirect: Some(redirect), .. }, _)) => {
            (changes, RouteAction::Redirect(Box::new(redirect)))
        }
        Ok((asked, forward)) if forward.backends.is_empty() => (asked.changes, RouteAction::Respond(NOWHERE)),
        Ok((asked, forward)) => (asked.changes, RouteAction::Forward(forward)),
        Err(_) => (l7::Filters::default(), RouteAction::Respond(NOWHERE)),
    };
    Rule { matches, filters: filters.into(), action, rate_limit: None }
}

/// The filters and backends of a rule.
pub(super) struct Parts<'a> {
    pub(super) filters: &'a [Filter],
    pub(super) backends: &'a [BackendRef],
}

impl Parts<'_> {
    pub(super) fn resolve(&self, found: &mut Found<'_>) -> Result<(Asked, HttpForward), String> {
        let mut asked = filters::resolve(found, self.filters)?;
        let mut forward = HttpForward { mirrors: std::mem::take(&mut asked.mirrors), ..HttpForward::default() };
        for reference in self.backends {
            let own = filters::resolve(found, &reference.filters)?;
            if own.redirect.is_some() || !own.mirrors.is_empty() {
                if self.backends.len() > 1 {
                    return Err("redirects and mirrors of one backend among several are not supported".to_owned());
                }
                asked.redirect = asked.redirect.or(own.redirect);
                forward.mirrors.extend(own.mirrors);
            }
            let port = found.port(reference).filter(|_| !own.foreign);
            let target = port.map_or(Target::Status(NOWHERE), |port| {
                Target::Cluster(cluster::name(&port, cluster::Use::Requests, None))
            });
            forward.backends.push(Backend { target, weight: weight(reference), filters: own.changes.into() });
        }
        Ok((asked, forward))
    }
}

fn timeouts(forward: &mut HttpForward, asked: Option<&Timeouts>) -> Result<(), String> {
    let read = |field: &str, text: Option<&str>| {
        let read = text.map(|text| duration::parse(text).ok_or_else(|| format!("{field} {text:?} is no duration")));
        read.transpose().map(|duration| duration.filter(|duration| !duration.is_zero()))
    };
    forward.timeout = read("timeouts.request", asked.and_then(|asked| asked.request.as_deref()))?;
    forward.attempt_timeout =
        read("timeouts.backendRequest", asked.and_then(|asked| asked.backend_request.as_deref()))?;
    Ok(())
}

fn retry(asked: &Retry) -> Result<l7::Retry, String> {
    let status = |code: &i64| u16::try_from(*code).map_err(|_| format!("retry.codes: {code} is no status"));
    let backoff = asked
        .backoff
        .as_deref()
        .map(|text| duration::parse(text).ok_or_else(|| format!("retry.backoff {text:?} is no duration")));
    let attempts = asked.attempts.unwrap_or(1);
    Ok(l7::Retry {
        attempts: u32::try_from(attempts).map_err(|_| format!("retry.attempts {attempts} is out of range"))?,
        statuses: asked.codes.iter().map(status).collect::<Result<_, _>>()?,
        backoff: backoff.transpose()?.unwrap_or(BACKOFF),
        budget: l7::RetryBudget::default(),
    })
}

/// How clients come back to their backend.
pub(super) fn persistence(asked: &SessionPersistence) -> Result<Persistence, String> {
    let session = asked.session_name.clone();
    let name = match asked.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => {
            let cookie = asked.cookie.clone().unwrap_or_default();
            let permanent = cookie.lifetime_type.as_deref() == Some("Permanent");
            let timeout = asked.absolute_timeout.as_deref().filter(|_| permanent);
            let lifetime = timeout.map(|text| {
                duration::parse(text)
                    .ok_or_else(|| format!("sessionPersistence.absoluteTimeout {text:?} is no duration"))
            });
            let name = cookie.name.or(session).unwrap_or_else(|| "cilium-session".to_owned());
            syntax::cookie_name(&name)?;
            return Ok(Persistence::Cookie { name, lifetime: lifetime.transpose()? });
        }
        "Header" => asked.header.as_ref().map(|header| header.name.clone()).or(session),
        other => return Err(format!("sessionPersistence.type {other:?} is not supported")),
    };
    let name = name.unwrap_or_else(|| "x-cilium-session".to_owned());
    syntax::header_name(&name)?;
    Ok(Persistence::Header(name))
}
