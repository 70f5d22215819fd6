// SPDX-License-Identifier: Apache-2.0
//! Endpoints and identities: `/endpoint` and `/identity`.

use super::{ControllerStatus, NodeAddressing};
use std::collections::BTreeMap;

object! {
    /// A pod of this node.
    Endpoint {
        /// Number on this node.
        id: u16,
        spec: Option<EndpointConfigurationSpec>,
        status: Option<EndpointStatus>,
    }

    /// Options of an endpoint.
    EndpointConfigurationSpec {
        options: BTreeMap<String, String>,
        label_configuration: Option<LabelConfigurationSpec>,
    }

    /// Labels that a user set.
    LabelConfigurationSpec {
        user: Vec<String>,
    }

    /// State of an endpoint.
    EndpointStatus {
        /// Names by which others know it.
        external_identifiers: Option<EndpointIdentifiers>,
        identity: Option<Identity>,
        labels: Option<LabelConfigurationStatus>,
        /// Options in force.
        realized: Option<EndpointConfigurationSpec>,
        /// Addresses and interface.
        networking: Option<EndpointNetworking>,
        policy: Option<EndpointPolicyStatus>,
        /// Last changes of state.
        log: Vec<EndpointStatusChange>,
        /// Background work.
        controllers: Vec<ControllerStatus>,
        state: EndpointState,
        health: Option<EndpointHealth>,
        named_ports = "namedPorts": Vec<Port>,
    }

    /// Names by which others know an endpoint.
    EndpointIdentifiers {
        /// Container id and interface of the attachment.
        cni_attachment_id: String,
        container_id: String,
        container_name: String,
        /// `namespace/name`.
        pod_name: String,
        k8s_pod_name: String,
        k8s_namespace: String,
    }

    /// Addresses and interface of an endpoint.
    EndpointNetworking {
        addressing: Vec<AddressPair>,
        /// Addresses of the node.
        host_addressing: Option<NodeAddressing>,
        /// Hardware address of the host side.
        host_mac: String,
        /// Hardware address inside of the pod.
        mac: String,
        /// Host side of the pair.
        interface_name: String,
        interface_index: u32,
        container_interface_name: String,
    }

    /// Addresses of both families.
    AddressPair {
        ipv4: String,
        ipv4_pool_name: String,
        ipv6: String,
        ipv6_pool_name: String,
    }

    EndpointPolicyStatus {
        spec: Option<EndpointPolicy>,
        realized: Option<EndpointPolicy>,
        proxy_policy_revision: u64,
    }

    EndpointPolicy {
        policy_revision: u64,
        id: u32,
        policy_enabled: EndpointPolicyEnabled,
        build: u64,
        allowed_ingress_identities: Vec<u32>,
        /// Identities that may not send to it.
        denied_ingress_identities: Vec<u32>,
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

    PolicyRule {
        rule: String,
        /// Labels of the policies that made it.
        derived_from_rules: Vec<Vec<String>>,
        rules_by_selector: BTreeMap<String, Vec<Vec<String>>>,
    }

    /// A security identity.
    Identity {
        id: u32,
        labels: Vec<String>,
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
        disabled: Vec<String>,
    }

    /// A change of state.
    EndpointStatusChange {
        /// When, RFC 3339.
        timestamp: String,
        /// `ok` or `failed`.
        code: String,
        message: String,
        state: EndpointState,
    }

    EndpointHealth {
        /// All in all.
        overall_health = "overallHealth": EndpointHealthStatus,
        /// Programs and maps.
        bpf: EndpointHealthStatus,
        policy: EndpointHealthStatus,
        /// Whether the endpoint has a network.
        connected: bool,
    }

    /// A named port.
    Port {
        protocol: String,
        port: u16,
        name: String,
    }
}

names! {
    EndpointState {
        WaitingForIdentity = "waiting-for-identity",
        NotReady = "not-ready",
        /// Policy is to be computed.
        WaitingToRegenerate = "waiting-to-regenerate",
        /// Policy is being installed.
        Regenerating = "regenerating",
        /// Found again after a restart.
        Restoring = "restoring",
        Ready = "ready",
        /// Being removed.
        Disconnecting = "disconnecting",
        Disconnected = "disconnected",
        /// Not known.
        #[default]
        Invalid = "invalid",
    }

    /// Health of a part of an endpoint.
    EndpointHealthStatus {
        Ok = "OK",
        Bootstrap = "Bootstrap",
        Pending = "Pending",
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
        Both = "both",
        /// Into the endpoint, only logged.
        AuditIngress = "audit-ingress",
        /// Out of the endpoint, only logged.
        AuditEgress = "audit-egress",
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
