// SPDX-License-Identifier: Apache-2.0
//! Which labels make up a pod's identity: those derived from pod and namespace, and the filter over them. A label that
//! is left out can change without a new identity, and no policy can select by it.

use model::{Label, LabelSource, Labels, Namespace, Pod};
use regex::Regex;
use std::collections::BTreeMap;

/// Namespace of the pod.
pub(crate) const NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Prefix of the keys of namespace labels.
pub(crate) const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
/// Name of the cluster.
pub(crate) const CLUSTER: &str = "io.cilium.k8s.policy.cluster";
/// Service account of the pod.
pub(crate) const SERVICE_ACCOUNT: &str = "io.cilium.k8s.policy.serviceaccount";
/// The label with its own name that every namespace has.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// The default filter; patterns match the start of the key, `!` excludes.
const DEFAULT: &[&str] = &[
    r"reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!pod-template-generation",
    r"!pod-template-hash",
    r"!controller-revision-hash",
    r"!controller-uid",
    r"!annotation.*",
    r"!etcd_node",
    r"!topology\.kubernetes\.io",
];

/// A pattern of the filter is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is not a label pattern: {reason}")]
pub struct PatternError {
    pub pattern: String,
    /// Why.
    pub reason: String,
}

/// Decides which labels are relevant for the identity.
#[derive(Clone, Debug)]
pub struct LabelFilter {
    patterns: Vec<Pattern>,
    /// The user listed labels to include: others are left out.
    only_included: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    source: Option<String>,
    exclude: bool,
    expression: Regex,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |reason: &str| PatternError { pattern: text.to_owned(), reason: reason.to_owned() };
        let (outer, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let (source, rest) = match rest.split_once(':') {
            Some((source, rest)) => (Some(source.to_owned()), rest),
            None => (None, rest),
        };
        let (inner, key) = rest.strip_prefix('!').map_or((false, rest), |rest| (true, rest));
        if key.is_empty() {
            return Err(error("the key is empty"));
        }
        let expression = Regex::new(&format!("^(?:{key})")).map_err(|e| error(&e.to_string()))?;
        Ok(Self { source, exclude: outer || inner, expression })
    }

    /// Length of the match in the key.
    fn matched(&self, label: &Label) -> Option<usize> {
        if self.source.as_ref().is_some_and(|source| source != label.source.as_str()) {
            return None;
        }
        self.expression.find(&label.key).map(|found| found.end())
    }
}

impl Default for LabelFilter {
    fn default() -> Self {
        let patterns = DEFAULT.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        Self { patterns, only_included: false }
    }
}

impl LabelFilter {
    /// The default filter with the patterns of the key `labels`, separated by white space.
    ///
    /// # Errors
    ///
    /// The first invalid pattern.
    pub fn with_patterns(text: &str) -> Result<Self, PatternError> {
        let mut filter = Self::default();
        for text in text.split_whitespace() {
            let pattern = Pattern::parse(text)?;
            filter.only_included |= !pattern.exclude;
            filter.patterns.push(pattern);
        }
        Ok(filter)
    }

    /// Whether the label belongs to the identity: the longest inclusion must beat the shortest exclusion.
    #[must_use]
    pub fn accepts(&self, label: &Label) -> bool {
        let lengths = |exclude| {
            self.patterns.iter().filter(move |p| p.exclude == exclude).filter_map(|pattern| pattern.matched(label))
        };
        let excluded = lengths(true).filter(|length| *length > 0).min().unwrap_or(0);
        let included = lengths(false).max().unwrap_or(0);
        (!self.only_included && excluded == 0) || included > excluded
    }
}

/// The labels that make up a pod's identity.
#[must_use]
pub fn security_labels(pod: &Pod, namespace: &Namespace, cluster: &str, filter: &LabelFilter) -> Labels {
    // Derived labels come last: a pod's own label of that name is overridden.
    let mut all: BTreeMap<String, String> = pod.labels.clone();
    all.retain(|key, _| !key.starts_with("io.cilium.k8s.") && key != NAMESPACE);
    for (key, value) in &namespace.labels {
        all.insert(format!("{NAMESPACE_LABELS}{key}"), value.clone());
    }
    all.insert(format!("{NAMESPACE_LABELS}{METADATA_NAME}"), namespace.name.to_string());
    all.insert(NAMESPACE.to_owned(), pod.name.namespace.to_string());
    all.insert(CLUSTER.to_owned(), cluster.to_owned());
    if !pod.service_account.is_empty() {
        all.insert(SERVICE_ACCOUNT.to_owned(), pod.service_account.clone());
    }
    let labels = all.into_iter().map(|(key, value)| Label::new(LabelSource::K8s, key, value));
    labels.filter(|label| filter.accepts(label)).collect()
}

/// A label's source and key as CiliumIdentity objects hold it.
#[must_use]
pub(crate) fn extended_key(label: &Label) -> String {
    format!("{}:{}", label.source.as_str(), label.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::PodName;

    fn accepts(filter: &LabelFilter, key: &str) -> bool {
        filter.accepts(&Label::k8s(key, "x"))
    }

    #[test]
    fn the_default_filter_keeps_what_tells_workloads_apart_and_drops_what_tells_pods_apart() {
        let filter = LabelFilter::default();
        assert_eq!(filter.patterns.len(), DEFAULT.len());
        for key in [
            "app",
            "app.kubernetes.io/name",
            NAMESPACE,
            CLUSTER,
            SERVICE_ACCOUNT,
            "team",
            "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
            "example.com/kubernetes.io",
        ] {
            assert!(accepts(&filter, key), "{key}");
        }
        for key in [
            "io.kubernetes.container.name",
            "kubernetes.io/os",
            "statefulset.kubernetes.io/pod-name",
            "apps.kubernetes.io/pod-index",
            "failure-domain.beta.kubernetes.io/zone",
            "k8s.io/x",
            "pod-template-hash",
            "controller-uid",
            "batch.kubernetes.io/controller-uid",
            "topology.kubernetes.io/zone",
            "annotation.x",
        ] {
            assert!(!accepts(&filter, key), "{key}");
        }
    }

    #[test]
    fn an_exclusion_of_the_user_adds_to_the_default_and_an_inclusion_leaves_all_others_out() {
        let excluding = LabelFilter::with_patterns("!k8s:team !version").unwrap();
        assert!(accepts(&excluding, "app") && !accepts(&excluding, "team") && !accepts(&excluding, "version"));
        let including = LabelFilter::with_patterns("k8s:app k8s:!appendix").unwrap();
        assert!(accepts(&including, "app") && accepts(&including, NAMESPACE) && !accepts(&including, "team"));
        assert!(!accepts(&including, "appendix"));
        assert!(accepts(&LabelFilter::with_patterns("!foo foo.bar").unwrap(), "foo.bar"));
        let of_nothing = LabelFilter::with_patterns("!x* !team").unwrap();
        assert!(accepts(&of_nothing, "app") && !accepts(&of_nothing, "xy") && !accepts(&of_nothing, "team"));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        assert_eq!(LabelFilter::with_patterns("a( b").unwrap_err().pattern, "a(");
        assert!(LabelFilter::with_patterns("k8s:").is_err());
    }

    #[test]
    fn a_pod_cannot_give_itself_the_labels_of_another_namespace_or_cluster() {
        let pod = Pod {
            name: PodName::new("shop", "web-1"),
            uid: "u".into(),
            labels: [
                ("app", "web"),
                (NAMESPACE, "kube-system"),
                (CLUSTER, "other"),
                (SERVICE_ACCOUNT, "admin"),
                ("io.cilium.k8s.namespace.labels.trusted", "yes"),
                ("pod-template-hash", "abc"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
            annotations: BTreeMap::new(),
            service_account: "web".into(),
            host_network: false,
            ips: vec![],
            workload: None,
            named_ports: vec![],
            host_ports: vec![],
            ready: true,
            ended: false,
        };
        let namespace = Namespace { name: "shop".into(), labels: [("env".to_owned(), "prod".to_owned())].into() };
        let labels = security_labels(&pod, &namespace, "home", &LabelFilter::default());
        assert_eq!(
            labels.to_strings(),
            [
                "k8s:app=web",
                "k8s:io.cilium.k8s.namespace.labels.env=prod",
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
                "k8s:io.cilium.k8s.policy.cluster=home",
                "k8s:io.cilium.k8s.policy.serviceaccount=web",
                "k8s:io.kubernetes.pod.namespace=shop",
            ]
        );
    }
}
