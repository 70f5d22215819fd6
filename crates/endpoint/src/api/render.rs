// SPDX-License-Identifier: Apache-2.0
//! Rows as objects of the REST API.

use super::{Shared, addressing};
use crate::attachment::AttachmentKey;
use model::{Endpoint, EndpointPolicy, Pod};
use rest::{
    AddressPair, EndpointConfigurationSpec, EndpointHealth, EndpointHealthStatus as Health, EndpointIdentifiers,
    EndpointNetworking, EndpointPolicy as PolicyView, EndpointPolicyEnabled, EndpointPolicyStatus, EndpointState,
    EndpointStatus, Identity, LabelConfigurationSpec, LabelConfigurationStatus, NodeAddressing, NodeAddressingElement,
    Port,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// An endpoint as `GET /endpoint/{id}` returns it.
pub(super) fn endpoint(shared: &Shared, endpoint: &Endpoint) -> rest::Endpoint {
    let policy = shared.policies.snapshot().get(&endpoint.id);
    let status = EndpointStatus {
        external_identifiers: Some(identifiers(endpoint)),
        identity: policy.as_deref().map(|p| identity(shared, p)),
        labels: Some(labels(shared, endpoint)),
        realized: Some(EndpointConfigurationSpec::default()),
        networking: Some(networking(shared, endpoint)),
        policy: policy.as_deref().map(policy_status),
        log: shared.manager.journal().of(endpoint.id).into_iter().take(1).collect(),
        state: state(shared, endpoint),
        health: Some(health(shared, endpoint)),
        named_ports: pod(shared, endpoint).map(|pod| named_ports(&pod)).unwrap_or_default(),
        ..EndpointStatus::default()
    };
    rest::Endpoint { id: endpoint.id.0, spec: Some(EndpointConfigurationSpec::default()), status: Some(status) }
}

/// An endpoint's health.
pub(super) fn health(shared: &Shared, endpoint: &Endpoint) -> EndpointHealth {
    let has_policy = shared.policies.snapshot().get(&endpoint.id).is_some();
    let policy = if has_policy { Health::Ok } else { Health::Pending };
    let bpf = match state(shared, endpoint) {
        EndpointState::Ready => Health::Ok,
        EndpointState::NotReady => Health::Failure,
        _ => Health::Pending,
    };
    let overall_health = if bpf == Health::Ok { policy } else { bpf };
    EndpointHealth { overall_health, bpf, policy, connected: true }
}

/// Labels of an endpoint: those of its identity, and the pod's others.
pub(super) fn labels(shared: &Shared, endpoint: &Endpoint) -> LabelConfigurationStatus {
    let policy = shared.policies.snapshot().get(&endpoint.id);
    let security_relevant = policy.map(|p| identity(shared, &p).labels).unwrap_or_default();
    let mut derived: Vec<_> = pod(shared, endpoint)
        .map(|pod| pod.labels.iter().map(|(k, v)| model::Label::k8s(k.as_str(), v.as_str()).to_string()).collect())
        .unwrap_or_default();
    derived.retain(|label| !security_relevant.contains(label));
    let realized = Some(LabelConfigurationSpec::default());
    LabelConfigurationStatus { realized, security_relevant, derived, disabled: Vec::new() }
}

fn state(shared: &Shared, endpoint: &Endpoint) -> EndpointState {
    let key = AttachmentKey::Pod(endpoint.id);
    match shared.manager.sources().status.get(&key).map(|s| s.state) {
        Some(statedb::State::Done) => EndpointState::Ready,
        Some(statedb::State::Error { .. }) => EndpointState::NotReady,
        None if shared.policies.snapshot().get(&endpoint.id).is_none() => EndpointState::WaitingForIdentity,
        None => EndpointState::Regenerating,
    }
}

fn pod(shared: &Shared, endpoint: &Endpoint) -> Option<Arc<Pod>> {
    shared.manager.sources().pods.snapshot().get(endpoint.pod()?)
}

/// The health endpoint has no names: no container runtime knows about it.
fn identifiers(endpoint: &Endpoint) -> EndpointIdentifiers {
    let Some(pod) = endpoint.pod() else { return EndpointIdentifiers::default() };
    EndpointIdentifiers {
        cni_attachment_id: format!("{}:{}", endpoint.container_id, endpoint.interface),
        container_id: endpoint.container_id.clone(),
        pod_name: pod.to_string(),
        k8s_pod_name: pod.name.to_string(),
        k8s_namespace: pod.namespace.to_string(),
        ..EndpointIdentifiers::default()
    }
}

fn identity(shared: &Shared, policy: &EndpointPolicy) -> Identity {
    let row = shared.identities.snapshot().get(&policy.identity);
    let labels = row.map(|row| row.labels.to_strings()).unwrap_or_default();
    let text: String = labels.iter().flat_map(|label| [label.as_str(), ";"]).collect();
    let labels_sha256 = crate::queue::hex(&Sha256::digest(text));
    Identity { id: policy.identity.0, labels, labels_sha256 }
}

fn networking(shared: &Shared, endpoint: &Endpoint) -> EndpointNetworking {
    let text = |ip: Option<String>| ip.unwrap_or_default();
    let pair = AddressPair {
        ipv4: text(endpoint.ipv4.map(|ip| ip.to_string())),
        ipv6: text(endpoint.ipv6.map(|ip| ip.to_string())),
        ..AddressPair::default()
    };
    EndpointNetworking {
        addressing: vec![pair],
        host_addressing: shared.node.snapshot().get(&()).map(|node| host_addressing(shared, &node)),
        host_mac: endpoint.host_mac.to_string(),
        mac: endpoint.mac.to_string(),
        interface_name: endpoint.host_interface.clone(),
        interface_index: endpoint.host_ifindex,
        container_interface_name: endpoint.interface.clone(),
    }
}

fn host_addressing(shared: &Shared, node: &model::LocalNode) -> NodeAddressing {
    let own = addressing(shared, node);
    let element = |e: crate::rest::NodeAddressingElement| NodeAddressingElement {
        enabled: e.enabled,
        ip: e.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        alloc_range: e.alloc_range.unwrap_or_default(),
        ..NodeAddressingElement::default()
    };
    NodeAddressing { ipv4: Some(element(own.ipv4)), ipv6: Some(element(own.ipv6)) }
}

fn policy_status(policy: &EndpointPolicy) -> EndpointPolicyStatus {
    let view = PolicyView {
        policy_revision: policy.revision,
        id: policy.identity.0,
        policy_enabled: EndpointPolicyEnabled::new(policy.ingress_enforced, policy.egress_enforced),
        build: policy.revision,
        ..PolicyView::default()
    };
    EndpointPolicyStatus { spec: Some(view.clone()), realized: Some(view), proxy_policy_revision: policy.revision }
}

fn named_ports(pod: &Pod) -> Vec<Port> {
    let port = |p: &model::NamedPort| Port { protocol: p.protocol.to_string(), port: p.port, name: p.name.clone() };
    pod.named_ports.iter().map(port).collect()
}
