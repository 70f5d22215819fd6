// SPDX-License-Identifier: Apache-2.0
//! Pods of this node: from their labels to an identity, and with it to a compiled policy. A pod whose labels or
//! identity are unknown waits, and until then has no row in the table that permits attaching it.

use super::Run;
use crate::identity::allocate::Request;
use crate::labels::security_labels;
use crate::resolve::SubjectKey;
use k8s::{Warning, pod_reference};
use model::{
    Endpoint, EndpointId, EndpointKind, Identity, IdentityId, Labels, Namespace, Pod, PodName, PolicyId, reserved,
};
use std::collections::btree_map::Entry;
use std::sync::Arc;

impl Run {
    /// Finds the identity of a pod of this node, or requests one.
    pub(super) fn resolve_endpoint(&mut self, id: EndpointId) {
        let Some(endpoint) = self.endpoints.get(&id) else { return };
        let EndpointKind::Pod { name, uid } = &endpoint.kind else {
            return self.attach(endpoint.clone(), SubjectKey::new(reserved::HEALTH, &[]), None);
        };
        let Some((pod, namespace)) = self.pod_of(name, uid) else {
            // What is known about an attached pod stays until there is something newer.
            if !self.attached.contains_key(&id) {
                self.waiting.insert(id);
            }
            return;
        };
        let (policy, before) = self.restored.get(&id).copied().unzip();
        if pod.is_proxy(&self.cilium_namespace) {
            // Who asks a backend by way of the proxy is nobody that policy could know.
            let policy = policy.filter(|_| before == Some(reserved::INGRESS));
            self.waiting.remove(&id);
            return self.attach(endpoint.clone(), SubjectKey::new(reserved::INGRESS, &pod.named_ports), policy);
        }
        let labels = security_labels(&pod, &namespace, &self.config.cluster_name, &self.config.labels);
        let current = self.attached.get(&id).copied().or(before);
        let Some(identity) = self.identities.choose(&labels, current) else {
            self.waiting.insert(id);
            self.warn_if_refused(&pod, &labels);
            // Before that, the labels may well have an identity; a second one would change every policy that selects them.
            if self.sources.know_identities() {
                self.request(labels, None);
            }
            return;
        };
        self.waiting.remove(&id);
        self.engine.upsert_identity(&Identity { id: identity, labels });
        let policy = policy.filter(|_| before == Some(identity));
        self.attach(endpoint.clone(), SubjectKey::new(identity, &pod.named_ports), policy);
    }

    /// The pod that an endpoint was created for, and its namespace.
    fn pod_of(&self, name: &PodName, uid: &str) -> Option<(Arc<Pod>, Arc<Namespace>)> {
        let pod = self.pods.snapshot().get(name).filter(|pod| has_uid(pod, uid))?;
        Some((pod, self.namespaces.snapshot().get(&name.namespace)?))
    }

    fn attach(&mut self, endpoint: Endpoint, subject: SubjectKey, policy: Option<PolicyId>) {
        let (id, identity) = (endpoint.id, subject.identity);
        self.engine.attach(id, subject, policy);
        self.addresses.upsert_endpoint(endpoint, identity);
        self.attached.insert(id, identity);
    }

    pub(super) fn remove_endpoint(&mut self, id: EndpointId) {
        self.endpoints.remove(&id);
        self.attached.remove(&id);
        self.waiting.remove(&id);
        self.restored.remove(&id);
        self.engine.detach(id);
        self.addresses.remove_endpoint(id);
    }

    /// Resolves all pods of this node that meet the condition.
    pub(super) fn resolve_where(&mut self, condition: impl Fn(&Endpoint) -> bool) {
        let picked: Vec<_> = self.endpoints.values().filter(|e| condition(e)).map(|e| e.id).collect();
        picked.into_iter().for_each(|id| self.resolve_endpoint(id));
    }

    pub(super) fn resolve_waiting(&mut self) {
        self.waiting.clone().into_iter().for_each(|id| self.resolve_endpoint(id));
    }

    pub(super) fn upsert_identity(&mut self, identity: &Identity) {
        self.missed.remove(&identity.id);
        let relabelled = self.identities.upsert(identity);
        self.engine.upsert_identity(identity);
        if relabelled {
            self.leave(identity.id);
        }
    }

    /// Pods of this node whose number now belongs to other labels get another one.
    fn leave(&mut self, identity: IdentityId) {
        let pods: Vec<_> = self.attached.iter().filter(|(_, used)| **used == identity).map(|(id, _)| *id).collect();
        if !pods.is_empty() {
            tracing::warn!(%identity, "an identity in use now has other labels, its pods get another one");
        }
        pods.into_iter().for_each(|id| self.resolve_endpoint(id));
    }

    /// Somebody removed an identity. If pods of this node have it, it is recreated, if possible with the same number.
    /// For pods elsewhere their own agent does that; until then their permissions stay, since flows once refused stay
    /// refused.
    pub(super) fn identity_removed(&mut self, identity: &Identity) {
        if self.attached.values().any(|used| *used == identity.id) {
            tracing::warn!(identity = %identity.id, "identity in use was deleted, recreating it");
            self.request(identity.labels.clone(), Some(identity.id));
        } else if self.addresses.is_carried(identity.id) {
            self.missed.insert(identity.id);
        } else {
            self.forget_identity(identity.id);
        }
    }

    /// Notes which identities of this node's pods the API server does not show.
    pub(super) fn note_unseen(&mut self) {
        let of_cluster = |id: &IdentityId| !id.is_reserved() && !id.is_node_local();
        let is_shown = |id: &IdentityId| {
            self.sources.shown_identity(*id).is_some_and(|shown| self.identities.labels(*id) == Some(&shown.labels))
        };
        let used = self.attached.values().copied().filter(of_cluster);
        self.unseen.set(&used.filter(|id| !is_shown(id)).collect());
    }

    /// An identity in use has not been shown for a while.
    pub(super) fn identity_unseen(&mut self, id: IdentityId) {
        if let Some(labels) = self.identities.labels(id).cloned() {
            tracing::info!(identity = %id, "the API server does not show an identity in use, recreating it");
            self.request(labels, Some(id));
        }
    }

    /// Pods of the cluster have changed: an identity that none of them has need not come back.
    pub(super) fn forget_missed(&mut self) {
        let gone: Vec<_> = self.missed.iter().filter(|id| !self.addresses.is_carried(**id)).copied().collect();
        gone.into_iter().for_each(|id| self.forget_identity(id));
    }

    fn forget_identity(&mut self, id: IdentityId) {
        self.missed.remove(&id);
        self.identities.remove(id);
        self.engine.remove_identity(id);
    }

    /// An identity was created. If it replaces one that could not be kept, that one ends.
    pub(super) fn identity_made(&mut self, identity: &Identity) {
        self.refused.remove(&identity.labels);
        let lost = self.requested.remove(&identity.labels).flatten().filter(|lost| *lost != identity.id);
        self.upsert_identity(identity);
        if let Some(lost) = lost {
            self.identities.remove(lost);
            self.resolve_where(|_| true);
            self.engine.remove_identity(lost);
            // The number may be another's by now.
            if let Some(shown) = self.sources.shown_identity(lost) {
                self.upsert_identity(&shown);
            }
        }
        self.resolve_waiting();
    }

    /// There is no identity for these labels, and people have to fix that.
    pub(super) fn identity_refused(&mut self, labels: Labels, why: String) {
        self.refused.insert(labels, why);
        self.resolve_waiting();
    }

    fn warn_if_refused(&self, pod: &Pod, labels: &Labels) {
        if let Some(why) = self.refused.get(labels) {
            self.warnings.warn(Warning {
                about: pod_reference(&pod.name.namespace, &pod.name.name, &pod.uid),
                reason: "IdentityRefused",
                action: "Attach",
                note: format!("No security identity for this pod: {why}"),
            });
        }
    }

    fn request(&mut self, labels: Labels, lost: Option<IdentityId>) {
        match self.requested.entry(labels) {
            Entry::Vacant(none) => {
                // The receiver lives as long as the process.
                let _ = self.requests.send(Request::new(none.key().clone(), lost));
                none.insert(lost);
            }
            // Whatever comes of that takes the place of the lost one.
            Entry::Occupied(mut running) => *running.get_mut() = running.get().or(lost),
        }
    }

    /// A request that could not be met is made again, unless all have gone that waited for it.
    pub(super) fn identity_due(&mut self, request: Request) {
        if self.wants(&request.labels) {
            let _ = self.requests.send(request);
        } else {
            self.requested.remove(&request.labels);
            self.refused.remove(&request.labels);
        }
    }

    fn wants(&self, labels: &Labels) -> bool {
        let lost = self.requested.get(labels).copied().flatten();
        let is_lost = lost.is_some_and(|lost| self.attached.values().any(|used| *used == lost));
        let waits = |id: &EndpointId| {
            let EndpointKind::Pod { name, uid } = &self.endpoints.get(id)?.kind else { return None };
            let (pod, namespace) = self.pod_of(name, uid)?;
            Some(security_labels(&pod, &namespace, &self.config.cluster_name, &self.config.labels))
        };
        is_lost || self.waiting.iter().filter_map(waits).any(|waited| waited == *labels)
    }
}

/// Whether the pod is the one an endpoint was created for, not an earlier or later one of that name.
///
/// A static pod's UID at the kubelet, a hash without hyphens, differs from that in the API, which changes with each
/// mirror: they cannot be compared.
fn has_uid(pod: &Pod, uid: &str) -> bool {
    let comparable = uid.contains('-') && !pod.uid.is_empty() && !pod.is_mirror();
    !comparable || pod.uid == uid
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_endpoint_is_a_pods_only_if_both_have_one_uid_or_theirs_cannot_be_compared() {
        let pod = |uid: &str, annotations: &[&str]| Pod {
            name: PodName::new("shop", "web"),
            uid: uid.to_owned(),
            labels: BTreeMap::new(),
            annotations: annotations.iter().map(|key| ((*key).to_owned(), "x".to_owned())).collect(),
            service_account: String::new(),
            host_network: false,
            ips: vec![],
            workload: None,
            named_ports: vec![],
            host_ports: vec![],
            ready: true,
            ended: false,
        };
        for (of_endpoint, of_pod, annotations, same) in [
            ("8a-1", "8a-1", &[][..], true),
            ("8a-1", "8a-2", &[], false),
            // Not told by the runtime, not known of the API, or of the kubelet's own.
            ("", "8a-1", &[], true),
            ("8a1", "8a-1", &[], true),
            ("8a-1", "", &[], true),
            ("8a-1", "8a-2", &["kubernetes.io/config.mirror"], true),
        ] {
            assert_eq!(has_uid(&pod(of_pod, annotations), of_endpoint), same, "{of_endpoint} {of_pod} {annotations:?}");
        }
    }
}
