// SPDX-License-Identifier: Apache-2.0
//! The keys of `cilium-operator`. They stand here and not in its crate because the ConfigMap is the agent's too: it must
//! tell a key of the operator from one that nobody knows, and neither daemon may depend on the other. What the keys do is
//! the operator's affair.

use super::{Key, shared};

/// Taint of nodes whose agent is not ready.
pub const TAINT: Key =
    Key::new("agent-not-ready-taint-key", "taint of nodes whose agent is not ready", "node.cilium.io/agent-not-ready");
/// Interval of the collection of CiliumEndpoints.
pub const ENDPOINT_GC_INTERVAL: Key =
    Key::new("cilium-endpoint-gc-interval", "how often CiliumEndpoints without a pod are deleted; 0 for never", "5m0s");
/// Selector of the agents.
pub const POD_LABELS: Key = Key::new("cilium-pod-labels", "label selector of the agents' pods", "k8s-app=cilium");
/// Namespace of the agents.
pub const POD_NAMESPACE: Key =
    Key::new("cilium-pod-namespace", "namespace of the agents' pods; the operator's if empty", "");
/// Pools of IPv4.
pub const POOL_IPV4: Key =
    Key::new("cluster-pool-ipv4-cidr", "IPv4 prefixes out of which nodes get their pod CIDRs", "");
/// Size of a node's share of IPv4.
pub const POOL_IPV4_MASK_SIZE: Key =
    Key::new("cluster-pool-ipv4-mask-size", "prefix length of a node's IPv4 pod CIDR", "24");
/// Pools of IPv6.
pub const POOL_IPV6: Key =
    Key::new("cluster-pool-ipv6-cidr", "IPv6 prefixes out of which nodes get their pod CIDRs", "");
/// Size of a node's share of IPv6.
pub const POOL_IPV6_MASK_SIZE: Key =
    Key::new("cluster-pool-ipv6-mask-size", "prefix length of a node's IPv6 pod CIDR", "120");
/// Interval of the collection of CiliumIdentities.
pub const IDENTITY_GC_INTERVAL: Key = Key::new(
    "identity-gc-interval",
    "how often CiliumIdentities that nobody uses are looked for; 0 for never",
    "15m0s",
);
/// When an identity counts as unused.
pub const IDENTITY_HEARTBEAT_TIMEOUT: Key =
    Key::new("identity-heartbeat-timeout", "how long a CiliumIdentity must be unused before it is deleted", "30m0s");
/// Namespace of the Lease.
pub const NAMESPACE: Key = Key::new(
    "k8s-namespace",
    "namespace of the operator's Lease; $CILIUM_K8S_NAMESPACE or that of its service account if empty",
    "",
);
/// Interval of the collection of CiliumNodes.
pub const NODES_GC_INTERVAL: Key =
    Key::new("nodes-gc-interval", "how often CiliumNodes without a Node are looked for; 0 for never", "5m0s");
/// Address of the probes.
pub const API_ADDRESS: Key = Key::new("operator-api-serve-addr", "where /healthz is served", "127.0.0.1:9234");
/// Burst of requests.
pub const CLIENT_BURST: Key =
    Key::new("operator-k8s-client-burst", "requests to the API server that may be made at once", "200");
/// Rate of requests.
pub const CLIENT_QPS: Key =
    Key::new("operator-k8s-client-qps", "requests to the API server per second; 0 for no limit", "100");
/// Address of the metrics.
pub const METRICS_ADDRESS: Key =
    Key::new("operator-prometheus-serve-addr", "where /metrics is served, such as :9963; nowhere if empty", "");
/// Nodes lose the taint.
pub const REMOVE_TAINTS: Key =
    Key::new("remove-cilium-node-taints", "take the taint off nodes whose agent is ready", "true");
/// Nodes get the condition.
pub const SET_CONDITION: Key = Key::new(
    "set-cilium-is-up-condition",
    "set the condition NetworkUnavailable to False on nodes whose agent is ready",
    "true",
);
/// Nodes get the taint.
pub const SET_TAINTS: Key =
    Key::new("set-cilium-node-taints", "taint nodes whose agent is there but not ready", "false");
/// CustomResourceDefinitions are left to others.
pub const SKIP_CRDS: Key = Key::new("skip-crd-creation", "do not register CustomResourceDefinitions", "false");

/// Every key that the operator reads.
pub const KEYS: &[Key] = &[
    TAINT,
    ENDPOINT_GC_INTERVAL,
    POD_LABELS,
    POD_NAMESPACE,
    POOL_IPV4,
    POOL_IPV4_MASK_SIZE,
    POOL_IPV6,
    POOL_IPV6_MASK_SIZE,
    shared::DEBUG,
    shared::DISABLE_ENDPOINT_CRD,
    shared::ENABLE_IPV4,
    shared::ENABLE_IPV6,
    IDENTITY_GC_INTERVAL,
    IDENTITY_HEARTBEAT_TIMEOUT,
    shared::IPAM,
    shared::K8S_API_SERVER_URLS,
    shared::K8S_KUBECONFIG_PATH,
    NAMESPACE,
    NODES_GC_INTERVAL,
    API_ADDRESS,
    CLIENT_BURST,
    CLIENT_QPS,
    METRICS_ADDRESS,
    REMOVE_TAINTS,
    SET_CONDITION,
    SET_TAINTS,
    SKIP_CRDS,
];
