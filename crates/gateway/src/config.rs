// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature that agents read, as the chart writes them.

use crate::ingress::IngressConfig;
use crate::name::ObjectName;
use crate::serve::Serving;
use l7::{ClusterLimits, Limits};
use model::config::{Choice, Label, keys, shared};
use std::sync::Arc;
use std::time::Duration;

/// Whether Ingresses have a load balancer each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadBalancerMode {
    /// They have.
    #[default]
    Dedicated,
    /// They share one.
    Shared,
}

impl Choice for LoadBalancerMode {
    const WANT: &'static str = "dedicated or shared";
    const NAMES: &'static [(&'static str, Self)] = &[("dedicated", Self::Dedicated), ("shared", Self::Shared)];
}

keys! {
    /// How Gateways are served on this node.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        #[key(shared::ENABLE_GATEWAY_API)]
        pub enabled: bool,
        /// Offer HTTP/2 to clients of Gateways that use TLS.
        #[key("enable-gateway-api-alpn", default = "false", value = "gatewayAPI.enableAlpn")]
        pub alpn: bool,
        /// Speak to backends of Gateways as the appProtocol of their Service's port says.
        #[key("enable-gateway-api-app-protocol", default = "false", value = "gatewayAPI.enableAppProtocol")]
        pub app_protocol: bool,
        /// Expect a PROXY header at the beginning of each connection to a Gateway.
        #[key("enable-gateway-api-proxy-protocol", default = "false", value = "gatewayAPI.enableProxyProtocol")]
        pub proxy_protocol: bool,
        /// Expect a PROXY header at the beginning of each connection to an Ingress.
        #[key("enable-ingress-proxy-protocol", default = "false", value = "ingressController.enableProxyProtocol")]
        pub ingress_proxy_protocol: bool,
        /// Serve what CiliumEnvoyConfigs and CiliumClusterwideEnvoyConfigs say of Services.
        #[key("enable-envoy-config", default = "false", value = "envoyConfig.enabled")]
        pub envoy_configs: bool,
        /// Serve Ingresses of the class cilium.
        #[key("enable-ingress-controller", default = "false", value = "ingressController.enabled")]
        pub ingress: bool,
        /// Redirect clients of Ingresses to TLS where they have it.
        #[key("enforce-ingress-https", default = "true", value = "ingressController.enforceHttps")]
        pub enforce_https: bool,
        /// Whether Ingresses that do not say it have a load balancer each (dedicated) or share one (shared).
        #[key("ingress-default-lb-mode", default = "dedicated", value = "ingressController.loadbalancerMode")]
        pub ingress_mode: LoadBalancerMode,
        /// Secret with the certificate of Ingresses' hosts that name none.
        #[key(
            "ingress-default-secret-name",
            optional = "ingressController.defaultSecretName",
            initial = "null",
            schema = r#"{"type": ["string", "null"]}"#,
        )]
        pub default_secret: Option<String>,
        /// Namespace of ingress-default-secret-name.
        #[key(
            "ingress-default-secret-namespace",
            optional = "ingressController.defaultSecretNamespace",
            initial = "null",
            schema = r#"{"type": ["string", "null"]}"#,
        )]
        pub default_secret_namespace: Option<String>,
        /// Annotations of Ingresses that begin like this are those of their Services too.
        #[key(
            "ingress-lb-annotation-prefixes",
            default = "lbipam.cilium.io nodeipam.cilium.io service.beta.kubernetes.io service.kubernetes.io cloud.google.com",
            value = "ingressController.ingressLBAnnotationPrefixes",
            initial = "[lbipam.cilium.io, nodeipam.cilium.io, service.beta.kubernetes.io, service.kubernetes.io, cloud.google.com]",
        )]
        pub copied_annotations: Vec<String>,
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
        #[key(shared::GATEWAY_HOST_NETWORK)]
        pub host_network: bool,
        #[key(shared::GATEWAY_HOST_NODES)]
        pub host_nodes: Vec<Label>,
        /// Ingresses listen at the nodes' own addresses, in clear and in TLS at one port, not at those of a Service.
        #[key("ingress-hostnetwork-enabled", default = "false", value = "ingressController.hostNetwork.enabled")]
        pub ingress_host_network: bool,
        /// Where Ingresses that share one load balancer listen then; others say it in an annotation.
        #[key(
            "ingress-hostnetwork-shared-listener-port",
            default = "8080",
            value = "ingressController.hostNetwork.sharedListenerPort",
            within = 1..=65535,
            want = "a port",
        )]
        pub ingress_host_port: u16,
        /// Labels of the nodes at whose addresses Ingresses are reached, with ingress-hostnetwork-enabled; all if empty.
        #[key(
            "ingress-hostnetwork-nodelabelselector",
            template = r#"{{ include "cilium.matchLabels" .Values.ingressController.hostNetwork.nodes.matchLabels | quote }}"#,
            when = "and .Values.ingressController.enabled .Values.ingressController.hostNetwork.nodes.matchLabels",
        )]
        pub ingress_host_nodes: Vec<Label>,
        #[key(shared::SERVICE_TOPOLOGY)]
        pub topology: bool,
        #[key(shared::GATEWAY_SECRETS_NAMESPACE)]
        pub secrets_namespace: String,
        /// Number of proxies in front of Gateways that are believed what they say of clients in X-Forwarded-For.
        #[key("gateway-api-xff-num-trusted-hops", default = "0", value = "gatewayAPI.xffNumTrustedHops")]
        pub trusted_hops: u32,
        /// Connections of clients that each socket of a proxy has at a time.
        #[key(
            "proxy-max-active-downstream-connections",
            default = "50000",
            value = "envoy.maxGlobalDownstreamConnections",
            within = 1..=10_000_000,
            want = "a number of connections",
        )]
        pub client_connections: u32,
        /// Requests after which a client's connection to a proxy is ended; never with 0.
        #[key("proxy-max-requests-per-connection", default = "0", value = "envoy.maxRequestsPerConnection")]
        pub requests_per_connection: u32,
        /// Seconds in which nothing happens on a client's connection, stream or body before a proxy ends it.
        #[key(
            "http-stream-idle-timeout",
            default = "300",
            value = "envoy.streamIdleTimeoutDurationSeconds",
            within = 1..=86_400,
            want = "seconds",
        )]
        pub idle_seconds: u32,
        /// Seconds that a backend has to take a connection of a proxy.
        #[key(
            "proxy-connect-timeout",
            default = "2",
            value = "envoy.connectTimeoutSeconds",
            within = 1..=3600,
            want = "seconds",
        )]
        pub connect_seconds: u32,
        /// Seconds for which a proxy keeps a connection to a backend that no request is on.
        #[key(
            "proxy-idle-timeout-seconds",
            default = "60",
            value = "envoy.idleTimeoutDurationSeconds",
            within = 1..=86_400,
            want = "seconds",
        )]
        pub backend_idle_seconds: u32,
        /// Connections of a proxy to the endpoints of a port of a Service at a time.
        #[key(
            "proxy-cluster-max-connections",
            default = "50000",
            value = "envoy.clusterMaxConnections",
            within = 1..=10_000_000,
            want = "a number of connections",
        )]
        pub backend_connections: u32,
        /// Requests of a proxy to the endpoints of a port of a Service at a time; above it clients are answered with 503.
        #[key(
            "proxy-cluster-max-requests",
            default = "100000",
            value = "envoy.clusterMaxRequests",
            within = 1..=10_000_000,
            want = "a number of requests",
        )]
        pub backend_requests: u32,
        /// Requests to the endpoints of a port of a Service that a proxy sends again at a time; as many as routes allow if unset.
        #[key(
            "proxy-max-concurrent-retries",
            optional = "envoy.maxConcurrentRetries",
            initial = "null",
            schema = r#"{"type": ["integer", "null"], "minimum": 0}"#,
        )]
        pub retries: Option<u32>,
    }
}

impl Config {
    /// Whether there is anything to serve.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.enabled || self.ingress || self.envoy_configs
    }

    /// How Ingresses are served. `namespace` is the one that Cilium is in.
    #[must_use]
    pub fn ingresses(&self, namespace: &str) -> IngressConfig {
        let secret = self.default_secret.as_deref().zip(self.default_secret_namespace.as_deref());
        IngressConfig {
            shared: self.ingress_mode == LoadBalancerMode::Shared,
            enforce_https: self.enforce_https,
            namespace: Arc::from(namespace),
            shared_host_port: self.ingress_host_port,
            default_secret: secret.map(|(name, namespace)| ObjectName::new(namespace, name)),
            copied: self.copied_annotations.clone(),
        }
    }

    /// How Gateways are served.
    #[must_use]
    pub fn serving(&self) -> Serving {
        Serving {
            gateways_at: self.host_network.then(|| self.host_nodes.clone()),
            ingresses_at: self.ingress_host_network.then(|| self.ingress_host_nodes.clone()),
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            proxy_protocol: self.proxy_protocol,
            ingress_proxy_protocol: self.ingress_proxy_protocol,
            trusted_hops: self.trusted_hops,
            alpn: self.alpn,
            app_protocol: self.app_protocol,
            topology: self.topology,
            limits: self.limits(),
            cluster_limits: self.cluster_limits(),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            connections: self.client_connections,
            requests_per_connection: Some(self.requests_per_connection).filter(|most| *most > 0).map(u64::from),
            idle: seconds(self.idle_seconds),
            ..Limits::default()
        }
    }

    fn cluster_limits(&self) -> ClusterLimits {
        ClusterLimits {
            connections: self.backend_connections,
            requests: self.backend_requests,
            retries: self.retries,
            connect: seconds(self.connect_seconds),
            idle: seconds(self.backend_idle_seconds),
            ..ClusterLimits::default()
        }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_is_as_the_proxy_has_it_by_itself() {
        assert_eq!(Config::default().serving().limits, Limits::default());
        assert_eq!(Config::default().serving().cluster_limits, ClusterLimits::default());
    }

    #[test]
    fn limits_are_those_that_are_configured() {
        let config = Config {
            client_connections: 7,
            requests_per_connection: 5,
            idle_seconds: 30,
            connect_seconds: 3,
            backend_idle_seconds: 9,
            backend_connections: 11,
            backend_requests: 12,
            retries: Some(4),
            ..Config::default()
        };
        let Serving { limits, cluster_limits, .. } = config.serving();
        assert_eq!((limits.connections, limits.requests_per_connection, limits.idle), (7, Some(5), seconds(30)));
        let ClusterLimits { connections, requests, retries, connect, idle, .. } = cluster_limits;
        assert_eq!((connections, requests, retries, connect, idle), (11, 12, Some(4), seconds(3), seconds(9)));
    }
}
