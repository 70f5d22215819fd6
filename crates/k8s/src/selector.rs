// SPDX-License-Identifier: Apache-2.0
//! Label selectors as one text, such as `zone in (a, b), !spot` (Kubernetes, labels and selectors).

use kube::core::{Expression, Selector};
use std::collections::BTreeSet;

/// Reads one; none if it is not one.
#[must_use]
pub fn parse(text: &str) -> Option<Selector> {
    let mut rest = text.trim();
    let mut expressions = Vec::new();
    while !rest.is_empty() {
        let end = end_of_first(rest);
        let (first, after) = rest.split_at_checked(end)?;
        expressions.push(expression(first.trim())?);
        rest = after.strip_prefix(',').map_or("", str::trim_start);
        if rest.is_empty() && !after.is_empty() {
            return None;
        }
    }
    Some(expressions.into_iter().collect())
}

/// One that matches nothing.
#[must_use]
pub fn nothing() -> Selector {
    Expression::In(String::new(), BTreeSet::new()).into()
}

/// Where the first of several requirements ends: at a comma that is not within parentheses.
fn end_of_first(text: &str) -> usize {
    let mut depth = 0_u32;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

fn expression(text: &str) -> Option<Expression> {
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Expression::NotEqual(name(key)?, value_of(value)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Expression::Equal(name(key)?, value_of(value)?));
    }
    if let Some(key) = text.strip_prefix('!') {
        return Some(Expression::DoesNotExist(name(key)?));
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return Some(Expression::Exists(name(text)?));
    };
    let (operator, set) = rest.trim().split_once('(')?;
    let values = set.strip_suffix(')')?.split(',').map(value_of).collect::<Option<BTreeSet<_>>>()?;
    match operator.trim() {
        "in" => Some(Expression::In(name(key)?, values)),
        "notin" => Some(Expression::NotIn(name(key)?, values)),
        _ => None,
    }
}

fn name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let text = text.trim();
    (!text.is_empty() && text.chars().all(allowed)).then(|| text.to_owned())
}

/// A value may be empty.
fn value_of(text: &str) -> Option<String> {
    if text.trim().is_empty() { Some(String::new()) } else { name(text).filter(|value| !value.contains('/')) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::SelectorExt;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn requirements_must_all_be_met() {
        let node = [("zone", "a"), ("topology.kubernetes.io/region", "eu"), ("gpu", "")];
        for met in [
            "",
            "zone=a",
            "zone == a",
            "zone!=b",
            "missing!=a",
            "gpu",
            "gpu=",
            "!spot",
            "zone in (b, a)",
            "zone notin (b,c),gpu",
            "topology.kubernetes.io/region=eu, zone in (a),!spot",
        ] {
            assert!(matches(met, &node), "{met:?}");
        }
        for unmet in ["zone=b", "zone!=a", "spot", "!zone", "zone in (b,c)", "zone notin (a)", "zone=a,zone=b"] {
            assert!(!matches(unmet, &node), "{unmet:?}");
        }
        assert!(!SelectorExt::matches(&nothing(), &std::collections::BTreeMap::new()));
    }

    #[test]
    fn nonsense_is_no_selector() {
        for text in [
            "=a",
            "a in b",
            "a in (b",
            "a within (b)",
            ",",
            "a,",
            ",a",
            "a b",
            "a=b/c",
            "!",
            "a==b==c",
            "(",
            "a;b",
            "ä=b",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
