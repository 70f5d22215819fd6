// SPDX-License-Identifier: Apache-2.0
//! Keys that more than one crate reads.

use super::{Choice, Key, Label, LogOption};
use crate::{Algorithm, RoutingMode};
use ipnet::{Ipv4Net, Ipv6Net};

/// `cluster-name`
pub const CLUSTER_NAME: Key<String> =
    Key::new("cluster-name", "Name of the cluster, in identities, flows and selectors of pods")
        .default("default")
        .value("cluster.name");
/// `debug`
pub const DEBUG: Key<bool> = Key::new("debug", "Log details").default("false").value("debug.enabled");
/// `disable-endpoint-crd`
pub const DISABLE_ENDPOINT_CRD: Key<bool> = Key::new(
    "disable-endpoint-crd",
    "Write no CiliumEndpoint objects; without them the operator deletes no CiliumIdentity either",
)
.default("false");
/// `enable-endpoint-health-checking`
pub const ENABLE_ENDPOINT_HEALTH_CHECKING: Key<bool> = Key::new(
    "enable-endpoint-health-checking",
    "Run an endpoint per node that other nodes probe as they would a pod, and probe theirs; only with enable-health-checking",
)
.default("true")
.value("endpointHealthChecking.enabled");
/// `enable-health-checking`
pub const ENABLE_HEALTH_CHECKING: Key<bool> = Key::new(
    "enable-health-checking",
    "Probe the other nodes, by ICMP echo and HTTP, and answer their probes: `cilium-health status` shows what can be reached",
)
.default("true")
.value("healthChecking");
/// `enable-ipv4`
pub const ENABLE_IPV4: Key<bool> =
    Key::new("enable-ipv4", "Give pods IPv4 addresses and forward IPv4").default("true").value("ipv4.enabled");
/// `enable-ipv6`
pub const ENABLE_IPV6: Key<bool> =
    Key::new("enable-ipv6", "Give pods IPv6 addresses and forward IPv6").default("false").value("ipv6.enabled");
/// `enable-gateway-api`
pub const ENABLE_GATEWAY_API: Key<bool> =
    Key::new("enable-gateway-api", "Serve Gateways of classes with the controller io.cilium/gateway-controller")
        .default("false")
        .value("gatewayAPI.enabled");
/// `gateway-api-hostnetwork-enabled`
pub const GATEWAY_HOST_NETWORK: Key<bool> = Key::new(
    "gateway-api-hostnetwork-enabled",
    "Gateways listen at the nodes' own addresses, not at those of a Service",
)
.default("false")
.value("gatewayAPI.hostNetwork.enabled");
/// `gateway-api-hostnetwork-nodelabelselector`
pub const GATEWAY_HOST_NODES: Key<Vec<Label>> = Key::new(
    "gateway-api-hostnetwork-nodelabelselector",
    "Labels of the nodes at whose addresses Gateways are reached, with gateway-api-hostnetwork-enabled; all if empty",
)
.template(r#"{{ include "cilium.matchLabels" .Values.gatewayAPI.hostNetwork.nodes.matchLabels | quote }}"#)
.when("and .Values.gatewayAPI.enabled .Values.gatewayAPI.hostNetwork.nodes.matchLabels");
/// `gateway-api-secrets-namespace`
pub const GATEWAY_SECRETS_NAMESPACE: Key<String> = Key::new(
    "gateway-api-secrets-namespace",
    "Namespace of which agents may read Secrets; those that Gateways refer to are copied there",
)
.default("cilium-secrets")
.value("gatewayAPI.secretsNamespace.name");
/// `enable-service-topology`
pub const SERVICE_TOPOLOGY: Key<bool> =
    Key::new("enable-service-topology", "Let endpoints' hints keep traffic in a zone or on a node")
        .default("false")
        .value("loadBalancer.serviceTopology");
/// `ipam`
pub const IPAM: Key<Ipam> = Key::new(
    "ipam",
    "Where a node's pod CIDRs come from: cluster-pool (the operator gives them) or kubernetes (spec.podCIDRs of the Node)",
)
.default("cluster-pool")
.value("ipam.mode");
/// `k8s-api-server-urls`
pub const K8S_API_SERVER_URLS: Key<Vec<String>> =
    Key::new("k8s-api-server-urls", "Addresses of API servers; when one is away, the next is used");
/// `k8s-kubeconfig-path`
pub const K8S_KUBECONFIG_PATH: Key<Option<String>> =
    Key::new("k8s-kubeconfig-path", "Kubeconfig to use outside of a pod");
/// `log-opt`
pub const LOG_OPT: Key<Vec<LogOption>> = Key::new(
    "log-opt",
    "How logs are written, to standard error: format=json or format=text, and level=debug, info, warn or error instead of what debug says",
)
.template(r#"{{ include "cilium.matchLabels" .Values.logOptions | quote }}"#)
.when(".Values.logOptions");
/// `enable-ipv4-masquerade`
pub const MASQUERADE_IPV4: Key<bool> =
    Key::new("enable-ipv4-masquerade", "IPv4 traffic that leaves the cluster takes the node's address")
        .default("true")
        .value("enableIPv4Masquerade");
/// `enable-ipv6-masquerade`
pub const MASQUERADE_IPV6: Key<bool> =
    Key::new("enable-ipv6-masquerade", "IPv6 traffic that leaves the cluster takes the node's address")
        .default("true")
        .value("enableIPv6Masquerade");
/// `ipv4-native-routing-cidr`
pub const NATIVE_IPV4: Key<Option<Ipv4Net>> = Key::new(
    "ipv4-native-routing-cidr",
    "IPv4 prefix in which the network routes addresses of pods; traffic to it is not masqueraded",
)
.optional("ipv4NativeRoutingCIDR");
/// `ipv6-native-routing-cidr`
pub const NATIVE_IPV6: Key<Option<Ipv6Net>> = Key::new(
    "ipv6-native-routing-cidr",
    "IPv6 prefix in which the network routes addresses of pods; traffic to it is not masqueraded",
)
.optional("ipv6NativeRoutingCIDR");
/// `routing-mode`
pub const ROUTING_MODE: Key<RoutingMode> = Key::new(
    "routing-mode",
    "How pods of other nodes are reached: tunnel (VXLAN) or native (routed by the network, or by direct routes)",
)
.default("tunnel")
.or_default("routingMode");

/// Who decides on the nodes' pod CIDRs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipam {
    /// The operator: it cuts them out of the cluster's pools and writes them to the CiliumNode.
    #[default]
    ClusterPool,
    /// Kubernetes' controller manager, in `spec.podCIDRs` of the Node.
    Kubernetes,
}

impl Choice for Ipam {
    const WANT: &'static str = "supported: use kubernetes or cluster-pool";
    const NAMES: &'static [(&'static str, Self)] =
        &[("cluster-pool", Self::ClusterPool), ("kubernetes", Self::Kubernetes)];
}

impl Ipam {
    /// As the key has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterPool => "cluster-pool",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl Choice for RoutingMode {
    const WANT: &'static str = "tunnel or native";
    const NAMES: &'static [(&'static str, Self)] = &[("tunnel", Self::Tunnel), ("native", Self::Native)];
}

impl Choice for Algorithm {
    const WANT: &'static str = "random or maglev";
    const NAMES: &'static [(&'static str, Self)] = &[("random", Self::Random), ("maglev", Self::Maglev)];
}
