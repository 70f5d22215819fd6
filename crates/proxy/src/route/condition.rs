// SPDX-License-Identifier: Apache-2.0
//! What a request must have besides its host and path.

use crate::invalid::{InField, Invalid};
use http::header::{HeaderMap, HeaderName};
use http::{Method, Uri};
use l7::{RouteMatch, ValueMatch, syntax};
use regex::Regex;
use std::borrow::Cow;
use std::fmt;

/// Method, headers and query of a request that a route is for.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    method: Option<Method>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(String, Value)>,
}

/// What a request lacks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lack<'a> {
    Method(&'a Method),
    Header(&'a HeaderName, &'a Value),
    Query(&'a str, &'a Value),
}

impl fmt::Display for Lack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => write!(f, "its method is not {method}"),
            Self::Header(name, value) => write!(f, "its header {name} {value}"),
            Self::Query(name, value) => write!(f, "its query parameter {name} {value}"),
        }
    }
}

/// What a header or a parameter must be.
#[derive(Debug)]
pub(crate) enum Value {
    Exact(String),
    Regex(Regex),
    Present,
}

impl Condition {
    pub(crate) fn parse(rule: &RouteMatch) -> Result<Self, Invalid> {
        let method = rule.method.as_deref().map(|method| method.parse().in_field("method")).transpose()?;
        let header = |(name, value): &(String, ValueMatch)| {
            Ok((syntax::header_name(name).in_field("headers")?, Value::parse(value, "headers")?))
        };
        let parameter = |(name, value): &(String, ValueMatch)| Ok((name.clone(), Value::parse(value, "query")?));
        Ok(Self {
            method,
            headers: rule.headers.iter().map(header).collect::<Result<_, Invalid>>()?,
            query: rule.query.iter().map(parameter).collect::<Result<_, Invalid>>()?,
        })
    }

    /// What a request lacks of it, if anything.
    pub(crate) fn lacks(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Lack<'_>> {
        if let Some(wanted) = self.method.as_ref().filter(|wanted| *wanted != method) {
            return Some(Lack::Method(wanted));
        }
        let by_header =
            self.headers.iter().find(|(name, value)| !header(headers, name).is_some_and(|text| value.holds(&text)));
        let by_query =
            || self.query.iter().find(|(name, value)| !parameter(uri, name).is_some_and(|text| value.holds(&text)));
        let by_header = by_header.map(|(name, value)| Lack::Header(name, value));
        by_header.or_else(|| by_query().map(|(name, value)| Lack::Query(name, value)))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "is not {text:?}"),
            Self::Regex(regex) => write!(f, "does not match {:?}", regex.as_str()),
            Self::Present => f.write_str("is not there"),
        }
    }
}

impl Value {
    fn parse(value: &ValueMatch, field: &str) -> Result<Self, Invalid> {
        Ok(match value {
            ValueMatch::Exact(text) => Self::Exact(text.clone()),
            ValueMatch::Regex(text) => Self::Regex(syntax::expression(text).in_field(field)?),
            ValueMatch::Present => Self::Present,
        })
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Regex(regex) => regex.is_match(text),
            Self::Present => true,
        }
    }
}

/// All values of a header as one. What is not text is no value.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let first = Cow::Borrowed(values.next()?);
    Some(values.fold(first, |all, value| Cow::Owned(format!("{all},{value}"))))
}

fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<Cow<'a, str>> {
    let query = uri.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}
