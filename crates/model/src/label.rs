// SPDX-License-Identifier: Apache-2.0
//! Labels with their source. The source is part of the type, so that nothing a user writes on a pod can pass for a
//! reserved label.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where a label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelSource {
    /// Any source; in selectors only.
    Any,
    /// A prefix.
    Cidr,
    /// A CiliumCIDRGroup.
    CidrGroup,
    /// A DNS name.
    Fqdn,
    /// Kubernetes: pod labels, and those derived from the pod's namespace and service account.
    K8s,
    /// A node's labels.
    Node,
    /// Cilium itself.
    Reserved,
    /// Not specified.
    Unspec,
}

impl LabelSource {
    const ALL: [Self; 8] =
        [Self::Any, Self::Cidr, Self::CidrGroup, Self::Fqdn, Self::K8s, Self::Node, Self::Reserved, Self::Unspec];

    /// The text before the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Cidr => "cidr",
            Self::CidrGroup => "cidrgroup",
            Self::Fqdn => "fqdn",
            Self::K8s => "k8s",
            Self::Node => "node",
            Self::Reserved => "reserved",
            Self::Unspec => "unspec",
        }
    }
}

/// One label: `source:key=value`, or `source:key` when the value is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Key, without the source.
    pub key: Arc<str>,
    /// Value; may be empty.
    pub value: Arc<str>,
    pub source: LabelSource,
}

impl Label {
    /// A label of the given source.
    pub fn new(source: LabelSource, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), value: value.into(), source }
    }

    /// A Kubernetes label.
    pub fn k8s(key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        Self::new(LabelSource::K8s, key, value)
    }

    /// A reserved label, `reserved:NAME`.
    pub fn reserved(name: impl Into<Arc<str>>) -> Self {
        Self::new(LabelSource::Reserved, name, "")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_str(), self.key)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

/// The text is not a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a label: want source:key=value with a known source and a key")]
pub struct ParseLabelError {
    text: String,
}

impl FromStr for Label {
    type Err = ParseLabelError;

    /// Parses `source:key=value`; without a source it is `unspec`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseLabelError { text: text.to_owned() };
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = match name.split_once(':') {
            Some((source, key)) => {
                (LabelSource::ALL.into_iter().find(|s| s.as_str() == source).ok_or_else(error)?, key)
            }
            None => (LabelSource::Unspec, name),
        };
        if key.is_empty() { Err(error()) } else { Ok(Self::new(source, key, value)) }
    }
}

/// A set of labels ordered by key; cheap to clone and compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<BTreeSet<Label>>);

impl Labels {
    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// The first label with the key whose source the selector's source accepts.
    #[must_use]
    pub fn get(&self, source: LabelSource, key: &str) -> Option<&Label> {
        self.0.iter().find(|l| &*l.key == key && (source == LabelSource::Any || l.source == source))
    }

    /// Whether the reserved label is among them.
    #[must_use]
    pub fn is_reserved(&self, name: &str) -> bool {
        self.get(LabelSource::Reserved, name).is_some()
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each label as text, sorted as APIs list them.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        let mut all: Vec<_> = self.0.iter().map(Label::to_string).collect();
        all.sort();
        all
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<T: IntoIterator<Item = Label>>(iter: T) -> Self {
        Self(Arc::new(iter.into_iter().collect()))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_as_it_was_written() {
        for text in ["k8s:app=web", "reserved:host", "k8s:io.kubernetes.pod.namespace=a", "cidr:10.0.0.0/8"] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        assert_eq!("app=web".parse::<Label>().unwrap().source, LabelSource::Unspec);
        assert!("nosuch:app".parse::<Label>().is_err());
        assert!("k8s:=x".parse::<Label>().is_err());
    }

    #[test]
    fn a_pods_label_is_never_taken_for_a_reserved_one() {
        let labels: Labels = [Label::k8s("host", "")].into_iter().collect();
        assert!(!labels.is_reserved("host"));
        assert!(labels.get(LabelSource::Any, "host").is_some());
    }

    #[test]
    fn labels_are_listed_as_sorted_texts() {
        let labels: Labels = [Label::k8s("b", "2"), Label::k8s("a", "1")].into_iter().collect();
        assert_eq!(labels.to_strings(), ["k8s:a=1", "k8s:b=2"]);
        assert_eq!((labels.to_string().as_str(), labels.len(), labels.is_empty()), ("k8s:a=1,k8s:b=2", 2, false));
        assert!(Labels::default().is_empty());
        let host: Labels = ["reserved:host".parse().unwrap()].into_iter().collect();
        assert!(host.is_reserved("host") && !host.is_reserved("world"));
    }
}
