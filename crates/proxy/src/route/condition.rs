// SPDX-License-Identifier: Apache-2.0
//! What a request must have besides its host and path.

use crate::invalid::{InField, Invalid};
use http::header::{HeaderMap, HeaderName};
use http::{Method, Uri};
use l7::{RouteMatch, ValueMatch, syntax};
use regex::Regex;
use std::borrow::Cow;

/// Method, headers and query of a request that a route is for.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    method: Option<Method>,
    headers: Vec<(HeaderName, Value)>,
    query: Vec<(String, Value)>,
}

#[derive(Debug)]
enum Value {
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

    pub(crate) fn holds(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|(name, value)| header(headers, name).is_some_and(|text| value.holds(&text)))
            && self.query.iter().all(|(name, value)| parameter(uri, name).is_some_and(|text| value.holds(&text)))
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
