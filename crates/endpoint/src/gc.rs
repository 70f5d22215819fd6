// SPDX-License-Identifier: Apache-2.0
//! Which CiliumEndpoints have lost their pod. Pure.

use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::PodName;
use std::collections::BTreeMap;

/// What matters of the cluster's pods.
#[derive(Clone, Debug, Default)]
pub struct LivePods(BTreeMap<PodName, String>);

impl LivePods {
    /// Name and UID of a pod that has not finished.
    #[must_use]
    pub fn entry(pod: &Pod) -> Option<(PodName, String)> {
        crate::ingest_pod(pod).filter(|pod| !pod.ended).map(|pod| (pod.name, pod.uid))
    }

    /// Whether a CiliumEndpoint has lost its pod. Its owner, if it names one, must be this very pod, not another of the
    /// same name.
    #[must_use]
    pub fn lack_owner_of(&self, endpoint: &ObjectMeta) -> bool {
        let name = PodName::new(
            endpoint.namespace.as_deref().unwrap_or_default(),
            endpoint.name.as_deref().unwrap_or_default(),
        );
        let Some(uid) = self.0.get(&name) else { return true };
        let owner = endpoint.owner_references.iter().flatten().find(|owner| owner.kind == "Pod");
        owner.is_some_and(|owner| owner.uid != *uid)
    }
}

impl FromIterator<(PodName, String)> for LivePods {
    fn from_iter<I: IntoIterator<Item = (PodName, String)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::json;

    fn endpoint(owners: &[&str]) -> ObjectMeta {
        let owner = |uid: &&str| OwnerReference { kind: "Pod".into(), uid: (*uid).into(), ..OwnerReference::default() };
        ObjectMeta {
            namespace: Some("n".into()),
            name: Some("p".into()),
            owner_references: Some(owners.iter().map(owner).collect()),
            ..ObjectMeta::default()
        }
    }

    fn pods(uid: &str, phase: &str) -> LivePods {
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": uid}, "status": {"phase": phase}});
        LivePods::entry(&serde_json::from_value(pod).unwrap()).into_iter().collect()
    }

    #[test]
    fn an_endpoint_goes_with_its_pod_even_if_another_pod_has_its_name_now() {
        assert!(LivePods::default().lack_owner_of(&endpoint(&["1"])));
        assert!(pods("2", "Running").lack_owner_of(&endpoint(&["1"])));
        assert!(pods("1", "Succeeded").lack_owner_of(&endpoint(&["1"])));
        assert!(pods("1", "Failed").lack_owner_of(&endpoint(&["1"])));
        assert!(!pods("1", "Running").lack_owner_of(&endpoint(&["1"])));
        assert!(!pods("1", "Pending").lack_owner_of(&endpoint(&[])));
    }
}
