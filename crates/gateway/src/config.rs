// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature that agents read, as the chart writes them.

use crate::ingress::IngressConfig;
use crate::name::ObjectName;
use crate::serve::Serving;
use model::config::{Choice, Label, keys, shared};
use std::sync::Arc;

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
        #[key(shared::GATEWAY_SECRETS_NAMESPACE)]
        pub secrets_namespace: String,
        /// Number of proxies in front of Gateways that are believed what they say of clients in X-Forwarded-For.
        #[key("gateway-api-xff-num-trusted-hops", default = "0", value = "gatewayAPI.xffNumTrustedHops")]
        pub trusted_hops: u32,
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
            trusted_hops: self.trusted_hops,
            alpn: self.alpn,
            app_protocol: self.app_protocol,
        }
    }
}
