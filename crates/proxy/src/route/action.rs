// SPDX-License-Identifier: Apache-2.0
//! What a route does, parsed.

use super::filter::{Filtering, NewPath};
use crate::budget::Budget;
use crate::invalid::{InField, Invalid};
use crate::token::Tokens;
use http::StatusCode;
use http::header::HeaderName;
use http::uri::Scheme;
use l7::{HttpForward, Mirror, Name, Persistence, Route, RouteAction, Target, syntax};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// A route.
#[derive(Debug)]
pub(crate) struct RouteRule {
    /// As it was given.
    pub(crate) given: Arc<Route>,
    pub(crate) filters: Filtering,
    pub(crate) action: Action,
}

/// What is done with a request.
#[derive(Debug)]
pub(crate) enum Action {
    Forward(Box<Forwarding>),
    Redirect(Box<Redirect>),
    Respond(StatusCode),
    Answer(StatusCode, String),
}

/// How a request reaches a backend.
#[derive(Debug)]
pub(crate) struct Forwarding {
    pub(crate) backends: Box<[Weighted]>,
    pub(crate) mirrors: Box<[Mirror]>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) retry: Option<Box<RetryRule>>,
    pub(crate) persistence: Option<Box<Held>>,
}

/// How a client comes back to its backend.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) by: HeldBy,
    pub(crate) tokens: Tokens,
}

/// What comes with a weight.
pub(crate) trait Pick {
    fn weight(&self) -> u32;
}

impl Pick for l7::Backend {
    fn weight(&self) -> u32 {
        self.weight
    }
}

/// A share of the requests.
#[derive(Debug)]
pub(crate) struct Weighted {
    pub(crate) target: Result<Name, StatusCode>,
    pub(crate) weight: u32,
    pub(crate) filters: Filtering,
}

impl Pick for Weighted {
    fn weight(&self) -> u32 {
        self.weight
    }
}

/// One of them, by weight.
pub(crate) fn pick<T: Pick>(all: &[T]) -> Option<&T> {
    let sum: u64 = all.iter().map(|one| u64::from(one.weight())).sum();
    let mut at = match all {
        [one] if sum > 0 => return Some(one),
        _ if sum > 0 => rand::rng().random_range(0..sum),
        _ => return None,
    };
    all.iter().find(|one| match at.checked_sub(one.weight().into()) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    })
}

/// When another attempt is made.
#[derive(Debug)]
pub(crate) struct RetryRule {
    pub(crate) attempts: u32,
    pub(crate) statuses: Vec<StatusCode>,
    pub(crate) backoff: Duration,
    pub(crate) budget: Budget,
}

/// What brings a client back to its backend.
#[derive(Debug)]
pub(crate) enum HeldBy {
    Cookie { name: String, lifetime: Option<Duration> },
    Header(HeaderName),
}

/// Where the client is to ask.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<Scheme>,
    pub(crate) host: Option<String>,
    pub(crate) path: Option<NewPath>,
    pub(crate) port: Option<u16>,
    pub(crate) status: StatusCode,
}

impl RouteRule {
    pub(crate) fn name(&self) -> &Name {
        &self.given.name
    }

    pub(crate) fn parse(route: &Arc<Route>) -> Result<Self, Invalid> {
        let action = match &route.action {
            RouteAction::Forward(forward) => Action::Forward(Box::new(Forwarding::parse(forward)?)),
            RouteAction::Redirect(redirect) => Action::Redirect(Box::new(Redirect::parse(redirect)?)),
            RouteAction::Respond(code) => Action::Respond(status(*code, "action.respond")?),
            RouteAction::Answer(answer) => Action::Answer(status(answer.status, "action.answer")?, answer.body.clone()),
        };
        let filters = Filtering::parse(&route.filters)?;
        Ok(Self { given: Arc::clone(route), filters, action })
    }
}

/// A status that ends a request: the others have meanings of their own.
fn status(code: u16, field: &str) -> Result<StatusCode, Invalid> {
    let status = StatusCode::from_u16(code).in_field(field)?;
    match status.is_informational() {
        true => Err(Invalid::new(field, format!("{code} ends no request"))),
        false => Ok(status),
    }
}

impl Forwarding {
    fn parse(forward: &HttpForward) -> Result<Self, Invalid> {
        if forward.mirrors.iter().any(|mirror| mirror.share.denominator == 0) {
            return Err(Invalid::new("mirrors.share", "denominator is 0"));
        }
        Ok(Self {
            backends: forward.backends.iter().map(Weighted::parse).collect::<Result<_, _>>()?,
            mirrors: forward.mirrors.as_slice().into(),
            timeout: forward.timeout.filter(|timeout| !timeout.is_zero()),
            attempt_timeout: forward.attempt_timeout.filter(|timeout| !timeout.is_zero()),
            retry: forward.retry.as_deref().map(RetryRule::parse).transpose()?.map(Box::new),
            persistence: forward.persistence.as_deref().map(|by| Held::parse(by, forward)).transpose()?.map(Box::new),
        })
    }
}

impl Weighted {
    fn parse(backend: &l7::Backend) -> Result<Self, Invalid> {
        let target = match &backend.target {
            Target::Cluster(name) => Ok(name.clone()),
            Target::Status(code) => Err(status(*code, "backends.target")?),
        };
        Ok(Self { target, weight: backend.weight, filters: Filtering::parse(&backend.filters)? })
    }
}

impl RetryRule {
    fn parse(retry: &l7::Retry) -> Result<Self, Invalid> {
        let statuses = retry.statuses.iter().map(|code| status(*code, "retry.statuses"));
        Ok(Self {
            attempts: retry.attempts,
            statuses: statuses.collect::<Result<_, _>>()?,
            backoff: retry.backoff,
            budget: Budget::new(retry.budget.clone()),
        })
    }
}

impl Held {
    fn parse(by: &Persistence, forward: &HttpForward) -> Result<Self, Invalid> {
        Ok(Self { by: HeldBy::parse(by)?, tokens: Tokens::new(forward.token_key.as_ref()) })
    }
}

impl HeldBy {
    fn parse(persistence: &Persistence) -> Result<Self, Invalid> {
        match persistence {
            Persistence::Cookie { name, lifetime } => {
                syntax::cookie_name(name).in_field("persistence.cookie")?;
                Ok(Self::Cookie { name: name.clone(), lifetime: *lifetime })
            }
            Persistence::Header(name) => Ok(Self::Header(syntax::header_name(name).in_field("persistence.header")?)),
        }
    }
}

impl Redirect {
    fn parse(redirect: &l7::Redirect) -> Result<Self, Invalid> {
        let status = status(redirect.status, "redirect.status")?;
        if !status.is_redirection() {
            return Err(Invalid::new("redirect.status", format!("{status} does not redirect")));
        }
        if let Some(host) = &redirect.host {
            syntax::authority(host).in_field("redirect.host")?;
        }
        Ok(Self {
            scheme: redirect.scheme.as_deref().map(|scheme| scheme.parse().in_field("redirect.scheme")).transpose()?,
            host: redirect.host.clone(),
            path: redirect.path.as_ref().map(NewPath::parse).transpose()?,
            port: redirect.port,
            status,
        })
    }
}
