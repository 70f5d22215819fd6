// SPDX-License-Identifier: Apache-2.0
//! Which CiliumEndpoints have lost their pod. Pure.

use k8s::cilium::CiliumEndpoint;
use k8s::k8s_openapi::api::core::v1::Pod;
use k8s::kube::ResourceExt;
use model::{IdentityId, PodName};
use statedb::Row;

/// A pod that has not finished. One row per pod of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePod {
    name: PodName,
    uid: String,
}

impl Row for LivePod {
    type Key = PodName;
    fn key(&self) -> PodName {
        self.name.clone()
    }
}

impl LivePod {
    /// None if the pod has finished.
    #[must_use]
    pub fn ingest(pod: &Pod) -> Option<Self> {
        crate::ingest_pod(pod).filter(|pod| !pod.ended).map(|pod| Self { name: pod.name, uid: pod.uid })
    }
}

/// What matters of a CiliumEndpoint. One row per pod of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub name: PodName,
    pub uid: Option<String>,
    pub version: Option<String>,
    pub identity: Option<IdentityId>,
    owner: Option<String>,
}

impl Row for Published {
    type Key = PodName;
    fn key(&self) -> PodName {
        self.name.clone()
    }
}

impl Published {
    #[must_use]
    pub fn ingest(endpoint: &CiliumEndpoint) -> Option<Self> {
        let owner = endpoint.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Pod");
        let identity = endpoint.status.as_ref().and_then(|status| status.identity.as_ref()?.id);
        Some(Self {
            name: PodName::new(endpoint.namespace().unwrap_or_default(), endpoint.name_any()),
            uid: endpoint.uid(),
            version: endpoint.resource_version(),
            identity: identity.and_then(|id| id.try_into().ok()).map(IdentityId),
            owner: owner.map(|owner| owner.uid.clone()),
        })
    }

    /// Whether it has lost its pod, when the pod of its name is this one or there is none. Its owner, if it names one, must be this very
    /// pod, not another of the same name.
    #[must_use]
    pub fn lacks(&self, pod: Option<&LivePod>) -> bool {
        pod.is_none_or(|pod| self.owner.as_ref().is_some_and(|owner| *owner != pod.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(owners: &[&str]) -> Published {
        let owner = |uid: &&str| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
        let owners: Vec<_> = owners.iter().map(owner).collect();
        let metadata = json!({"namespace": "n", "name": "p", "uid": "e", "ownerReferences": owners});
        let object = json!({"metadata": metadata, "status": {"identity": {"id": 300}}});
        Published::ingest(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn pod(uid: &str, phase: &str) -> Option<LivePod> {
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": uid}, "status": {"phase": phase}});
        LivePod::ingest(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn an_endpoint_goes_with_its_pod_even_if_another_pod_has_its_name_now() {
        assert!(endpoint(&["1"]).lacks(None));
        assert!(endpoint(&["1"]).lacks(pod("2", "Running").as_ref()));
        assert!(endpoint(&["1"]).lacks(pod("1", "Succeeded").as_ref()));
        assert!(endpoint(&["1"]).lacks(pod("1", "Failed").as_ref()));
        assert!(!endpoint(&["1"]).lacks(pod("1", "Running").as_ref()));
        assert!(!endpoint(&[]).lacks(pod("1", "Pending").as_ref()));
        assert_eq!(endpoint(&[]).identity, Some(IdentityId(300)));
    }
}
