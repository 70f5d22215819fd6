// SPDX-License-Identifier: Apache-2.0
//! The agent's configuration: one key per option, from the mounted ConfigMap and from flags of the same names; typed by
//! the features that own the keys. All errors are reported at once.

use abi::config::ProgramConfig;
use anyhow::bail;
use clap::Parser;
use model::config::{ConfigError, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Keys and values as the chart writes them.
pub(crate) type Keys = BTreeMap<String, String>;

/// Command line of `cilium-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "cilium-agent",
    version,
    about = "The node daemon of cilium-rs: pods, policy, services and flows of one node"
)]
pub struct Args {
    /// Folder with one file per configuration key, as Kubernetes mounts a ConfigMap.
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Further keys; they win over the folder.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

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
    /// Constants of the programs.
    pub programs: ProgramConfig,
    /// Share of the node's memory for the flow table.
    pub map_ratio: f64,
    /// Where the bpf file system is.
    pub bpf_root: PathBuf,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Port of the health server on the loopback address.
    pub health_port: u16,
    /// The API server.
    pub client: k8s::ClientConfig,
    /// Log details.
    pub debug: bool,
}

/// Keys of the agent itself.
const OWN: &[&str] = &[
    "agent-health-port",
    "bpf-map-dynamic-size-ratio",
    "bpf-root",
    "debug",
    "enable-bpf-masquerade",
    "enable-ipv4",
    "enable-ipv4-masquerade",
    "enable-ipv6",
    "enable-ipv6-masquerade",
    "k8s-api-server-urls",
    "k8s-client-burst",
    "k8s-client-qps",
    "k8s-kubeconfig-path",
    "monitor-aggregation",
    "monitor-aggregation-interval",
    "procfs",
    "prometheus-serve-addr",
    "unknown-helm-values",
];

/// Keys of the operator, which shares the ConfigMap.
const OPERATOR: &[&str] = &[
    "agent-not-ready-taint-key",
    "cilium-endpoint-gc-interval",
    "cluster-pool-ipv4-cidr",
    "cluster-pool-ipv4-mask-size",
    "cluster-pool-ipv6-cidr",
    "cluster-pool-ipv6-mask-size",
    "cluster-id",
    "cni-uninstall",
    "identity-allocation-mode",
    "identity-gc-interval",
    "identity-heartbeat-timeout",
    "nodes-gc-interval",
    "operator-api-serve-addr",
    "operator-prometheus-serve-addr",
    "remove-cilium-node-taints",
    "set-cilium-is-up-condition",
    "skip-crd-creation",
];

impl Config {
    /// Reads the folder and the flags.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, each with its key.
    pub fn load(args: &Args) -> anyhow::Result<Self> {
        let mut keys = match &args.config_dir {
            Some(folder) => k8s::config_map::read_folder(folder)?,
            None => Keys::new(),
        };
        keys.extend(args.set.iter().cloned());
        Self::parse(keys)
    }

    /// Types the keys.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, each with its key.
    pub fn parse(keys: Keys) -> anyhow::Result<Self> {
        let mut errors = Vec::new();
        let endpoint = collect(endpoint::Config::parse(&keys), &mut errors);
        let node = collect(node::Config::parse(&keys), &mut errors);
        let policy = collect(policy::Config::parse(&keys), &mut errors);
        let services = collect(services::Config::parse(&keys), &mut errors);
        let hubble = collect(hubble::Config::parse(&keys), &mut errors);
        let own = collect(Own::parse(&keys), &mut errors);
        let (Some(endpoint), Some(node), Some(policy), Some(services), Some(hubble), Some(own)) =
            (endpoint, node, policy, services, hubble, own)
        else {
            bail!("the configuration cannot be used:\n  {}", errors.join("\n  "));
        };
        Ok(Self {
            unknown: unknown(&keys),
            unknown_values: owned(Reader::new(&keys).list("unknown-helm-values")),
            endpoint,
            node,
            policy,
            services,
            hubble,
            programs: own.programs,
            map_ratio: own.map_ratio,
            bpf_root: keys.get("bpf-root").map_or_else(|| PathBuf::from("/sys/fs/bpf"), PathBuf::from),
            metrics: own.metrics,
            health_port: own.health_port,
            client: own.client,
            debug: keys.get("debug").is_some_and(|v| v == "true"),
            keys,
        })
    }
}

fn collect<T>(parsed: Result<T, Vec<ConfigError>>, errors: &mut Vec<String>) -> Option<T> {
    match parsed {
        Ok(config) => Some(config),
        Err(found) => {
            errors.extend(found.iter().map(ToString::to_string));
            None
        }
    }
}

fn unknown(keys: &Keys) -> Vec<String> {
    let known: BTreeSet<&str> = [
        OWN,
        OPERATOR,
        endpoint::Config::KEYS,
        node::Config::KEYS,
        policy::Config::KEYS,
        services::Config::KEYS,
        hubble::Config::KEYS,
    ]
    .concat()
    .into_iter()
    .collect();
    keys.keys().filter(|key| !known.contains(key.as_str())).cloned().collect()
}

/// What of the keys is the agent's own.
struct Own {
    programs: ProgramConfig,
    map_ratio: f64,
    metrics: Option<SocketAddr>,
    health_port: u16,
    client: k8s::ClientConfig,
}

impl Own {
    fn parse(keys: &Keys) -> Result<Self, Vec<ConfigError>> {
        let mut read = Reader::new(keys);
        let programs = ProgramConfig {
            enable_ipv4: u8::from(read.flag("enable-ipv4", true)),
            enable_ipv6: u8::from(read.flag("enable-ipv6", false)),
            tunnel: u8::from(keys.get("routing-mode").is_none_or(|mode| mode != "native")),
            masquerade_ipv4: u8::from(read.flag("enable-ipv4-masquerade", true)),
            masquerade_ipv6: u8::from(read.flag("enable-ipv6-masquerade", true)),
            event_interval: read.duration("monitor-aggregation-interval").map_or(5, whole_seconds),
            ..ProgramConfig::default()
        };
        let client = k8s::ClientConfig {
            kubeconfig: read.text("k8s-kubeconfig-path").map(PathBuf::from),
            api_servers: owned(read.list("k8s-api-server-urls")),
            qps: read.number("k8s-client-qps"),
            burst: read.number("k8s-client-burst"),
            user_agent: Some(concat!("cilium-agent/", env!("CARGO_PKG_VERSION")).to_owned()),
            ..k8s::ClientConfig::default()
        };
        let own = Self {
            programs,
            map_ratio: read.number("bpf-map-dynamic-size-ratio").unwrap_or(0.0025),
            metrics: read.address("prometheus-serve-addr"),
            health_port: read.number("agent-health-port").unwrap_or(9879),
            client,
        };
        read.finish(own)
    }
}

/// At least one second: the programs count in seconds, and none would mean an event for each packet.
fn whole_seconds(duration: Duration) -> u32 {
    let up = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs().saturating_add(up)).unwrap_or(u32::MAX).max(1)
}

fn owned(words: Vec<&str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
