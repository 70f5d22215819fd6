// SPDX-License-Identifier: Apache-2.0
//! Keys that more than one crate reads: each has one meaning and one default.

use super::Key;

/// Name of the cluster.
pub const CLUSTER_NAME: Key =
    Key::new("cluster-name", "name of the cluster, in identities, flows and selectors of pods", "default");
/// Log details.
pub const DEBUG: Key = Key::new("debug", "log details", "false");
/// No CiliumEndpoint objects.
pub const DISABLE_ENDPOINT_CRD: Key = Key::new(
    "disable-endpoint-crd",
    "write no CiliumEndpoint objects; without them the operator deletes no CiliumIdentity either",
    "false",
);
/// Health of health endpoints.
pub const ENABLE_ENDPOINT_HEALTH_CHECKING: Key = Key::new(
    "enable-endpoint-health-checking",
    "run an endpoint per node that other nodes probe, and probe theirs; only with enable-health-checking",
    "true",
);
/// Health of nodes.
pub const ENABLE_HEALTH_CHECKING: Key = Key::new(
    "enable-health-checking",
    "probe all nodes of the cluster, answer the probes of others, and tell what can be reached on the health socket",
    "true",
);
/// IPv4.
pub const ENABLE_IPV4: Key = Key::new("enable-ipv4", "give pods IPv4 addresses and forward IPv4", "true");
/// IPv6.
pub const ENABLE_IPV6: Key = Key::new("enable-ipv6", "give pods IPv6 addresses and forward IPv6", "false");
/// Who decides on pod CIDRs.
pub const IPAM: Key = Key::new(
    "ipam",
    "where a node's pod CIDRs come from: cluster-pool (the operator gives them) or kubernetes (spec.podCIDRs of the Node)",
    "cluster-pool",
);
/// Addresses of API servers.
pub const K8S_API_SERVER_URLS: Key =
    Key::new("k8s-api-server-urls", "addresses of API servers; when one is away, the next is used", "");
/// A kubeconfig.
pub const K8S_KUBECONFIG_PATH: Key = Key::new("k8s-kubeconfig-path", "kubeconfig to use outside of a pod", "");
/// Masquerading of IPv4.
pub const MASQUERADE_IPV4: Key =
    Key::new("enable-ipv4-masquerade", "IPv4 traffic that leaves the cluster takes the node's address", "true");
/// Masquerading of IPv6.
pub const MASQUERADE_IPV6: Key =
    Key::new("enable-ipv6-masquerade", "IPv6 traffic that leaves the cluster takes the node's address", "true");
/// Where the network routes IPv4 addresses of pods.
pub const NATIVE_IPV4: Key = Key::new(
    "ipv4-native-routing-cidr",
    "IPv4 prefix in which the network routes addresses of pods; traffic to it is not masqueraded",
    "",
);
/// Where the network routes IPv6 addresses of pods.
pub const NATIVE_IPV6: Key = Key::new(
    "ipv6-native-routing-cidr",
    "IPv6 prefix in which the network routes addresses of pods; traffic to it is not masqueraded",
    "",
);
