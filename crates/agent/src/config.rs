// SPDX-License-Identifier: Apache-2.0
//! The agent's configuration: one key per option, from the mounted ConfigMap and from flags of the same names; typed by
//! the features that own the keys. All errors are reported at once.

use abi::config::ProgramConfig;
use model::RoutingMode;
use model::config::{AnyKey, Arguments, Choice, ConfigErrors, Group, LogOption, keys, operator, shared};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Keys and values as the chart writes them.
pub(crate) type Keys = BTreeMap<String, String>;

const NAME: &str = "cilium-agent";

keys! {
    /// The agent's configuration, by feature.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// Pods.
        pub endpoint: endpoint::Config,
        /// Nodes.
        pub node: node::Config,
        /// Policy and identities.
        pub policy: policy::Config,
        /// Services.
        pub services: services::Config,
        /// Announcements.
        pub l2: l2::Config,
        /// Gateways.
        pub gateway: gateway::Config,
        /// Flows.
        pub hubble: hubble::Config,
        /// Health probes.
        pub health: health::Config,
        #[key(shared::DEBUG)]
        pub debug: bool,
        #[key(shared::LOG_OPT)]
        pub log_options: Vec<LogOption>,
        #[key(shared::K8S_API_SERVER_URLS)]
        pub api_servers: Vec<String>,
        #[key(shared::K8S_KUBECONFIG_PATH)]
        pub kubeconfig: Option<String>,
        /// Port of /healthz on the loopback address.
        #[key(
            "agent-health-port",
            default = "9879",
            value = "healthPort",
            schema = r#"{"type": "integer", "minimum": 1, "maximum": 65535}"#,
        )]
        pub health_port: u16,
        /// Share of the node's memory that the flow table may take.
        #[key("bpf-map-dynamic-size-ratio", default = "0.0025", value = "bpf.mapDynamicSizeRatio")]
        pub map_ratio: f64,
        /// Where the bpf file system is mounted.
        #[key("bpf-root", default = "/sys/fs/bpf", value = "bpf.root")]
        pub bpf_root: PathBuf,
        /// Requests to the API server that may be made at once before k8s-client-qps counts.
        #[key("k8s-client-burst", default = "20", optional = "k8sClientRateLimit.burst", initial = "null", schema = "{}")]
        pub client_burst: u32,
        /// Requests to the API server per second; 0 for no limit.
        #[key("k8s-client-qps", default = "10", optional = "k8sClientRateLimit.qps", initial = "null", schema = "{}")]
        pub client_qps: f64,
        /// Which packets of a flow are reported: all (none, lowest, low), or those with news and others once in a while
        /// (medium, maximum).
        #[key("monitor-aggregation", default = "medium", value = "bpf.monitorAggregation")]
        pub aggregation: Aggregation,
        /// With medium and maximum, the time between two reports of a flow without news, in whole seconds and at least one.
        #[key("monitor-aggregation-interval", default = "5s", value = "bpf.monitorInterval")]
        pub aggregation_interval: Duration,
        /// Where a proc file system is whose sys/net can be written.
        #[key("procfs", default = "/proc", always = "/host/proc")]
        pub procfs: PathBuf,
        /// Where /metrics is served, such as :9962; nowhere if empty.
        #[key(
            "prometheus-serve-addr",
            template = r#"":{{ .Values.prometheus.port }}""#,
            when = ".Values.prometheus.enabled",
        )]
        pub metrics: Option<SocketAddr>,
        /// Chart values that the chart did not know, for the agent to warn of.
        #[key(
            "unknown-helm-values",
            template = r#"{{ include "cilium.unknownValues" . | trim | splitList "\n" | join " " | quote }}"#,
            when = r#"include "cilium.unknownValues" . | trim"#,
        )]
        pub unknown_values: Vec<String>,
    }
}

/// Which packets of a flow are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aggregation {
    /// All.
    None,
    /// Those with news, and others once in a while.
    #[default]
    Medium,
}

impl Choice for Aggregation {
    const WANT: &'static str = "none, lowest, low, medium or maximum";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("disabled", Self::None),
        ("lowest", Self::None),
        ("low", Self::None),
        ("medium", Self::Medium),
        ("max", Self::Medium),
        ("maximum", Self::Medium),
    ];
}

/// Every key of the agent, by name.
#[must_use]
pub fn keys() -> Vec<AnyKey> {
    let by_name: BTreeMap<&str, AnyKey> = Config::keys().into_iter().map(|key| (key.name, key)).collect();
    by_name.into_values().collect()
}

/// The command line of `cilium-agent`.
#[must_use]
pub fn command() -> clap::Command {
    let about = "The node daemon of cilium-rs: pods, policy, services and flows of one node";
    Arguments::command(NAME, about, &keys()).version(env!("CARGO_PKG_VERSION"))
}

/// Parses the command line; the first argument is the program's name. Exits with clap's message when a flag is unknown,
/// or help or the version was requested.
pub(crate) fn arguments<I: IntoIterator<Item = OsString>>(arguments: I) -> Arguments {
    Arguments::parse(command(), arguments).unwrap_or_else(|answer| answer.exit())
}

impl Config {
    /// Reads the folder and the flags.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, each with its key.
    pub fn load(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut keys = match &arguments.config_dir {
            Some(folder) => k8s::config_map::read_folder(folder)?,
            None => Keys::new(),
        };
        keys.extend(arguments.keys.clone());
        Ok(Self::parse(&keys)?)
    }

    /// Parses the keys.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, each with its key.
    pub fn parse(keys: &Keys) -> Result<Self, ConfigErrors> {
        let mut config = <Self as Group>::parse(keys)?;
        // Nobody else listens.
        config.services.trace_sockets &= config.hubble.enabled;
        Ok(config)
    }

    /// Keys unknown to both the agent and the operator, which reads the same ConfigMap.
    #[must_use]
    pub fn unknown(&self) -> Vec<String> {
        let (ours, theirs) = (Self::keys(), operator::Config::keys());
        let known: BTreeSet<&str> = ours.iter().chain(&theirs).map(|key| key.name).collect();
        self.endpoint.given.0.keys().filter(|key| !known.contains(key.as_str())).cloned().collect()
    }

    /// How the API server is reached.
    pub(crate) fn client(&self) -> k8s::ClientConfig {
        k8s::ClientConfig {
            kubeconfig: self.kubeconfig.as_ref().map(PathBuf::from),
            api_servers: self.api_servers.clone(),
            qps: Some(self.client_qps).filter(|qps| *qps > 0.0),
            burst: Some(self.client_burst),
            user_agent: Some(format!("{NAME}/{}", env!("CARGO_PKG_VERSION"))),
            ..k8s::ClientConfig::default()
        }
    }

    /// The programs' constants, from the facts of the node.
    pub(crate) fn programs(&self) -> ProgramConfig {
        let (node, services) = (&self.node, &self.services);
        let tunnel = node.routing == RoutingMode::Tunnel;
        ProgramConfig {
            enable_ipv4: u8::from(node.ipv4),
            enable_ipv6: u8::from(node.ipv6),
            tunnel: u8::from(tunnel),
            masquerade_ipv4: u8::from(node.masquerade_ipv4),
            masquerade_ipv6: u8::from(node.masquerade_ipv6),
            direct_tunnel: u8::from(tunnel && node.tunnel_direct),
            tunnel_port: node.tunnel_port(),
            trace_sockets: u8::from(services.trace_sockets),
            event_interval: self.event_interval(),
            expose_services: u8::from(services.exposes()),
            direct_return: u8::from(services.returns_directly()),
            direct_ipip: u8::from(services.returns_directly() && services.dispatch == services::Dispatch::IpIp),
            accelerate: u8::from(!services.before_stack().is_empty()),
            reject_no_backend: u8::from(services.no_backend == services::NoBackend::Reject),
            nodeport_min: services.node_ports.first,
            nodeport_max: services.node_ports.last,
            bind_protection: u8::from(services.exposes() && services.bind_protection),
            sockets_of_host_only: u8::from(services.sockets_of_host_only),
            maglev_size: services.maglev_size.0,
            ..ProgramConfig::default()
        }
    }

    /// Seconds between two reports of a flow without news; 0 for every packet.
    fn event_interval(&self) -> u32 {
        match self.aggregation {
            Aggregation::None => 0,
            Aggregation::Medium => whole_seconds(self.aggregation_interval),
        }
    }
}

/// At least one second: the programs count in seconds, and zero means an event for each packet.
fn whole_seconds(duration: Duration) -> u32 {
    let up = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs().saturating_add(up)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
