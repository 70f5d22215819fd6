// SPDX-License-Identifier: Apache-2.0
//! Label selectors. "Nothing", "everything" and "whatever matches" are distinct variants.

use super::NonEmpty;
use model::{Label, LabelSource, Labels};
use std::sync::Arc;

/// A set of label sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// Those that meet every requirement.
    Matching(NonEmpty<Requirement>),
}

/// A selector's requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Source of the label; [`LabelSource::Any`] for any.
    pub source: LabelSource,
    pub key: Arc<str>,
    /// The condition.
    pub operator: Operator,
}

/// The condition on the key's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// It is one of these.
    In(NonEmpty<Arc<str>>),
    /// It is none of these, or the key is absent.
    NotIn(NonEmpty<Arc<str>>),
    /// The key is present.
    Exists,
    /// The key is absent.
    Missing,
}

impl Requirement {
    /// The key has exactly this value.
    pub fn equals(source: LabelSource, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self { source, key: key.into(), operator: Operator::In(NonEmpty::one(value.into())) }
    }

    /// The key is present.
    pub fn exists(source: LabelSource, key: impl Into<Arc<str>>) -> Self {
        Self { source, key: key.into(), operator: Operator::Exists }
    }

    /// Whether the labels satisfy it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let accepted = |l: &&Label| l.key == self.key && (self.source == LabelSource::Any || l.source == self.source);
        let mut candidates = labels.iter().filter(accepted);
        match &self.operator {
            Operator::In(values) => candidates.any(|label| values.iter().any(|v| *v == label.value)),
            Operator::NotIn(values) => !candidates.any(|label| values.iter().any(|v| *v == label.value)),
            Operator::Exists => candidates.next().is_some(),
            Operator::Missing => candidates.next().is_none(),
        }
    }
}

impl Selector {
    /// All requirements together; everything if there are none.
    #[must_use]
    pub fn all_of(requirements: Vec<Requirement>) -> Self {
        NonEmpty::new(requirements).map_or(Self::Everything, |all| Self::Matching(all.sorted()))
    }

    /// The reserved identity of that name.
    #[must_use]
    pub fn reserved(name: &'static str) -> Self {
        Self::Matching(NonEmpty::one(Requirement::exists(LabelSource::Reserved, name)))
    }

    /// Whether the labels match.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Matching(requirements) => requirements.iter().all(|r| r.matches(labels)),
        }
    }
}

/// A Kubernetes label selector, independent of the API type it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawSelector {
    /// `matchLabels`.
    pub labels: Vec<(String, String)>,
    /// `matchExpressions`: key, operator, values.
    pub expressions: Vec<(String, String, Vec<String>)>,
}

/// How the keys of a selector are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    /// As in Cilium's policies: `source:key`; without a source, any.
    WithSource,
    /// As in Kubernetes' own: all are pod labels.
    Pods,
    /// Namespace labels.
    Namespaces,
    /// Labels of another object, of any source.
    Plain,
}

impl Keys {
    fn parse(self, text: &str) -> Result<(LabelSource, Arc<str>), String> {
        match self {
            Self::Pods => Ok((LabelSource::K8s, text.into())),
            Self::Namespaces => Ok((LabelSource::K8s, format!("{}{text}", crate::labels::NAMESPACE_LABELS).into())),
            Self::Plain => Ok((LabelSource::Any, text.into())),
            Self::WithSource => {
                let Some((source, key)) = text.split_once(':') else { return Ok((LabelSource::Any, text.into())) };
                if source == "any" {
                    return Ok((LabelSource::Any, key.into()));
                }
                let label: Label = text.parse().map_err(|e: model::ParseLabelError| e.to_string())?;
                Ok((label.source, key.into()))
            }
        }
    }
}

impl RawSelector {
    /// The requirements, or what is wrong with them.
    ///
    /// # Errors
    ///
    /// Names the invalid key, and the reason.
    pub(crate) fn requirements(&self, keys: Keys) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        for (key, value) in &self.labels {
            let (source, key) = keys.parse(key)?;
            all.push(Requirement::equals(source, key, value.as_str()));
        }
        for (key, operator, values) in &self.expressions {
            let text = key;
            let (source, key) = keys.parse(key)?;
            let values = || {
                let values = NonEmpty::new(values.iter().map(|v| Arc::from(v.as_str())));
                values.map(NonEmpty::sorted).ok_or_else(|| format!("{text}: {operator} needs values"))
            };
            let operator = match operator.as_str() {
                "In" => Operator::In(values()?),
                "NotIn" => Operator::NotIn(values()?),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Missing,
                other => return Err(format!("{text}: {other:?} is not an operator")),
            };
            all.push(Requirement { source, key, operator });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(key: &str, operator: &str, values: &[&str]) -> RawSelector {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        RawSelector { labels: vec![], expressions: vec![(key.to_owned(), operator.to_owned(), values)] }
    }

    fn selects(selector: &RawSelector, labels: &[&str]) -> bool {
        let labels = labels.iter().map(|l| l.parse().unwrap()).collect();
        Selector::all_of(selector.requirements(Keys::WithSource).unwrap()).matches(&labels)
    }

    #[test]
    fn the_operators_mean_what_kubernetes_says() {
        assert!(selects(&raw("app", "In", &["a", "b"]), &["k8s:app=b"]));
        assert!(!selects(&raw("app", "In", &["a"]), &["k8s:app=c"]) && !selects(&raw("app", "In", &["a"]), &[]));
        assert!(selects(&raw("app", "NotIn", &["a"]), &[]) && !selects(&raw("app", "NotIn", &["a"]), &["k8s:app=a"]));
        assert!(selects(&raw("app", "Exists", &[]), &["k8s:app"]) && !selects(&raw("app", "Exists", &[]), &[]));
        assert!(selects(&raw("app", "DoesNotExist", &[]), &["k8s:b=c"]));
    }

    #[test]
    fn a_source_counts_where_it_is_written() {
        assert!(!selects(&raw("reserved:host", "Exists", &[]), &["k8s:host"]));
        assert!(selects(&raw("any:host", "Exists", &[]), &["k8s:host"]));
        assert!(raw("nosuch:host", "Exists", &[]).requirements(Keys::WithSource).is_err());
    }

    #[test]
    fn an_operator_without_the_values_it_needs_is_refused() {
        assert!(raw("a", "In", &[]).requirements(Keys::Pods).is_err());
        assert!(raw("a", "Near", &["x"]).requirements(Keys::Pods).is_err());
    }
}
