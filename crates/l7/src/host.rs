// SPDX-License-Identifier: Apache-2.0
//! Host names as listeners and routes give them: any, one, or all below a domain.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name that DNS allows, in text.
const LONGEST: usize = 253;

/// Which host names something is for. Names are in lower case, without a port and without a final dot.
///
/// As text it is `*`, `shop.example` or `*.shop.example`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum HostMatch {
    /// Every name, and a request or a hello without one.
    #[default]
    Any,
    /// This name.
    Exact(Arc<str>),
    /// Every name that has one or more labels before this domain, which has no leading `*.`.
    Below(Arc<str>),
}

impl HostMatch {
    /// Whether it is for `host`, which must be in lower case.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *host,
            Self::Below(domain) => host
                .strip_suffix(&**domain)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        }
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// Why a text is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host name: labels of letters, digits and hyphens are, of which the first may be *")]
pub struct ParseHostError(String);

impl FromStr for HostMatch {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        if matches!(text, "" | "*") {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let (below, name) = match lower.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, lower.as_str()),
        };
        if name.len() > LONGEST || !name.split('.').all(is_label) {
            return Err(ParseHostError(text.to_owned()));
        }
        Ok(if below { Self::Below(name.into()) } else { Self::Exact(name.into()) })
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

impl From<HostMatch> for String {
    fn from(host: HostMatch) -> Self {
        host.to_string()
    }
}

impl TryFrom<String> for HostMatch {
    type Error = ParseHostError;

    fn try_from(text: String) -> Result<Self, ParseHostError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::HostMatch;

    fn host(text: &str) -> HostMatch {
        text.parse().unwrap()
    }

    #[test]
    fn a_wildcard_covers_names_below_its_domain_at_any_depth_and_not_the_domain() {
        let wildcard = host("*.Shop.example");
        assert!(wildcard.covers("a.shop.example"));
        assert!(wildcard.covers("a.b.shop.example"));
        assert!(!wildcard.covers("shop.example"));
        assert!(!wildcard.covers(".shop.example"));
        assert!(!wildcard.covers("workshop.example"));
    }

    #[test]
    fn text_and_value_say_the_same() {
        for text in ["*", "shop.example", "*.shop.example", "a_b.c-d"] {
            assert_eq!(host(text).to_string(), text);
        }
        assert_eq!(host(""), HostMatch::Any);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["a..b", ".a", "a.", "*a.b", "*.*.b", "a b", "a/b", "a:80", &"a.".repeat(130), "*."] {
            assert!(text.parse::<HostMatch>().is_err(), "{text}");
        }
    }
}
