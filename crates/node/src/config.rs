// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::RoutingMode;
pub use model::config::shared::Ipam;
use model::config::{Accepts, Form, Reader, Value, keys, shared};

const TUNNEL: &str = "ne .Values.routingMode \"native\"";

keys! {
    /// How this node reaches the others.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        #[key(shared::ROUTING_MODE)]
        pub routing: RoutingMode,
        /// Protocol of the tunnel: only vxlan is supported.
        #[key(
            "tunnel-protocol",
            default = "vxlan",
            or_default = "tunnelProtocol",
            schema = r#"{"enum": ["", "vxlan"]}"#,
            when = TUNNEL,
        )]
        pub tunnel_protocol: String,
        /// UDP port of the tunnel; 0 for VXLAN's own, 8472.
        #[key("tunnel-port", default = "0", optional = "tunnelPort", when = TUNNEL)]
        pub own_tunnel_port: u16,
        /// The programs put pods' packets into the tunnel and send them out of the native device themselves; if false, the
        /// kernel's tunnel device does it, which is slower: for kernels and network cards that do not take such packets. An
        /// extension of cilium-rs: Cilium has no such key.
        #[key("tunnel-direct", default = "true", value = "tunnelDirect", when = TUNNEL)]
        pub tunnel_direct: bool,
        /// In native routing, make routes to the pods of nodes on a shared segment.
        #[key("auto-direct-node-routes", default = "false", value = "autoDirectNodeRoutes")]
        pub direct_routes: bool,
        /// Leave nodes that are on no shared segment to routes of others, rather than report them.
        #[key("direct-routing-skip-unreachable", default = "false", value = "directRoutingSkipUnreachable")]
        pub skip_unreachable: bool,
        #[key(shared::NATIVE_IPV4)]
        pub native_ipv4: Option<Ipv4Net>,
        #[key(shared::NATIVE_IPV6)]
        pub native_ipv6: Option<Ipv6Net>,
        #[key(shared::ENABLE_IPV4)]
        pub ipv4: bool,
        #[key(shared::ENABLE_IPV6)]
        pub ipv6: bool,
        /// Native devices by name or, with + at the end, by how the name begins; they are detected if empty.
        #[key(
            "devices",
            optional = "devices",
            initial = "null",
            schema = r#"{"type": ["array", "null", "string"], "items": {"type": "string"}}"#,
        )]
        pub devices: Vec<DevicePattern>,
        /// Prefixes of this node's addresses at which ports of Services of type NodePort are served; if empty, that is at the primary address of
        /// each family on each native device.
        #[key(
            "nodeport-addresses",
            optional = "nodePort.addresses",
            initial = "null",
            schema = r#"{"type": ["array", "null", "string"], "items": {"type": "string"}}"#,
        )]
        pub node_port_addresses: Vec<IpNet>,
        /// MTU to assume instead of the devices'; 0 to ask them.
        #[key(
            "mtu",
            default = "0",
            optional = "MTU",
            schema = r#"{"type": "integer", "minimum": 0, "maximum": 65535}"#,
        )]
        pub mtu: u32,
        #[key(shared::IPAM)]
        pub ipam: Ipam,
        #[key(shared::CLUSTER_NAME)]
        pub cluster: String,
        /// Accepted for the charts that set it: masquerading is done by the programs whatever it says.
        #[key("enable-bpf-masquerade", default = "true", always = "true")]
        pub bpf_masquerade: bool,
        #[key(shared::MASQUERADE_IPV4)]
        pub masquerade_ipv4: bool,
        #[key(shared::MASQUERADE_IPV6)]
        pub masquerade_ipv6: bool,
    }
    check Self::refuse_misfits;
}

/// A name, or a prefix of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePattern(String);

impl Value for DevicePattern {
    fn form() -> Form {
        Form::new("the name of a device", Accepts::Text)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

impl DevicePattern {
    /// Whether it matches a device.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.strip_suffix('+').map_or(self.0 == name, |prefix| name.starts_with(prefix))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The kernel's default VXLAN port (IANA later assigned another).
const VXLAN_PORT: u16 = 8472;

impl Config {
    /// Rejects values that are valid on their own but not in combination.
    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        if !self.ipv4 && !self.ipv6 {
            const WANT: &str = "possible without enable-ipv6: \"true\"; one of the two must be on";
            read.refuse(shared::ENABLE_IPV4.name, "false", WANT);
        }
        if self.routing == RoutingMode::Tunnel {
            if self.tunnel_protocol != "vxlan" {
                read.refuse("tunnel-protocol", &self.tunnel_protocol, "supported: use vxlan");
            }
            if self.direct_routes {
                read.refuse("auto-direct-node-routes", "true", "possible in routing-mode: tunnel; it needs native");
            }
            return;
        }
        const WANT: &str = "enough in routing-mode: native with masquerading; name the prefix in which pods are routed";
        if self.ipv4 && self.masquerade_ipv4 && self.native_ipv4.is_none() {
            read.refuse(shared::NATIVE_IPV4.name, "", WANT);
        }
        if self.ipv6 && self.masquerade_ipv6 && self.native_ipv6.is_none() {
            read.refuse(shared::NATIVE_IPV6.name, "", WANT);
        }
    }

    /// UDP port of the tunnel.
    #[must_use]
    pub const fn tunnel_port(&self) -> u16 {
        if self.own_tunnel_port == 0 { VXLAN_PORT } else { self.own_tunnel_port }
    }

    /// Bytes that the tunnel adds to a packet, by the family of the outer header.
    #[must_use]
    pub const fn tunnel_overhead(&self, outer_ipv6: bool) -> u32 {
        match (self.routing, outer_ipv6) {
            (RoutingMode::Native, _) => 0,
            (RoutingMode::Tunnel, false) => 50,
            (RoutingMode::Tunnel, true) => 70,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::{ConfigError, Group};

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    fn errors(keys: &[(&str, &str)]) -> Vec<String> {
        parse(keys).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_keys_pods_are_tunnelled_over_vxlan() {
        assert_eq!(parse(&[]).unwrap(), Config::default());
        assert_eq!(parse(&[("mtu", "0"), ("tunnel-port", "0"), ("devices", "")]).unwrap(), Config::default());
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        assert_eq!(Config::parse(&documented), parse(&[]));
    }

    #[test]
    fn devices_are_names_or_beginnings_of_names() {
        let devices = parse(&[("devices", "eth0 net+")]).unwrap().devices;
        let matching = |name| devices.iter().any(|pattern| pattern.matches(name));
        assert_eq!(["eth0", "eth01", "net0", "network", "ne"].map(matching), [true, false, true, true, false]);
    }

    #[test]
    fn geneve_is_refused_with_what_to_use_instead() {
        assert_eq!(
            errors(&[("tunnel-protocol", "geneve")]),
            ["configuration key tunnel-protocol: \"geneve\" is not supported: use vxlan"]
        );
        let native = [("routing-mode", "native"), ("tunnel-protocol", "geneve"), ("enable-ipv4-masquerade", "false")];
        assert!(parse(&native).is_ok(), "without a tunnel its protocol does not matter");
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let errors = errors(&[
            ("enable-ipv4", "yes"),
            ("ipam", "eni"),
            ("mtu", "big"),
            ("auto-direct-node-routes", "true"),
            ("ipv4-native-routing-cidr", "10.0.0.0"),
        ]);
        let keys = ["ipv4-native-routing-cidr", "enable-ipv4", "mtu", "ipam", "auto-direct-node-routes"];
        assert_eq!(errors.len(), keys.len(), "{errors:?}");
        assert!(errors.iter().zip(keys).all(|(error, key)| error.contains(key)), "{errors:?}");
    }

    #[test]
    fn native_routing_with_masquerading_wants_to_know_what_is_inside() {
        assert!(errors(&[("routing-mode", "native")])[0].contains("ipv4-native-routing-cidr"));
        assert!(parse(&[("routing-mode", "native"), ("ipv4-native-routing-cidr", "10.0.0.0/8")]).is_ok());
    }

    #[test]
    fn a_node_without_any_family_is_refused() {
        assert!(errors(&[("enable-ipv4", "false")])[0].contains("one of the two must be on"));
    }
}
