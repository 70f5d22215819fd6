// SPDX-License-Identifier: Apache-2.0
//! The keys of `cilium-operator`. They are here and not in its crate because the agent reads the same ConfigMap: it
//! must tell the operator's keys from unknown ones, and neither daemon may depend on the other. What the keys do is up
//! to the operator.

use super::shared::{self, Ipam};
use super::{Choice, Label, LogOption};
use ipnet::{Ipv4Net, Ipv6Net};
use std::net::SocketAddr;
use std::time::Duration;

const IPV4_POOL: &str = "and (eq .Values.ipam.mode \"cluster-pool\") .Values.ipv4.enabled";
const IPV6_POOL: &str = "and (eq .Values.ipam.mode \"cluster-pool\") .Values.ipv6.enabled";

/// Who gives Services their addresses if they do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceIpam {
    /// The operator, out of pools.
    #[default]
    LbIpam,
    /// The operator: they are those of nodes.
    NodeIpam,
    /// Nobody here.
    None,
}

impl Choice for ServiceIpam {
    const WANT: &'static str = "lbipam, nodeipam or none";
    const NAMES: &'static [(&'static str, Self)] =
        &[("lbipam", Self::LbIpam), ("nodeipam", Self::NodeIpam), ("none", Self::None)];
}

super::keys! {
    /// The keys that the operator reads.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// Taint of nodes whose agent is not ready.
        #[key("agent-not-ready-taint-key", default = "node.cilium.io/agent-not-ready", value = "agentNotReadyTaintKey")]
        pub taint: String,
        /// How often CiliumEndpoints without a pod are deleted; 0 for never.
        #[key("cilium-endpoint-gc-interval", default = "5m0s", value = "operator.endpointGCInterval")]
        pub endpoint_gc_interval: Duration,
        /// Label selector of the agents' pods.
        #[key("cilium-pod-labels", default = "k8s-app=cilium")]
        pub pod_labels: String,
        /// Namespace of the agents' pods; the operator's if empty.
        #[key("cilium-pod-namespace")]
        pub pod_namespace: Option<String>,
        /// IPv4 prefixes out of which nodes get their pod CIDRs.
        #[key(
            "cluster-pool-ipv4-cidr",
            value = "ipam.operator.clusterPoolIPv4PodCIDRList",
            initial = "[\"10.0.0.0/8\"]",
            when = IPV4_POOL,
        )]
        pub pool_ipv4: Vec<Ipv4Net>,
        /// Prefix length of a node's IPv4 pod CIDR.
        #[key(
            "cluster-pool-ipv4-mask-size",
            default = "24",
            value = "ipam.operator.clusterPoolIPv4MaskSize",
            schema = r#"{"type": "integer", "minimum": 1, "maximum": 32}"#,
            when = IPV4_POOL,
        )]
        pub mask_size_ipv4: u8,
        /// IPv6 prefixes out of which nodes get their pod CIDRs.
        #[key(
            "cluster-pool-ipv6-cidr",
            value = "ipam.operator.clusterPoolIPv6PodCIDRList",
            initial = "[\"fd00::/104\"]",
            when = IPV6_POOL,
        )]
        pub pool_ipv6: Vec<Ipv6Net>,
        /// Prefix length of a node's IPv6 pod CIDR.
        #[key(
            "cluster-pool-ipv6-mask-size",
            default = "120",
            value = "ipam.operator.clusterPoolIPv6MaskSize",
            schema = r#"{"type": "integer", "minimum": 1, "maximum": 128}"#,
            when = IPV6_POOL,
        )]
        pub mask_size_ipv6: u8,
        #[key(shared::DEBUG)]
        pub debug: bool,
        #[key(shared::LOG_OPT)]
        pub log_options: Vec<LogOption>,
        /// Who gives addresses to Services of type LoadBalancer without a loadBalancerClass: lbipam (out of pools), nodeipam (those of
        /// nodes; needs enable-node-ipam), or none for somebody else.
        #[key("default-lb-service-ipam", default = "lbipam", value = "defaultLBServiceIPAM")]
        pub default_lb_service_ipam: ServiceIpam,
        #[key(shared::DISABLE_ENDPOINT_CRD)]
        pub disable_endpoint_crd: bool,
        #[key(shared::ENABLE_GATEWAY_API)]
        pub gateway_api: bool,
        /// Copy what Gateways refer to into the namespace of which agents may read Secrets.
        #[key("enable-gateway-api-secrets-sync", default = "true", value = "gatewayAPI.secretsNamespace.sync")]
        pub gateway_secrets_sync: bool,
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
        /// Give Services of type LoadBalancer addresses out of CiliumLoadBalancerIPPools; without any pool nothing is done.
        #[key("enable-lb-ipam", default = "true", value = "enableLBIPAM")]
        pub lb_ipam: bool,
        /// Let Services of type LoadBalancer with the loadBalancerClass io.cilium/node have the addresses of nodes.
        #[key("enable-node-ipam", default = "false", value = "nodeIPAM.enabled")]
        pub node_ipam: bool,
        #[key(shared::GATEWAY_HOST_NETWORK)]
        pub gateway_host_network: bool,
        #[key(shared::GATEWAY_HOST_NODES)]
        pub gateway_nodes: Vec<Label>,
        #[key(shared::GATEWAY_SECRETS_NAMESPACE)]
        pub gateway_secrets_namespace: String,
        /// externalTrafficPolicy of Gateways' Services: Cluster or Local.
        #[key(
            "gateway-api-service-externaltrafficpolicy",
            default = "Cluster",
            value = "gatewayAPI.externalTrafficPolicy",
            schema = r#"{"enum": ["Cluster", "Local"]}"#,
        )]
        pub gateway_traffic_policy: String,
        /// How often CiliumIdentities that nobody uses are looked for; 0 for never.
        #[key("identity-gc-interval", default = "15m0s", value = "operator.identityGCInterval")]
        pub identity_gc_interval: Duration,
        /// How long a CiliumIdentity must be unused before it is deleted.
        #[key("identity-heartbeat-timeout", default = "30m0s", value = "operator.identityHeartbeatTimeout")]
        pub identity_heartbeat_timeout: Duration,
        #[key(shared::IPAM)]
        pub ipam: Ipam,
        #[key(shared::K8S_API_SERVER_URLS)]
        pub api_servers: Vec<String>,
        #[key(shared::K8S_KUBECONFIG_PATH)]
        pub kubeconfig: Option<String>,
        /// Namespace of the operator's Lease; $CILIUM_K8S_NAMESPACE or that of its service account if empty.
        #[key("k8s-namespace")]
        pub namespace: Option<String>,
        /// How often CiliumNodes without a Node are looked for; 0 for never.
        #[key("nodes-gc-interval", default = "5m0s", value = "operator.nodeGCInterval")]
        pub node_gc_interval: Duration,
        /// Where /healthz is served.
        #[key("operator-api-serve-addr", default = "127.0.0.1:9234", always = "127.0.0.1:9234")]
        pub api_address: Option<SocketAddr>,
        /// Requests to the API server that may be made at once.
        #[key("operator-k8s-client-burst", default = "200")]
        pub client_burst: u32,
        /// Requests to the API server per second; 0 for no limit.
        #[key("operator-k8s-client-qps", default = "100")]
        pub client_qps: f64,
        /// Where /metrics is served, such as :9963; nowhere if empty.
        #[key(
            "operator-prometheus-serve-addr",
            template = r#"":{{ .Values.operator.prometheus.port }}""#,
            when = ".Values.operator.prometheus.enabled",
        )]
        pub metrics_address: Option<SocketAddr>,
        /// Take the taint off nodes whose agent is ready.
        #[key("remove-cilium-node-taints", default = "true", value = "operator.removeNodeTaints")]
        pub remove_taints: bool,
        /// Set the condition NetworkUnavailable to False on nodes whose agent is ready.
        #[key("set-cilium-is-up-condition", default = "true", value = "operator.setNodeNetworkStatus")]
        pub set_condition: bool,
        /// Taint nodes whose agent is there but not ready.
        #[key("set-cilium-node-taints", default = "false")]
        pub set_taints: bool,
        /// Do not register CustomResourceDefinitions.
        #[key("skip-crd-creation", default = "false", value = "operator.skipCRDCreation")]
        pub skip_crds: bool,
    }
}
