// SPDX-License-Identifier: Apache-2.0
//! Label selectors in Kubernetes' syntax, with a label's source before its key: `k8s:app=web,reserved:host`, `app in
//! (a, b)`, `app notin (c)`, `app`, `!app`, `app!=web`.

use super::FilterError;

/// All of its requirements must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    /// None means any source.
    source: Option<String>,
    key: String,
    /// None: only the key's presence counts.
    values: Option<Vec<String>>,
    negated: bool,
}

impl Selector {
    pub(super) fn parse(field: &'static str, text: &str) -> Result<Self, FilterError> {
        let error = || FilterError { field, value: text.to_owned(), want: "a label selector" };
        let parts = split(text).ok_or_else(error)?;
        let requirements = parts.into_iter().map(|part| Requirement::parse(part).ok_or_else(error));
        requirements.collect::<Result<_, _>>().map(Self)
    }

    /// Whether labels such as `k8s:app=web` match.
    pub(super) fn fits(&self, labels: &[String]) -> bool {
        self.0.iter().all(|requirement| requirement.fits(labels))
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..)?);
    (depth == 0).then_some(parts)
}

impl Requirement {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(key) = text.strip_prefix('!') {
            return Self::new(key, None, true);
        }
        if let Some((head, list)) = text.split_once('(') {
            let values = list.strip_suffix(')')?.split(',').map(|v| v.trim().to_owned()).collect();
            let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
            return match word {
                "in" => Self::new(key, Some(values), false),
                "notin" => Self::new(key, Some(values), true),
                _ => None,
            };
        }
        let value = |v: &str| Some(vec![v.trim().to_owned()]);
        if let Some((key, v)) = text.split_once("!=") {
            return Self::new(key, value(v), true);
        }
        match text.split_once("==").or_else(|| text.split_once('=')) {
            Some((key, v)) => Self::new(key, value(v), false),
            None => Self::new(text, None, false),
        }
    }

    fn new(key: &str, values: Option<Vec<String>>, negated: bool) -> Option<Self> {
        let key = key.trim();
        let (source, key) = key.split_once(':').map_or((None, key), |(source, key)| (Some(source), key));
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
        let usable = !key.is_empty() && key.chars().all(valid);
        let source = source.filter(|s| *s != "any").map(str::to_owned);
        usable.then(|| Self { source, key: key.to_owned(), values, negated })
    }

    fn fits(&self, labels: &[String]) -> bool {
        let found = labels.iter().any(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            let (source, key) = name.split_once(':').map_or((None, name), |(s, k)| (Some(s), k));
            let of_source = self.source.as_deref().is_none_or(|wanted| source == Some(wanted));
            of_source && key == self.key && self.values.as_ref().is_none_or(|values| values.iter().any(|v| v == value))
        });
        found != self.negated
    }
}
