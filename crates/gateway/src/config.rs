// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature that agents read, as the chart writes them.

use crate::serve::Serving;
use model::config::{keys, shared};

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
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
        #[key(shared::GATEWAY_HOST_NETWORK)]
        pub host_network: bool,
        #[key(shared::GATEWAY_SECRETS_NAMESPACE)]
        pub secrets_namespace: String,
        /// Number of proxies in front of Gateways that are believed what they say of clients in X-Forwarded-For.
        #[key("gateway-api-xff-num-trusted-hops", default = "0", value = "gatewayAPI.xffNumTrustedHops")]
        pub trusted_hops: u32,
    }
}

impl Config {
    /// How Gateways are served.
    #[must_use]
    pub fn serving(&self) -> Serving {
        Serving {
            host_network: self.host_network,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            proxy_protocol: self.proxy_protocol,
            trusted_hops: self.trusted_hops,
            alpn: self.alpn,
            app_protocol: self.app_protocol,
        }
    }
}
