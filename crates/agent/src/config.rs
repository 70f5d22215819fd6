// SPDX-License-Identifier: Apache-2.0
//! The agent's configuration: one key per option, from the mounted ConfigMap and from flags of the same names; typed by
//! the features that own the keys. All errors are reported at once.

use abi::config::ProgramConfig;
use model::RoutingMode;
use model::config::{Arguments, ConfigError, ConfigErrors, Key, Reader, operator, shared};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Keys and values as the chart writes them.
pub(crate) type Keys = BTreeMap<String, String>;

const NAME: &str = "cilium-agent";

/// The agent's configuration, by feature.
#[derive(Clone, Debug)]
pub struct Config {
    /// All keys, as they came.
    pub keys: Keys,
    /// Keys that no feature knows.
    pub unknown: Vec<String>,
    /// Values that the chart did not know.
    pub unknown_values: Vec<String>,
    /// Pods.
    pub endpoint: endpoint::Config,
    /// Nodes.
    pub node: node::Config,
    /// Policy and identities.
    pub policy: policy::Config,
    /// Services.
    pub services: services::Config,
    /// Flows.
    pub hubble: hubble::Config,
    /// Health probes.
    pub health: health::Config,
    /// Constants of the programs.
    pub programs: ProgramConfig,
    /// Share of the node's memory for the flow table.
    pub map_ratio: f64,
    /// Where the bpf file system is.
    pub bpf_root: PathBuf,
    /// Where a `proc` is whose `sys/net` can be written.
    pub procfs: PathBuf,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Port of the health server on the loopback address.
    pub health_port: u16,
    /// The API server.
    pub client: k8s::ClientConfig,
    /// Log details.
    pub debug: bool,
}

const HEALTH_PORT: Key = Key::new("agent-health-port", "port of /healthz on the loopback address", "9879");
const MAP_RATIO: Key =
    Key::new("bpf-map-dynamic-size-ratio", "share of the node's memory that the flow table may take", "0.0025");
const BPF_ROOT: Key = Key::new("bpf-root", "where the bpf file system is mounted", "/sys/fs/bpf");
const CLIENT_BURST: Key = Key::new(
    "k8s-client-burst",
    "requests to the API server that may be made at once before k8s-client-qps counts",
    "20",
);
const CLIENT_QPS: Key = Key::new("k8s-client-qps", "requests to the API server per second; 0 for no limit", "10");
const AGGREGATION: Key = Key::new(
    "monitor-aggregation",
    "which packets of a flow are reported: all (none, lowest, low), or those with news and others once in a while (medium, maximum)",
    "medium",
);
/// Levels of aggregation, and whether packets without news are left out.
const AGGREGATIONS: &[(&str, bool)] = &[
    ("none", false),
    ("disabled", false),
    ("lowest", false),
    ("low", false),
    ("medium", true),
    ("max", true),
    ("maximum", true),
];
const AGGREGATION_INTERVAL: Key = Key::new(
    "monitor-aggregation-interval",
    "with medium and maximum, the time between two reports of a flow without news, in whole seconds and at least one",
    "5s",
);
const PROCFS: Key = Key::new("procfs", "where a proc file system is whose sys/net can be written", "/proc");
const METRICS_ADDRESS: Key =
    Key::new("prometheus-serve-addr", "where /metrics is served, such as :9962; nowhere if empty", "");
const UNKNOWN_VALUES: Key =
    Key::new("unknown-helm-values", "chart values that the chart did not know, for the agent to warn of", "");

/// Keys of the agent itself.
const OWN: &[Key] = &[
    HEALTH_PORT,
    MAP_RATIO,
    BPF_ROOT,
    CLIENT_BURST,
    CLIENT_QPS,
    shared::K8S_API_SERVER_URLS,
    shared::K8S_KUBECONFIG_PATH,
    AGGREGATION,
    AGGREGATION_INTERVAL,
    PROCFS,
    METRICS_ADDRESS,
    UNKNOWN_VALUES,
];

/// Every key of the agent, by name.
#[must_use]
pub fn keys() -> Vec<Key> {
    let all = [
        OWN,
        endpoint::Config::KEYS,
        node::Config::KEYS,
        policy::Config::KEYS,
        services::Config::KEYS,
        hubble::Config::KEYS,
        health::Config::KEYS,
    ];
    let by_name: BTreeMap<&str, Key> = all.concat().into_iter().map(|key| (key.name, key)).collect();
    by_name.into_values().collect()
}

/// The command line of `cilium-agent`.
#[must_use]
pub fn command() -> clap::Command {
    let about = "The node daemon of cilium-rs: pods, policy, services and flows of one node";
    Arguments::command(NAME, about, &keys()).version(env!("CARGO_PKG_VERSION"))
}

/// Reads the command line, of which the first argument is the program's name. Ends the process with what clap has to say
/// when a flag is unknown, or help or the version is asked for.
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
        Ok(Self::parse(keys)?)
    }

    /// Types the keys.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, each with its key.
    pub fn parse(keys: Keys) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let endpoint = collect(endpoint::Config::parse(&keys), &mut errors);
        let node = collect(node::Config::parse(&keys), &mut errors);
        let policy = collect(policy::Config::parse(&keys), &mut errors);
        let services = collect(services::Config::parse(&keys), &mut errors);
        let hubble = collect(hubble::Config::parse(&keys), &mut errors);
        let health = collect(health::Config::parse(&keys), &mut errors);
        let own = collect(Own::parse(&keys), &mut errors);
        let (Some(endpoint), Some(node), Some(policy), Some(services), Some(hubble), Some(health), Some(own)) =
            (endpoint, node, policy, services, hubble, health, own)
        else {
            return Err(errors.into());
        };
        let socket = endpoint.runtime.join("health.sock");
        Ok(Self {
            unknown: unknown(&keys),
            unknown_values: own.unknown_values,
            programs: programs(&node, own.event_interval),
            debug: endpoint.debug,
            endpoint,
            node,
            policy,
            services,
            hubble,
            health: health::Config { socket, ..health },
            map_ratio: own.map_ratio,
            bpf_root: own.bpf_root,
            procfs: own.procfs,
            metrics: own.metrics,
            health_port: own.health_port,
            client: own.client,
            keys,
        })
    }
}

fn collect<T>(parsed: Result<T, Vec<ConfigError>>, errors: &mut Vec<ConfigError>) -> Option<T> {
    match parsed {
        Ok(config) => Some(config),
        Err(found) => {
            errors.extend(found);
            None
        }
    }
}

/// Keys that neither the agent nor the operator, which reads the same ConfigMap, knows.
fn unknown(keys: &Keys) -> Vec<String> {
    let ours = self::keys();
    let known: BTreeSet<&str> = ours.iter().chain(operator::KEYS).map(|key| key.name).collect();
    keys.keys().filter(|key| !known.contains(key.as_str())).cloned().collect()
}

/// The constants of the programs follow from what the node is.
fn programs(node: &node::Config, event_interval: u32) -> ProgramConfig {
    ProgramConfig {
        enable_ipv4: u8::from(node.ipv4),
        enable_ipv6: u8::from(node.ipv6),
        tunnel: u8::from(node.routing == RoutingMode::Tunnel),
        masquerade_ipv4: u8::from(node.masquerade_ipv4),
        masquerade_ipv6: u8::from(node.masquerade_ipv6),
        direct_tunnel: u8::from(node.routing == RoutingMode::Tunnel && node.tunnel_direct),
        tunnel_port: node.tunnel_port,
        event_interval,
        ..ProgramConfig::default()
    }
}

/// What of the keys is the agent's own.
struct Own {
    /// 0 for every packet.
    event_interval: u32,
    map_ratio: f64,
    bpf_root: PathBuf,
    procfs: PathBuf,
    metrics: Option<SocketAddr>,
    health_port: u16,
    client: k8s::ClientConfig,
    unknown_values: Vec<String>,
}

impl Own {
    fn parse(keys: &Keys) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let client = k8s::ClientConfig {
            kubeconfig: read.text(&shared::K8S_KUBECONFIG_PATH).map(PathBuf::from),
            api_servers: owned(read.list(&shared::K8S_API_SERVER_URLS)),
            qps: read.number(&CLIENT_QPS).filter(|qps| *qps > 0.0),
            burst: read.number(&CLIENT_BURST),
            user_agent: Some(format!("{NAME}/{}", env!("CARGO_PKG_VERSION"))),
            ..k8s::ClientConfig::default()
        };
        let interval = whole_seconds(read.duration(&AGGREGATION_INTERVAL).unwrap_or_default());
        let aggregates = read.choice(&AGGREGATION, "none, lowest, low, medium or maximum", AGGREGATIONS);
        let own = Self {
            event_interval: if aggregates == Some(false) { 0 } else { interval },
            map_ratio: read.number(&MAP_RATIO).unwrap_or_default(),
            bpf_root: read.path(&BPF_ROOT).unwrap_or_default(),
            procfs: read.path(&PROCFS).unwrap_or_default(),
            metrics: read.address(&METRICS_ADDRESS),
            health_port: read.number(&HEALTH_PORT).unwrap_or_default(),
            client,
            unknown_values: owned(read.list(&UNKNOWN_VALUES)),
        };
        read.finish(own)
    }
}

/// At least one second: the programs count in seconds, and none means an event for each packet.
fn whole_seconds(duration: Duration) -> u32 {
    let up = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs().saturating_add(up)).unwrap_or(u32::MAX).max(1)
}

fn owned(words: Vec<&str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
