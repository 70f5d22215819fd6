// SPDX-License-Identifier: Apache-2.0
//! Endpoints and identities: `/endpoint` and `/identity`.

use super::{ControllerStatus, NodeAddressing};
use std::collections::BTreeMap;

object! {
    /// A pod of this node.
    Endpoint {
        /// Number on this node.
        id: u16,
        /// What is wanted.
        spec: Option<EndpointConfigurationSpec>,
        /// What is.
        status: Option<EndpointStatus>,
    }

    /// Options of an endpoint.
    EndpointConfigurationSpec {
        /// Options by name.
        options: BTreeMap<String, String>,
        /// Labels that a user set.
        label_configuration: Option<LabelConfigurationSpec>,
    }

    /// Labels that a user set.
    LabelConfigurationSpec {
        /// The labels.
        user: Vec<String>,
    }

    /// State of an endpoint.
    EndpointStatus {
        /// Names by which others know it.
        external_identifiers: Option<EndpointIdentifiers>,
        /// Its identity.
        identity: Option<Identity>,
        /// Its labels.
        labels: Option<LabelConfigurationStatus>,
        /// Options in force.
        realized: Option<EndpointConfigurationSpec>,
        /// Addresses and interface.
        networking: Option<EndpointNetworking>,
        /// Policy.
        policy: Option<EndpointPolicyStatus>,
        /// Last changes of state.
        log: Vec<EndpointStatusChange>,
        /// Background work.
        controllers: Vec<ControllerStatus>,
        /// State.
        state: EndpointState,
        /// Health.
        health: Option<EndpointHealth>,
        /// Named container ports.
        named_ports = "namedPorts": Vec<Port>,
    }

    /// Names by which others know an endpoint.
    EndpointIdentifiers {
        /// Container id and interface of the attachment.
        cni_attachment_id: String,
        /// Container id of the sandbox.
        container_id: String,
        /// Container name.
        container_name: String,
        /// `namespace/name`.
        pod_name: String,
        /// Name of the pod.
        k8s_pod_name: String,
        /// Namespace of the pod.
        k8s_namespace: String,
    }

    /// Addresses and interface of an endpoint.
    EndpointNetworking {
        /// Addresses.
        addressing: Vec<AddressPair>,
        /// Addresses of the node.
        host_addressing: Option<NodeAddressing>,
        /// Hardware address of the host side.
        host_mac: String,
        /// Hardware address inside of the pod.
        mac: String,
        /// Host side of the pair.
        interface_name: String,
        /// Its index.
        interface_index: u32,
        /// Interface inside of the pod.
        container_interface_name: String,
    }

    /// Addresses of both families.
    AddressPair {
        /// IPv4 address.
        ipv4: String,
        /// Pool of the IPv4 address.
        ipv4_pool_name: String,
        /// IPv6 address.
        ipv6: String,
        /// Pool of the IPv6 address.
        ipv6_pool_name: String,
    }

    /// Policy of an endpoint.
    EndpointPolicyStatus {
        /// What is wanted.
        spec: Option<EndpointPolicy>,
        /// What is in the maps.
        realized: Option<EndpointPolicy>,
        /// Revision that the proxy has.
        proxy_policy_revision: u64,
    }

    /// Policy of an endpoint.
    EndpointPolicy {
        /// Revision of the repository.
        policy_revision: u64,
        /// Identity.
        id: u32,
        /// Directions in which policy is enforced.
        policy_enabled: EndpointPolicyEnabled,
        /// Build.
        build: u64,
        /// Identities that may send to it.
        allowed_ingress_identities: Vec<u32>,
        /// Identities that may not send to it.
        denied_ingress_identities: Vec<u32>,
        /// Identities it may send to.
        allowed_egress_identities: Vec<u32>,
        /// Identities it may not send to.
        denied_egress_identities: Vec<u32>,
        /// Rules with ports.
        l4: Option<L4Policy>,
    }

    /// Rules by direction.
    L4Policy {
        /// Into the endpoint.
        ingress: Vec<PolicyRule>,
        /// Out of the endpoint.
        egress: Vec<PolicyRule>,
    }

    /// A rule.
    PolicyRule {
        /// The rule as JSON.
        rule: String,
        /// Labels of the policies that made it.
        derived_from_rules: Vec<Vec<String>>,
        /// The same by selector.
        rules_by_selector: BTreeMap<String, Vec<Vec<String>>>,
    }

    /// A security identity.
    Identity {
        /// Number.
        id: u32,
        /// Labels.
        labels: Vec<String>,
        /// Digest of the labels.
        labels_sha256 = "labelsSHA256": String,
    }

    /// Labels of an endpoint.
    LabelConfigurationStatus {
        /// Labels that a user set.
        realized: Option<LabelConfigurationSpec>,
        /// Labels that make the identity.
        security_relevant: Vec<String>,
        /// Labels that do not.
        derived: Vec<String>,
        /// Labels that a user disabled.
        disabled: Vec<String>,
    }

    /// A change of state.
    EndpointStatusChange {
        /// When, RFC 3339.
        timestamp: String,
        /// `ok` or `failed`.
        code: String,
        /// What happened.
        message: String,
        /// State after it.
        state: EndpointState,
    }

    /// Health of an endpoint.
    EndpointHealth {
        /// All in all.
        overall_health = "overallHealth": EndpointHealthStatus,
        /// Programs and maps.
        bpf: EndpointHealthStatus,
        /// Policy.
        policy: EndpointHealthStatus,
        /// Whether the endpoint has a network.
        connected: bool,
    }

    /// A named port.
    Port {
        /// Protocol.
        protocol: String,
        /// Number.
        port: u16,
        /// Name.
        name: String,
    }
}

names! {
    /// State of an endpoint.
    EndpointState {
        /// Its identity is being allocated.
        WaitingForIdentity = "waiting-for-identity",
        /// Not yet usable.
        NotReady = "not-ready",
        /// Policy is to be computed.
        WaitingToRegenerate = "waiting-to-regenerate",
        /// Policy is being installed.
        Regenerating = "regenerating",
        /// Found again after a restart.
        Restoring = "restoring",
        /// In service.
        Ready = "ready",
        /// Being removed.
        Disconnecting = "disconnecting",
        /// Removed.
        Disconnected = "disconnected",
        /// Not known.
        #[default]
        Invalid = "invalid",
    }

    /// Health of a part of an endpoint.
    EndpointHealthStatus {
        /// In order.
        Ok = "OK",
        /// Starting.
        Bootstrap = "Bootstrap",
        /// Waiting.
        Pending = "Pending",
        /// Degraded.
        Warning = "Warning",
        /// Not working.
        Failure = "Failure",
        /// Not in use.
        #[default]
        Disabled = "Disabled",
    }

    /// Directions in which policy is enforced.
    EndpointPolicyEnabled {
        /// In none.
        #[default]
        None = "none",
        /// Into the endpoint.
        Ingress = "ingress",
        /// Out of the endpoint.
        Egress = "egress",
        /// In both.
        Both = "both",
        /// Into the endpoint, only logged.
        AuditIngress = "audit-ingress",
        /// Out of the endpoint, only logged.
        AuditEgress = "audit-egress",
        /// In both, only logged.
        AuditBoth = "audit-both",
    }
}

impl EndpointPolicyEnabled {
    /// From the two directions.
    #[must_use]
    pub const fn new(ingress: bool, egress: bool) -> Self {
        match (ingress, egress) {
            (false, false) => Self::None,
            (true, false) => Self::Ingress,
            (false, true) => Self::Egress,
            (true, true) => Self::Both,
        }
    }
}
