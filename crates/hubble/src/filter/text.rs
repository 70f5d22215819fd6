// SPDX-License-Identifier: Apache-2.0
//! Patterns for names.

use super::FilterError;
use regex::{Regex, RegexBuilder};

/// A prefix of a name in a namespace: `ns/prefix`, `ns/` for all of a namespace, `/prefix` for any namespace, and `prefix`
/// for the namespace `default`.
#[derive(Clone, Debug)]
pub(super) struct NamePrefix {
    namespace: Option<String>,
    prefix: String,
}

impl NamePrefix {
    pub(super) fn parse(text: &str) -> Self {
        let (namespace, prefix) = text.split_once('/').unwrap_or(("default", text));
        let namespace = Some(namespace.to_owned()).filter(|n| !n.is_empty());
        Self { namespace, prefix: prefix.to_owned() }
    }

    /// Whether the name matches. Something with neither name nor namespace is no pod or service, and never matches.
    pub(super) fn fits(&self, namespace: &str, name: &str) -> bool {
        match &self.namespace {
            Some(wanted) => wanted == namespace && name.starts_with(&self.prefix),
            None => !namespace.is_empty() && name.starts_with(&self.prefix),
        }
    }
}

/// A pattern where `*` matches any run of characters valid in that kind of name.
#[derive(Clone, Debug)]
pub(super) struct Glob(Regex);

impl Glob {
    /// A domain name, ignoring case and a trailing dot.
    pub(super) fn domain(field: &'static str, text: &str) -> Result<Self, FilterError> {
        let text = text.trim_end_matches('.');
        let pattern = |text: &str| format!(r"(?i)\A{}\.?\z", star(text, r"[-.0-9a-z_]*"));
        Self::compile(field, text, &pattern(text))
    }

    /// `cluster/node`; without a slash the node may be in any cluster, and `cluster/` matches all its nodes.
    pub(super) fn node(field: &'static str, text: &str) -> Result<Self, FilterError> {
        let body = match text.split_once('/') {
            Some(("default", node)) => format!("(?:default/)?{}", any_if_empty(node)),
            Some((cluster, node)) => format!("{}/{}", any_if_empty(cluster), any_if_empty(node)),
            None => format!("(?:[^/]*/)?{}", star(text, "[^/]*")),
        };
        Self::compile(field, text, &format!(r"(?i)\A{body}\z"))
    }

    /// Any other name.
    pub(super) fn name(field: &'static str, text: &str) -> Result<Self, FilterError> {
        Self::compile(field, text, &format!(r"\A{}\z", star(text, ".*")))
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    fn compile(field: &'static str, text: &str, pattern: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError { field, value: String::new(), want: "a name or a pattern with *" });
        }
        regex(field, pattern).map(Self)
    }
}

/// Bytes that a regular expression may take when it is compiled, and again when it is used.
const LARGEST: usize = 128 << 10;

/// A regular expression.
pub(super) fn regex(field: &'static str, pattern: &str) -> Result<Regex, FilterError> {
    RegexBuilder::new(pattern).size_limit(LARGEST).dfa_size_limit(LARGEST).build().map_err(|error| {
        let want = match error {
            regex::Error::CompiledTooBig(_) => "a regular expression of at most 128 KiB when compiled",
            _ => "a regular expression",
        };
        FilterError { field, value: pattern.to_owned(), want }
    })
}

fn star(text: &str, any: &str) -> String {
    text.split('*').map(regex::escape).collect::<Vec<_>>().join(any)
}

fn any_if_empty(text: &str) -> String {
    star(if text.is_empty() { "*" } else { text }, "[^/]*")
}
