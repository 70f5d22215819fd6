// SPDX-License-Identifier: Apache-2.0
//! The configuration keys of this feature, as the chart writes them.

mod ports;

use datapath::bpf::XdpMode;
use ipnet::IpNet;
use model::config::{Accepts, Choice, Form, Reader, Value, keys, shared};
use model::{Algorithm, Forwarding, Protocol, RoutingMode};
use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) use ports::{PortRange, Ports};

keys! {
    /// How Services are handled on this node.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Config {
        /// Translate Services when a socket connects; otherwise packets of pods are translated on their way out, and those
        /// of the host are left to kube-proxy.
        #[key(
            "kube-proxy-replacement",
            default = "false",
            value = "kubeProxyReplacement",
            initial = "\"false\"",
            schema = r#"{"enum": ["true", "false", true, false]}"#,
        )]
        pub kube_proxy_replacement: bool,
        /// Translate Services at sockets, as kube-proxy-replacement does, without saying that there is no kube-proxy.
        #[key("bpf-lb-sock", default = "false")]
        pub socket_lb_only: bool,
        /// Root of the cgroup v2 tree whose sockets are translated.
        #[key("cgroup-root", default = "/run/cilium/cgroupv2", value = "cgroup.hostRoot")]
        pub cgroup_root: PathBuf,
        /// Handle only Services with this value of the label service.kubernetes.io/service-proxy-name; if empty, only those
        /// without the label.
        #[key("k8s-service-proxy-name", optional = "k8s.serviceProxyName")]
        pub proxy_name: String,
        /// How a backend is chosen: random, or maglev (by a hash of the connection, the same on every node).
        #[key("bpf-lb-algorithm", default = "random", value = "loadBalancer.algorithm")]
        pub algorithm: Algorithm,
        /// Let Services choose theirs by the annotation service.cilium.io/lb-algorithm.
        #[key("bpf-lb-algorithm-annotation", default = "false", value = "bpf.lbAlgorithmAnnotation")]
        pub algorithm_annotation: bool,
        /// Positions in the lookup table of a Service that maglev chooses for: a prime, at best a hundred times its endpoints.
        #[key(
            "bpf-lb-maglev-table-size",
            default = "16381",
            value = "maglev.tableSize",
            initial = "16381",
            schema = r#"{"enum": [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071]}"#,
        )]
        pub maglev_size: TableSize,
        /// What the hashes of maglev begin with, in base64; nodes that are to choose alike need the same.
        #[key("bpf-lb-maglev-hash-seed", default = "JLfvgnHc2kaSUFaI", or_default = "maglev.hashSeed")]
        pub maglev_seed: HashSeed,
        /// How traffic from outside reaches backends on other nodes: from an address of the node that is asked (snat), from the client's, which
        /// is answered directly (dsr), or so for TCP alone (hybrid). The latter two need routing-mode: native.
        #[key("bpf-lb-mode", default = "snat", value = "loadBalancer.mode")]
        pub forwarding: Mode,
        /// How the node of a backend is told which frontend was asked, where it answers directly: by an IPv4 option or an IPv6 destination option
        /// (opt), or by the whole packet of the client, in one to the backend (ipip).
        #[key("bpf-lb-dsr-dispatch", default = "opt", value = "loadBalancer.dsrDispatch")]
        pub dispatch: Dispatch,
        #[key(shared::ROUTING_MODE)]
        pub routing: RoutingMode,
        /// Let Services choose theirs by the annotation service.cilium.io/forwarding-mode.
        #[key("bpf-lb-mode-annotation", default = "false", value = "bpf.lbModeAnnotation")]
        pub forwarding_annotation: bool,
        /// Whether Services are served before the kernel's stack (XDP) where a backend is on another node: in the drivers of devices (native), in the
        /// drivers that can and else as early as the kernel does (best-effort), or for tests in the latter place alone (testing-only).
        #[key("bpf-lb-acceleration", default = "disabled", value = "loadBalancer.acceleration")]
        pub acceleration: Acceleration,
        /// Let clients outside of the cluster use cluster addresses.
        #[key("bpf-lb-external-clusterip", default = "false", value = "bpf.lbExternalClusterIP")]
        pub external_cluster_ip: bool,
        /// Apply loadBalancerSourceRanges to node ports and external addresses too, and not only to those of load balancers.
        #[key("bpf-lb-source-range-all-types", default = "false", value = "bpf.lbSourceRangeAllTypes")]
        pub ranges_of_all_kinds: bool,
        /// Translate sockets of the host's network namespace only; what pods send is translated packet by packet.
        #[key("bpf-lb-sock-hostns-only", default = "false", value = "socketLB.hostNamespaceOnly")]
        pub sockets_of_host_only: bool,
        /// Report translations of sockets to Hubble, as flows of the type trace-sock.
        #[key("trace-sock", default = "true", value = "socketLB.tracing")]
        pub trace_sockets: bool,
        /// End connections of pods' sockets to backends that are gone, and not only those of the host.
        #[key(
            "bpf-lb-sock-terminate-pod-connections",
            default = "true",
            value = "socketLB.terminatePodConnections",
        )]
        pub close_sockets_of_pods: bool,
        /// End TCP connections to backends that are gone too, and not only those of datagram sockets.
        #[key("lb-sock-terminate-all-protos", default = "false")]
        pub close_streams: bool,
        /// Answer at once where a Service has no backend (reject), or not at all (drop).
        #[key("service-no-backend-response", default = "reject", value = "serviceNoBackendResponse")]
        pub no_backend: NoBackend,
        #[key(shared::SERVICE_TOPOLOGY)]
        pub topology: bool,
        /// First and last node port, as the API server has them.
        #[key("node-port-range", default = "30000-32767", or_default = "nodePort.range")]
        pub node_ports: PortRange,
        /// Keep the host's own programs from taking a port at which the node serves.
        #[key("node-port-bind-protection", default = "true", value = "nodePort.bindProtection")]
        pub bind_protection: bool,
        /// Reserve the node ports (net.ipv4.ip_local_reserved_ports) where the kernel would give one of them to a connection of the host's own.
        #[key("enable-auto-protect-node-port-range", default = "true", value = "nodePort.autoProtectPortRange")]
        pub reserve_node_ports: bool,
        /// Ports that Services may have at the addresses of nodes by naming such an address in externalIPs, such as 80 or 8000-8999; none with 0.
        /// The ports that keep the cluster together are nobody's.
        #[key(
            "external-ips-node-ports",
            default = "1-65535",
            value = "externalIPs.nodePorts",
            initial = "[1-65535]",
            schema = r#"{"type": ["array", "null", "string"], "items": {"type": ["integer", "string"]}}"#,
        )]
        pub external_ips_node_ports: Vec<Ports>,
        /// Serve the health check of each Service that has a healthCheckNodePort.
        #[key("enable-health-check-nodeport", default = "true", value = "nodePort.enableHealthCheck")]
        pub health_checks: bool,
        /// Redirect what pods send to a Service or an address to pods of their node, as CiliumLocalRedirectPolicies say.
        #[key("enable-local-redirect-policy", default = "false", value = "localRedirectPolicies.enabled")]
        pub redirects: bool,
        /// The only prefixes of which CiliumLocalRedirectPolicies may redirect addresses that belong to no Service; all if empty.
        #[key(
            "lrp-address-matcher-cidrs",
            optional = "localRedirectPolicies.addressMatcherCIDRs",
            initial = "null",
            schema = r#"{"type": ["array", "null", "string"], "items": {"type": "string"}}"#,
        )]
        pub redirected_prefixes: Vec<IpNet>,
        /// Where /healthz is served as kube-proxy does, such as 0.0.0.0:10256; nowhere if empty.
        #[key("kube-proxy-replacement-healthz-bind-address", optional = "kubeProxyReplacementHealthzBindAddr")]
        pub healthz: Option<SocketAddr>,
    }
    check Self::refuse_misfits;
}

/// How traffic from outside reaches backends on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// From an address of this node.
    #[default]
    Snat,
    /// From the client's address.
    Dsr,
    /// From the client's for TCP, and from this node's for all else.
    Hybrid,
}

impl Choice for Mode {
    const WANT: &'static str = "snat, dsr or hybrid";
    const NAMES: &'static [(&'static str, Self)] =
        &[("snat", Self::Snat), ("dsr", Self::Dsr), ("hybrid", Self::Hybrid)];
}

impl Mode {
    /// What it means for a protocol.
    #[must_use]
    pub const fn of(self, protocol: Protocol) -> Forwarding {
        match (self, protocol) {
            (Self::Dsr, _) | (Self::Hybrid, Protocol::Tcp) => Forwarding::Dsr,
            _ => Forwarding::Snat,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}

/// How the node of a backend is told which frontend was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dispatch {
    /// By an IPv4 option or an IPv6 destination option.
    #[default]
    Options,
    /// By IP in IP.
    IpIp,
}

impl Choice for Dispatch {
    const WANT: &'static str = "supported: use opt or ipip";
    const NAMES: &'static [(&'static str, Self)] = &[("opt", Self::Options), ("ipip", Self::IpIp)];
}

/// Whether Services are served before the kernel's stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// They are not.
    #[default]
    Disabled,
    /// In drivers.
    Native,
    /// In drivers that can, and else in the kernel before the stack.
    BestEffort,
    /// In the kernel before the stack, whatever drivers can.
    TestingOnly,
}

impl Choice for Acceleration {
    const WANT: &'static str = "disabled, native, best-effort or testing-only";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("disabled", Self::Disabled),
        ("native", Self::Native),
        ("best-effort", Self::BestEffort),
        ("testing-only", Self::TestingOnly),
    ];
}

impl Acceleration {
    /// Where programs are attached, the best place first.
    #[must_use]
    pub const fn modes(self) -> &'static [XdpMode] {
        match self {
            Self::Disabled => &[],
            Self::Native => &[XdpMode::Native],
            Self::BestEffort => &[XdpMode::Native, XdpMode::Generic],
            Self::TestingOnly => &[XdpMode::Generic],
        }
    }
}

/// What clients of a Service without backends get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoBackend {
    /// An answer that says so.
    #[default]
    Reject,
    /// Nothing.
    Drop,
}

impl Choice for NoBackend {
    const WANT: &'static str = "reject or drop";
    const NAMES: &'static [(&'static str, Self)] = &[("reject", Self::Reject), ("drop", Self::Drop)];
}

/// Positions in a lookup table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize(pub u32);

impl Choice for TableSize {
    const WANT: &'static str = "251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521 or 131071";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("251", Self(251)),
        ("509", Self(509)),
        ("1021", Self(1021)),
        ("2039", Self(2039)),
        ("4093", Self(4093)),
        ("8191", Self(8191)),
        ("16381", Self(16381)),
        ("32749", Self(32749)),
        ("65521", Self(65521)),
        ("131071", Self(131_071)),
    ];
}

/// Twelve bytes in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashSeed(pub String);

impl Value for HashSeed {
    fn form() -> Form {
        Form::new("twelve bytes in base64", Accepts::Pattern("^[A-Za-z0-9+/]{16}$"))
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        (text.len() == 16 && digits).then(|| Self(text.to_owned()))
    }
}

impl Config {
    /// Rejects values that are valid on their own but not in combination.
    fn refuse_misfits(&self, read: &mut Reader<'_>) {
        if self.forwarding != Mode::Snat && !self.routes_natively() {
            read.refuse("bpf-lb-mode", self.forwarding.name(), "possible in routing-mode: tunnel; it needs native");
        }
    }

    /// Whether packets between nodes keep their own addresses, on which direct answers rely.
    #[must_use]
    pub fn routes_natively(&self) -> bool {
        self.routing == RoutingMode::Native
    }

    /// Whether some Services' backends may answer clients directly.
    #[must_use]
    pub fn returns_directly(&self) -> bool {
        self.exposes() && self.routes_natively() && (self.forwarding != Mode::Snat || self.forwarding_annotation)
    }

    /// Whether Services are reached from outside of the cluster; otherwise kube-proxy does that.
    #[must_use]
    pub const fn exposes(&self) -> bool {
        self.kube_proxy_replacement
    }

    /// Where programs serve before the kernel's stack; nowhere if that is not asked for, or nothing is served from outside.
    #[must_use]
    pub const fn before_stack(&self) -> &'static [XdpMode] {
        if self.exposes() { self.acceleration.modes() } else { &[] }
    }

    /// Whether Services are translated when a socket connects.
    #[must_use]
    pub const fn socket_lb(&self) -> bool {
        self.kube_proxy_replacement || self.socket_lb_only
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use model::config::{ConfigError, Group};

    fn parse(keys: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn kube_proxy_replacement_turns_socket_translation_on() {
        assert!(!parse(&[]).unwrap().socket_lb());
        assert!(!parse(&[("kube-proxy-replacement", "false")]).unwrap().socket_lb());
        assert!(parse(&[("kube-proxy-replacement", "true")]).unwrap().socket_lb());
        assert!(parse(&[("kube-proxy-replacement", "false"), ("bpf-lb-sock", "true")]).unwrap().socket_lb());
    }

    #[test]
    fn the_documented_defaults_are_what_no_keys_mean() {
        let documented = Config::keys().iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
        assert_eq!(Config::parse(&documented), parse(&[]));
        assert_eq!(parse(&[]).unwrap(), Config::default());
    }

    #[test]
    fn direct_answers_are_for_tcp_alone_in_hybrid_mode_and_need_native_routing() {
        let native = [("kube-proxy-replacement", "true"), ("routing-mode", "native")];
        let config = |mode, annotation| {
            let keys = [("bpf-lb-mode", mode), ("bpf-lb-mode-annotation", annotation), native[0], native[1]];
            parse(&keys).unwrap()
        };
        for (mode, expected) in [
            ("snat", [Forwarding::Snat; 3]),
            ("dsr", [Forwarding::Dsr; 3]),
            ("hybrid", [Forwarding::Dsr, Forwarding::Snat, Forwarding::Snat]),
        ] {
            let config = config(mode, "false");
            let found = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| config.forwarding.of(protocol));
            assert_eq!((found, config.returns_directly()), (expected, mode != "snat"));
            if mode != "snat" {
                let refused = parse(&[("bpf-lb-mode", mode)]).unwrap_err();
                assert_eq!(
                    refused[0].to_string(),
                    format!(
                        "configuration key bpf-lb-mode: \"{mode}\" is not possible in routing-mode: tunnel; it needs native"
                    )
                );
            }
        }
        assert!(config("snat", "true").returns_directly(), "a Service may ask for it");
        assert!(!parse(&[("bpf-lb-mode-annotation", "true")]).unwrap().returns_directly());
        for (name, dispatch) in [("opt", Dispatch::Options), ("ipip", Dispatch::IpIp)] {
            assert_eq!(parse(&[("bpf-lb-dsr-dispatch", name)]).unwrap().dispatch, dispatch);
        }
        let refused = parse(&[("bpf-lb-dsr-dispatch", "geneve")]).unwrap_err();
        assert!(refused[0].to_string().ends_with("is not supported: use opt or ipip"), "{refused:?}");
    }

    #[test]
    fn every_bad_value_is_named_with_its_key() {
        let errors = parse(&[("kube-proxy-replacement", "strict"), ("cgroup-root", "cgroup")]).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "configuration key kube-proxy-replacement: \"strict\" is not \"true\" or \"false\""
        );
        assert_eq!(errors[1].key, "cgroup-root");
    }

    #[test]
    fn ports_of_nodes_are_listed_by_themselves_or_from_the_first_to_the_last() {
        let config = parse(&[("external-ips-node-ports", "80 8000-8001")]).unwrap();
        let has = |port| config.external_ips_node_ports.iter().any(|ports| ports.contains(port));
        assert_eq!([79, 80, 81, 7999, 8000, 8001, 8002].map(has), [false, true, false, false, true, true, false]);
        assert!(
            Config::default().external_ips_node_ports.iter().any(|ports| ports.contains(1) && ports.contains(65535))
        );
        let none = parse(&[("external-ips-node-ports", "0")]).unwrap().external_ips_node_ports;
        assert!((1..=u16::MAX).all(|port| none.iter().all(|ports| !ports.contains(port))));
    }

    #[test]
    fn a_seed_is_what_it_must_be_or_refused() {
        for (text, good) in [
            ("JLfvgnHc2kaSUFaI", true),
            ("JLfvgnHc2kaSUF+/", true),
            ("JLfvgnHc2kaSUFa", false),
            ("JLfvgnHc2kaSUFaIJ", false),
            ("JLfvgnHc2kaSUF=I", false),
            ("", false),
        ] {
            assert_eq!(HashSeed::parse(text), good.then(|| HashSeed(text.to_owned())), "{text}");
        }
    }
}
