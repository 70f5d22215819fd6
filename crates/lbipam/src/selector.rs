// SPDX-License-Identifier: Apache-2.0
//! Which Services a pool serves: label selectors in which name and namespace of a Service count as labels.

use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use model::ServiceName;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAMESPACE: &str = "io.kubernetes.service.namespace";
const NAME: &str = "io.kubernetes.service.name";

/// What selectors match: a Service's labels and names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a ServiceName,
    pub(crate) labels: &'a BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    fn value(&self, key: &str) -> Option<&'a str> {
        match key {
            NAMESPACE => Some(&self.name.namespace),
            NAME => Some(&self.name.name),
            _ => self.labels.get(key).map(String::as_str),
        }
    }

    /// Every label, including its names.
    pub(crate) fn labels(&self) -> impl Iterator<Item = Label> {
        let names = [(NAMESPACE, &*self.name.namespace), (NAME, &*self.name.name)];
        let labels = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        names.into_iter().chain(labels).map(|(key, value)| (key.into(), value.into()))
    }
}

/// Key and value.
pub(crate) type Label = (Arc<str>, Arc<str>);

/// Requirements for a Service; without any, all match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    requirements: Vec<(String, Operator)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
}

impl Selector {
    /// # Errors
    ///
    /// The first invalid expression, by field.
    pub(crate) fn parse(field: &str, selector: &LabelSelector) -> Result<Self, String> {
        let equal = selector.match_labels.iter().flatten();
        let mut requirements: Vec<_> =
            equal.map(|(key, value)| (key.clone(), Operator::In(vec![value.clone()]))).collect();
        for (n, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let values = expression.values.clone().unwrap_or_default();
            let operator = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::Missing,
                ("In" | "NotIn", true) => return Err(format!("{field}.matchExpressions[{n}].values: is empty")),
                ("Exists" | "DoesNotExist", false) => {
                    return Err(format!("{field}.matchExpressions[{n}].values: {} takes none", expression.operator));
                }
                (other, _) => return Err(format!("{field}.matchExpressions[{n}].operator: {other:?} is unknown")),
            };
            requirements.push((expression.key.clone(), operator));
        }
        Ok(Self { requirements })
    }

    pub(crate) fn selects(&self, subject: Subject<'_>) -> bool {
        self.requirements.iter().all(|(key, operator)| {
            let value = subject.value(key);
            let is_one_of = |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
            match operator {
                Operator::In(values) => is_one_of(values),
                Operator::NotIn(values) => !is_one_of(values),
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
            }
        })
    }

    /// A label that every selected Service must have, if there is one.
    pub(crate) fn required_label(&self) -> Option<Label> {
        self.requirements.iter().find_map(|(key, operator)| match operator {
            Operator::In(values) => match values.as_slice() {
                [value] => Some((key.as_str().into(), value.as_str().into())),
                _ => None,
            },
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::{Value, json};

    fn parse(selector: Value) -> Result<Selector, String> {
        Selector::parse("spec.serviceSelector", &serde_json::from_value(selector).unwrap())
    }

    fn selects(selector: Value) -> bool {
        let name = ServiceName::new("shop", "cart");
        let labels =
            BTreeMap::from([("color".to_owned(), "blue".to_owned()), (NAMESPACE.to_owned(), "bank".to_owned())]);
        parse(selector).unwrap().selects(Subject { name: &name, labels: &labels })
    }

    #[test]
    fn labels_and_names_are_selected_by() {
        assert!(selects(json!({})));
        assert!(selects(json!({"matchLabels": {"color": "blue", NAME: "cart"}})));
        assert!(!selects(json!({"matchLabels": {"color": "red"}})));
        assert!(selects(json!({"matchExpressions": [{"key": "color", "operator": "In", "values": ["red", "blue"]}]})));
        assert!(!selects(json!({"matchExpressions": [{"key": "color", "operator": "NotIn", "values": ["blue"]}]})));
        assert!(selects(json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["blue"]}]})));
        assert!(selects(json!({"matchExpressions": [{"key": "color", "operator": "Exists"}]})));
        assert!(!selects(json!({"matchExpressions": [{"key": "color", "operator": "DoesNotExist"}]})));
    }

    #[test]
    fn nobody_gets_into_another_namespaces_pool_by_a_label() {
        assert!(selects(json!({"matchLabels": {NAMESPACE: "shop"}})));
        assert!(!selects(json!({"matchLabels": {NAMESPACE: "bank"}})));
    }

    #[test]
    fn a_label_with_one_possible_value_is_required() {
        let required = |selector| parse(selector).unwrap().required_label();
        assert_eq!(required(json!({"matchLabels": {"color": "blue"}})), Some(("color".into(), "blue".into())));
        let several = json!({"key": "color", "operator": "In", "values": ["red", "blue"]});
        assert_eq!(required(json!({"matchExpressions": [several, {"key": "color", "operator": "Exists"}]})), None);
    }

    #[test]
    fn an_expression_that_means_nothing_is_named() {
        for (operator, values, error) in [
            ("In", json!([]), "spec.serviceSelector.matchExpressions[0].values: is empty"),
            ("Exists", json!(["x"]), "spec.serviceSelector.matchExpressions[0].values: Exists takes none"),
            ("Near", json!(["x"]), "spec.serviceSelector.matchExpressions[0].operator: \"Near\" is unknown"),
        ] {
            let expression = json!({"key": "k", "operator": operator, "values": values});
            assert_eq!(parse(json!({"matchExpressions": [expression]})), Err(error.to_owned()));
        }
    }
}
