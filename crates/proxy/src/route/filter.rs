// SPDX-License-Identifier: Apache-2.0
//! Filters, parsed.

use crate::invalid::{InField, Invalid};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use l7::syntax::Piece;
use l7::{Filters, HeaderChanges, Origin, PathChange, Rare, syntax};
use regex::Regex;
use std::ops::Deref;
use std::time::Duration;

/// Longest path that one may become, in bytes.
const LONGEST_PATH: usize = 60 << 10;

/// Nothing is changed.
static NONE: FilterSet = FilterSet {
    request: Edits { remove: Vec::new(), set: Vec::new(), add: Vec::new() },
    response: Edits { remove: Vec::new(), set: Vec::new(), add: Vec::new() },
    rewrite: Rewrite { host: None, path: None },
    cors: None,
};

/// The filters of a route or a backend, of which most have none.
#[derive(Debug)]
pub(crate) struct Filtering(Option<Box<FilterSet>>);

impl Filtering {
    pub(crate) fn parse(filters: &Rare<Filters>) -> Result<Self, Invalid> {
        let parsed = filters.get().map(FilterSet::parse).transpose()?;
        Ok(Self(parsed.map(Box::new)))
    }
}

impl Deref for Filtering {
    type Target = FilterSet;

    fn deref(&self) -> &FilterSet {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

/// What is changed on the way.
#[derive(Debug)]
pub(crate) struct FilterSet {
    pub(crate) request: Edits,
    pub(crate) response: Edits,
    pub(crate) rewrite: Rewrite,
    pub(crate) cors: Option<Cors>,
}

impl FilterSet {
    fn parse(filters: &Filters) -> Result<Self, Invalid> {
        Ok(Self {
            request: Edits::parse(&filters.request, "filters.request")?,
            response: Edits::parse(&filters.response, "filters.response")?,
            rewrite: Rewrite {
                host: filters
                    .rewrite
                    .host
                    .as_deref()
                    .map(syntax::authority)
                    .transpose()
                    .in_field("filters.rewrite.host")?,
                path: filters.rewrite.path.as_ref().map(NewPath::parse).transpose()?,
            },
            cors: filters.cors.as_ref().map(Cors::parse).transpose()?,
        })
    }
}

/// Changes of headers.
#[derive(Debug)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    fn parse(changes: &HeaderChanges, field: &str) -> Result<Self, Invalid> {
        let name = |name: &String| syntax::changed_header(name).in_field(field);
        let pair = |(n, value): &(String, String)| Ok((name(n)?, syntax::header_value(value).in_field(field)?));
        let pairs = |pairs: &[(String, String)]| pairs.iter().map(pair).collect::<Result<_, Invalid>>();
        Ok(Self {
            remove: changes.remove.iter().map(name).collect::<Result<_, _>>()?,
            set: pairs(&changes.set)?,
            add: pairs(&changes.add)?,
        })
    }

    /// Names of which nothing is left that came from elsewhere.
    pub(crate) fn replaced(&self) -> Vec<&HeaderName> {
        self.remove.iter().chain(self.set.iter().map(|(name, _)| name)).collect()
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

/// What the backend is asked for instead.
#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<NewPath>,
}

/// Another path.
#[derive(Debug)]
pub(crate) enum NewPath {
    Full(String),
    Prefix(String),
    Start(String),
    Replace(Regex, Vec<Piece>),
}

impl NewPath {
    pub(crate) fn parse(change: &PathChange) -> Result<Self, Invalid> {
        let path = |text: &str| syntax::path(text).in_field("path");
        Ok(match change {
            PathChange::Full(text) => Self::Full(path(text)?),
            PathChange::Prefix(text) => Self::Prefix(path(text)?.trim_end_matches('/').to_owned()),
            PathChange::Start(text) => Self::Start(path(text)?),
            PathChange::Replace { pattern, with } => {
                let pattern = syntax::pattern(pattern).in_field("path.pattern")?;
                let with = syntax::substitution(with, pattern.captures_len()).in_field("path.with")?;
                Self::Replace(pattern, with)
            }
        })
    }

    /// The new path; `prefix` is how much of the old one the match was about.
    pub(crate) fn of(&self, old: &str, prefix: usize) -> String {
        match self {
            Self::Full(path) => path.clone(),
            Self::Start(new) => format!("{new}{}", old.get(prefix..).unwrap_or_default()),
            Self::Replace(pattern, with) => replaced(old, pattern, with),
            Self::Prefix(new) => {
                let rest = old.get(prefix..).unwrap_or_default();
                match (rest.starts_with('/') || rest.is_empty(), new.is_empty() && rest.is_empty()) {
                    (_, true) => "/".to_owned(),
                    (true, _) => format!("{new}{rest}"),
                    (false, _) => format!("{new}/{rest}"),
                }
            }
        }
    }
}

/// Nothing, which is no path, if it would be longer than any path is.
fn replaced(old: &str, pattern: &Regex, with: &[Piece]) -> String {
    let (mut new, mut rest) = (String::new(), 0);
    for found in pattern.captures_iter(old) {
        let Some(all) = found.get(0) else { continue };
        new.push_str(old.get(rest..all.start()).unwrap_or_default());
        rest = all.end();
        new.extend(with.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Group(group) => found.get(*group).map_or("", |group| group.as_str()),
        }));
        if new.len() > LONGEST_PATH {
            return String::new();
        }
    }
    new.push_str(old.get(rest..).unwrap_or_default());
    new
}

/// A list that may be everything.
#[derive(Debug)]
pub(crate) enum Wildcard {
    All,
    List(HeaderValue),
    None,
}

impl Wildcard {
    fn parse(list: &[String], field: &str) -> Result<Self, Invalid> {
        if list.iter().any(|item| item == "*") {
            return Ok(Self::All);
        }
        if list.is_empty() {
            return Ok(Self::None);
        }
        Ok(Self::List(syntax::header_value(&list.join(", ")).in_field(field)?))
    }
}

/// Which scripts of other origins are let in.
#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<OriginMatch>,
    pub(crate) methods: Wildcard,
    pub(crate) allow_headers: Wildcard,
    pub(crate) expose_headers: Wildcard,
    pub(crate) credentials: bool,
    pub(crate) max_age: Option<Duration>,
}

#[derive(Debug)]
enum OriginMatch {
    Any,
    Exact(String),
    /// Of `https://*.shop.example:8443`: what precedes and what follows the asterisk.
    Below {
        scheme: String,
        rest: String,
    },
}

impl Cors {
    fn parse(cors: &l7::Cors) -> Result<Self, Invalid> {
        Ok(Self {
            origins: cors.origins.iter().map(OriginMatch::parse).collect::<Result<_, _>>()?,
            methods: Wildcard::parse(&cors.methods, "cors.methods")?,
            allow_headers: Wildcard::parse(&cors.allow_headers, "cors.allow_headers")?,
            expose_headers: Wildcard::parse(&cors.expose_headers, "cors.expose_headers")?,
            credentials: cors.credentials,
            max_age: cors.max_age,
        })
    }

    pub(crate) fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.covers(origin))
    }
}

impl OriginMatch {
    fn parse(origin: &Origin) -> Result<Self, Invalid> {
        let Origin::Of(text) = origin else { return Ok(Self::Any) };
        let (scheme, host) = syntax::origin(text).in_field("cors.origins")?;
        Ok(match host.strip_prefix("*.") {
            Some(domain) => Self::Below { scheme: format!("{scheme}://"), rest: format!(".{domain}") },
            None => Self::Exact(text.clone()),
        })
    }

    fn covers(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => text.eq_ignore_ascii_case(origin),
            Self::Below { scheme, rest } => {
                let labels = origin.strip_prefix(scheme.as_str()).and_then(|host| host.strip_suffix(rest.as_str()));
                labels.is_some_and(|labels| !labels.is_empty() && !labels.contains(['/', ':', '@']))
            }
        }
    }
}
