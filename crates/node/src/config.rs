// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

use ipnet::{Ipv4Net, Ipv6Net};
pub use model::ConfigError;
use model::RoutingMode;
use model::config::{Key, Reader, shared};
use std::collections::BTreeMap;

/// How this node is wired to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How pods of other nodes are reached (`routing-mode`).
    pub routing: RoutingMode,
    /// UDP port of the tunnel (`tunnel-port`).
    pub tunnel_port: u16,
    /// The programs themselves put packets into the tunnel (`tunnel-direct`).
    pub tunnel_direct: bool,
    /// Routes to the pods of nodes on a shared segment (`auto-direct-node-routes`).
    pub direct_routes: bool,
    /// Nodes that are not on a shared segment are left to others (`direct-routing-skip-unreachable`).
    pub skip_unreachable: bool,
    /// Where IPv4 addresses of pods are routed by the network (`ipv4-native-routing-cidr`).
    pub native_ipv4: Option<Ipv4Net>,
    /// Where IPv6 addresses of pods are routed by the network (`ipv6-native-routing-cidr`).
    pub native_ipv6: Option<Ipv6Net>,
    /// IPv4 is on (`enable-ipv4`).
    pub ipv4: bool,
    /// IPv6 is on (`enable-ipv6`).
    pub ipv6: bool,
    /// Native devices by name or, with `+` at the end, by how the name begins; empty to detect them (`devices`).
    pub devices: Vec<DevicePattern>,
    /// MTU to assume instead of the device's (`mtu`).
    pub mtu: Option<u32>,
    /// Who decides on the node's pod CIDRs (`ipam`).
    pub ipam: Ipam,
    /// Name of the cluster (`cluster-name`).
    pub cluster: String,
    /// IPv4 traffic that leaves the cluster takes the node's address (`enable-ipv4-masquerade`).
    pub masquerade_ipv4: bool,
    /// IPv6 traffic that leaves the cluster takes the node's address (`enable-ipv6-masquerade`).
    pub masquerade_ipv6: bool,
}

/// Who decides on the node's pod CIDRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipam {
    /// Kubernetes: `spec.podCIDRs` of the Node.
    Kubernetes,
    /// Cilium's operator: `spec.ipam.podCIDRs` of the CiliumNode.
    ClusterPool,
}

/// A name, or how a name begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePattern(String);

impl DevicePattern {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether a device is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.strip_suffix('+').map_or(self.0 == name, |prefix| name.starts_with(prefix))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const ROUTING_MODE: Key = Key::new(
    "routing-mode",
    "how pods of other nodes are reached: tunnel (VXLAN) or native (routed by the network, or by direct routes)",
    "tunnel",
);
const TUNNEL_PROTOCOL: Key = Key::new("tunnel-protocol", "protocol of the tunnel: only vxlan is supported", "vxlan");
const TUNNEL_PORT: Key = Key::new("tunnel-port", "UDP port of the tunnel; 0 for VXLAN's own, 8472", "0");
const TUNNEL_DIRECT: Key = Key::new(
    "tunnel-direct",
    "the programs put pods' packets into the tunnel and send them out of the native device themselves; if false, the kernel's tunnel \
     device does it, which is slower: for kernels and network cards that do not take such packets. An extension of cilium-rs: Cilium \
     has no such key",
    "true",
);
const DIRECT_ROUTES: Key = Key::new(
    "auto-direct-node-routes",
    "in native routing, make routes to the pods of nodes on a shared segment",
    "false",
);
const SKIP_UNREACHABLE: Key = Key::new(
    "direct-routing-skip-unreachable",
    "leave nodes that are on no shared segment to routes of others, rather than report them",
    "false",
);
const DEVICES: Key = Key::new(
    "devices",
    "native devices by name or, with + at the end, by how the name begins; they are detected if empty",
    "",
);
const MTU: Key = Key::new("mtu", "MTU to assume instead of the devices'; 0 to ask them", "0");
const BPF_MASQUERADE: Key = Key::new(
    "enable-bpf-masquerade",
    "accepted for the charts that set it: masquerading is done by the programs whatever it says",
    "true",
);

/// The port that VXLAN has by default in the kernel (IANA gave it another, later).
const VXLAN_PORT: u16 = 8472;

impl Default for Config {
    fn default() -> Self {
        Self::read(&mut Reader::new(&BTreeMap::new()))
    }
}

impl Config {
    /// Every key that is read here.
    pub const KEYS: &[Key] = &[
        ROUTING_MODE,
        TUNNEL_PROTOCOL,
        TUNNEL_PORT,
        TUNNEL_DIRECT,
        DIRECT_ROUTES,
        SKIP_UNREACHABLE,
        shared::NATIVE_IPV4,
        shared::NATIVE_IPV6,
        shared::ENABLE_IPV4,
        shared::ENABLE_IPV6,
        DEVICES,
        MTU,
        shared::IPAM,
        shared::CLUSTER_NAME,
        BPF_MASQUERADE,
        shared::MASQUERADE_IPV4,
        shared::MASQUERADE_IPV6,
    ];

    /// Types the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, alone or together with others.
    pub fn parse(keys: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let config = Self::read(&mut read);
        if config.routing == RoutingMode::Tunnel {
            read.choice(&TUNNEL_PROTOCOL, "supported: use vxlan", &[("vxlan", ())]);
        }
        // It changes nothing, and is read so that nonsense is noticed.
        read.flag(&BPF_MASQUERADE);
        config.check_together(&mut read);
        read.finish(config)
    }

    fn read(read: &mut Reader<'_>) -> Self {
        let modes = [("tunnel", RoutingMode::Tunnel), ("native", RoutingMode::Native)];
        let ipam = [("kubernetes", Ipam::Kubernetes), ("cluster-pool", Ipam::ClusterPool)];
        Self {
            routing: read.choice(&ROUTING_MODE, "tunnel or native", &modes).unwrap_or(RoutingMode::Tunnel),
            tunnel_port: read.number(&TUNNEL_PORT).filter(|port| *port != 0).unwrap_or(VXLAN_PORT),
            tunnel_direct: read.flag(&TUNNEL_DIRECT),
            direct_routes: read.flag(&DIRECT_ROUTES),
            skip_unreachable: read.flag(&SKIP_UNREACHABLE),
            native_ipv4: read.parsed(&shared::NATIVE_IPV4, "an IPv4 prefix"),
            native_ipv6: read.parsed(&shared::NATIVE_IPV6, "an IPv6 prefix"),
            ipv4: read.flag(&shared::ENABLE_IPV4),
            ipv6: read.flag(&shared::ENABLE_IPV6),
            devices: read.list(&DEVICES).into_iter().map(DevicePattern::new).collect(),
            mtu: read.number(&MTU).filter(|mtu| *mtu != 0),
            ipam: read
                .choice(&shared::IPAM, "supported: use kubernetes or cluster-pool", &ipam)
                .unwrap_or(Ipam::ClusterPool),
            cluster: read.text(&shared::CLUSTER_NAME).unwrap_or_default().to_owned(),
            masquerade_ipv4: read.flag(&shared::MASQUERADE_IPV4),
            masquerade_ipv6: read.flag(&shared::MASQUERADE_IPV6),
        }
    }

    /// Values that are right alone, but not with the others.
    fn check_together(&self, read: &mut Reader<'_>) {
        if !self.ipv4 && !self.ipv6 {
            const WANT: &str = "possible without enable-ipv6: \"true\"; one of the two must be on";
            read.refuse(&shared::ENABLE_IPV4, "false", WANT);
        }
        if self.routing == RoutingMode::Tunnel {
            if self.direct_routes {
                read.refuse(&DIRECT_ROUTES, "true", "possible in routing-mode: tunnel; it needs native");
            }
            return;
        }
        const WANT: &str = "enough in routing-mode: native with masquerading; name the prefix in which pods are routed";
        if self.ipv4 && self.masquerade_ipv4 && self.native_ipv4.is_none() {
            read.refuse(&shared::NATIVE_IPV4, "", WANT);
        }
        if self.ipv6 && self.masquerade_ipv6 && self.native_ipv6.is_none() {
            read.refuse(&shared::NATIVE_IPV6, "", WANT);
        }
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
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

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
        let documented = Config::KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
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
