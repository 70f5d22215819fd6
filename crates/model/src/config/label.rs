// SPDX-License-Identifier: Apache-2.0
//! A label that something has to have, as selectors that only match labels write it.

use super::{Accepts, Form, Value};
use std::collections::BTreeMap;
use std::fmt;

/// A label with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: String,
}

impl Label {
    /// Whether it is among these.
    #[must_use]
    pub fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(&self.key) == Some(&self.value)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl Value for Label {
    fn form() -> Form {
        Form::new("LABEL=VALUE", Accepts::Pattern("^[^!(=]+=[^=(]*$"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        let plain = !key.is_empty() && !key.contains(['!', '(']) && !value.contains(['=', '(']);
        plain.then(|| Self { key: key.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_a_chart_writes_and_nothing_else_that_selectors_know() {
        let label = Label::parse("node-role.kubernetes.io/edge=").unwrap();
        let labels = |value: &str| BTreeMap::from([("node-role.kubernetes.io/edge".to_owned(), value.to_owned())]);
        assert!(label.is_in(&labels("")) && !label.is_in(&labels("x")) && !label.is_in(&BTreeMap::new()));
        assert_eq!(label.to_string(), "node-role.kubernetes.io/edge=");
        for other in ["edge", "!edge", "edge!=a", "edge==a", "edge in (a)", "=a"] {
            assert_eq!(Label::parse(other), None, "{other}");
        }
    }
}
