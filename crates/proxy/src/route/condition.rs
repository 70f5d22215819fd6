// SPDX-License-Identifier: Apache-2.0
//! What a request must have besides its host and path.

use super::expression::Expressions;
use super::sought::Sought;
use crate::invalid::{InField, Invalid};
use http::Method;
use http::header::{HeaderMap, HeaderName};
use l7::{RouteMatch, ValueMatch, syntax};
use regex::Regex;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Method, headers and query of a request that a route is for. Most routes are for any.
#[derive(Debug)]
pub(crate) struct Condition(Option<Box<Asked>>);

/// What is asked for.
#[derive(Debug)]
struct Asked {
    method: Option<Method>,
    headers: Box<[(HeaderName, Value)]>,
    query: Box<[(String, Value)]>,
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
    Regex(Arc<Regex>),
    Present,
    Absent,
    Not(Box<Value>),
}

impl Condition {
    pub(super) fn parse(rule: &RouteMatch, known: &mut Expressions) -> Result<Self, Invalid> {
        if rule.method.is_none() && rule.headers.is_empty() && rule.query.is_empty() {
            return Ok(Self(None));
        }
        let method = rule.method.as_deref().map(|method| method.parse().in_field("method")).transpose()?;
        let header = |(name, value): &(String, ValueMatch)| {
            Ok((syntax::header_name(name).in_field("headers")?, Value::parse(value, "headers", known)?))
        };
        let headers = rule.headers.iter().map(header).collect::<Result<_, Invalid>>()?;
        let parameter = |(name, value): &(String, ValueMatch)| Ok((name.clone(), Value::parse(value, "query", known)?));
        let query = rule.query.iter().map(parameter).collect::<Result<_, Invalid>>()?;
        Ok(Self(Some(Box::new(Asked { method, headers, query }))))
    }

    /// What a request lacks of it, if anything.
    pub(crate) fn lacks(&self, sought: &Sought<'_>) -> Option<Lack<'_>> {
        let asked = self.0.as_deref()?;
        if let Some(wanted) = asked.method.as_ref().filter(|wanted| *wanted != sought.method) {
            return Some(Lack::Method(wanted));
        }
        let by_header = asked.headers.iter().find(|(name, value)| !value.is_of_header(sought.headers, name));
        let by_query = || asked.query.iter().find(|(name, value)| !value.is_of(sought.parameter(name)));
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
            Self::Absent => f.write_str("is there"),
            Self::Not(value) => match &**value {
                Self::Exact(text) => write!(f, "is {text:?}, or not there"),
                Self::Regex(regex) => write!(f, "matches {:?}, or is not there", regex.as_str()),
                Self::Present | Self::Absent | Self::Not(_) => f.write_str("is what it may not be"),
            },
        }
    }
}

impl Value {
    fn parse(value: &ValueMatch, field: &str, known: &mut Expressions) -> Result<Self, Invalid> {
        Ok(match value {
            ValueMatch::Exact(text) => Self::Exact(text.clone()),
            ValueMatch::Regex(text) => Self::Regex(known.get(text).in_field(field)?),
            ValueMatch::Present => Self::Present,
            ValueMatch::Absent => Self::Absent,
            ValueMatch::Not(value) => Self::Not(Box::new(Self::parse(value, field, known)?)),
        })
    }

    /// Whether a header is as it is wanted. One whose value is not text has none, but it is there.
    fn is_of_header(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        match self {
            Self::Absent => !headers.contains_key(name),
            _ => self.is_of(header(headers, name).as_deref()),
        }
    }

    fn is_of(&self, text: Option<&str>) -> bool {
        match text {
            Some(text) => self.holds(text),
            None => matches!(self, Self::Absent),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Regex(regex) => regex.is_match(text),
            Self::Present => true,
            Self::Absent => false,
            Self::Not(value) => !value.holds(text),
        }
    }
}

/// All values of a header as one. What is not text is no value.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let first = Cow::Borrowed(values.next()?);
    Some(values.fold(first, |all, value| Cow::Owned(format!("{all},{value}"))))
}
