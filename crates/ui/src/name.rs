// SPDX-License-Identifier: Apache-2.0
//! Who is at an end of a flow: the workload of a pod, an entity, or something outside by its name.

use hubble::proto::flow::Endpoint;
use serde::Serialize;

/// Labels that name pods without a workload, the best first.
const NAMES: [&str; 3] = ["k8s:app.kubernetes.io/name=", "k8s:app=", "k8s:k8s-app="];
/// The longest text that is kept of a flow; what others made up may be of any length.
const TEXT: usize = 253;
/// The most labels that are kept.
const LABELS: usize = 24;

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Pods of a workload.
    Workload,
    /// Something of the cluster that is no pod.
    Entity,
    /// Outside of the cluster.
    World,
    /// Outside, known by a name.
    Dns,
}

/// A vertex of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Name {
    /// Of this end, which is known by these names.
    pub(crate) fn of(endpoint: &Endpoint, names: &[String]) -> Self {
        let reserved: Vec<_> = endpoint.labels.iter().filter_map(|label| label.strip_prefix("reserved:")).collect();
        let entity = reserved.iter().find(|name| **name == "kube-apiserver").or_else(|| reserved.first());
        let outside = || match names.first() {
            Some(name) => Self::plain(Kind::Dns, name),
            None => Self::plain(Kind::World, "world"),
        };
        match entity {
            Some(name) if name.starts_with("world") => outside(),
            Some(name) => Self::plain(Kind::Entity, name),
            None if !endpoint.namespace.is_empty() => {
                Self { kind: Kind::Workload, namespace: text(&endpoint.namespace), name: text(workload(endpoint)) }
            }
            None if endpoint.identity == 0 && names.is_empty() => Self::plain(Kind::Entity, "unknown"),
            None => outside(),
        }
    }

    fn plain(kind: Kind, name: &str) -> Self {
        Self { kind, namespace: String::new(), name: text(name) }
    }
}

fn workload(endpoint: &Endpoint) -> &str {
    let named = endpoint.workloads.first().map(|workload| workload.name.as_str());
    let labelled = || NAMES.iter().find_map(|key| endpoint.labels.iter().find_map(|label| label.strip_prefix(key)));
    let name = named.filter(|name| !name.is_empty()).or_else(labelled);
    name.or(Some(endpoint.pod_name.as_str())).filter(|name| !name.is_empty()).unwrap_or("pods")
}

/// A text of a flow, no longer than is kept.
pub(crate) fn text(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

/// Labels of a flow, no more than are kept.
pub(crate) fn labels(endpoint: &Endpoint) -> Vec<String> {
    endpoint.labels.iter().take(LABELS).map(|label| text(label)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::flow::Workload;

    fn endpoint(namespace: &str, labels: &[&str]) -> Endpoint {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Endpoint { namespace: namespace.to_owned(), labels, identity: 7, ..Endpoint::default() }
    }

    fn named(endpoint: &Endpoint, names: &[&str]) -> (Kind, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let name = Name::of(endpoint, &names);
        (name.kind, format!("{}/{}", name.namespace, name.name))
    }

    #[test]
    fn pods_are_named_after_their_workload_then_by_labels_then_by_themselves() {
        let mut web = endpoint("shop", &["k8s:app=web", "k8s:app.kubernetes.io/name=front"]);
        assert_eq!(named(&web, &[]), (Kind::Workload, "shop/front".to_owned()));
        web.workloads = vec![Workload { name: "storefront".to_owned(), kind: "Deployment".to_owned() }];
        assert_eq!(named(&web, &[]).1, "shop/storefront");
        let bare = Endpoint { pod_name: "job-x".to_owned(), ..endpoint("shop", &[]) };
        assert_eq!(named(&bare, &[]).1, "shop/job-x");
    }

    #[test]
    fn what_is_outside_is_the_world_unless_it_has_a_name() {
        let world = endpoint("", &["reserved:world-ipv4", "cidr:192.0.2.7/32"]);
        assert_eq!(named(&world, &[]), (Kind::World, "/world".to_owned()));
        assert_eq!(named(&world, &["example.com"]), (Kind::Dns, "/example.com".to_owned()));
        let api = endpoint("", &["reserved:host", "reserved:kube-apiserver"]);
        assert_eq!(named(&api, &[]), (Kind::Entity, "/kube-apiserver".to_owned()));
        assert_eq!(named(&Endpoint::default(), &[]).1, "/unknown");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(text(&"ä".repeat(1000)), "ä".repeat(TEXT));
    }
}
