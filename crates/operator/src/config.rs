// SPDX-License-Identifier: Apache-2.0
//! Configuration: a folder with one file per key, as a ConfigMap is mounted, overridden by flags of the same names. It is
//! the agents' ConfigMap too, so keys that are none of ours are left to them. All errors are reported at once.

mod values;

use clap::{Arg, ArgAction, Command};
use ipam::cluster::Pools;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use values::Values;

/// Our keys, what each does, and its default. Names as in contracts M.
const KEYS: &[(&str, &str, &str)] = &[
    ("agent-not-ready-taint-key", "taint of nodes whose agent is not ready", "node.cilium.io/agent-not-ready"),
    ("cilium-endpoint-gc-interval", "how often CiliumEndpoints without a pod are deleted; 0 for never", "5m0s"),
    ("cilium-pod-labels", "label selector of the agents' pods", "k8s-app=cilium"),
    ("cilium-pod-namespace", "namespace of the agents' pods; the operator's if empty", ""),
    ("cluster-pool-ipv4-cidr", "IPv4 prefixes out of which nodes get their pod CIDRs", ""),
    ("cluster-pool-ipv4-mask-size", "size of a node's IPv4 pod CIDR", "24"),
    ("cluster-pool-ipv6-cidr", "IPv6 prefixes out of which nodes get their pod CIDRs", ""),
    ("cluster-pool-ipv6-mask-size", "size of a node's IPv6 pod CIDR", "120"),
    ("debug", "log details", "false"),
    ("disable-endpoint-crd", "there are no CiliumEndpoints, so nothing is deleted for lack of them", "false"),
    ("enable-ipv4", "IPv4", "true"),
    ("enable-ipv6", "IPv6", "false"),
    ("identity-gc-interval", "how often CiliumIdentities that nobody uses are looked for; 0 for never", "15m0s"),
    ("identity-heartbeat-timeout", "how long a CiliumIdentity must be unused before it is deleted", "30m0s"),
    ("ipam", "where pod CIDRs come from: cluster-pool or kubernetes", "cluster-pool"),
    ("k8s-api-server-urls", "addresses of API servers; when one is away the next is used", ""),
    ("k8s-kubeconfig-path", "kubeconfig to use outside of a pod", ""),
    ("k8s-namespace", "namespace of the operator's Lease; that of its service account if empty", ""),
    ("nodes-gc-interval", "how often CiliumNodes without a Node are looked for; 0 for never", "5m0s"),
    ("operator-api-serve-addr", "where /healthz is served", "127.0.0.1:9234"),
    ("operator-k8s-client-burst", "requests to the API server that may be made at once", "200"),
    ("operator-k8s-client-qps", "requests to the API server per second", "100"),
    ("operator-prometheus-serve-addr", "where /metrics is served, such as :9963; nowhere if empty", ""),
    ("remove-cilium-node-taints", "take the taint off nodes whose agent is ready", "true"),
    ("set-cilium-is-up-condition", "set NetworkUnavailable to False on nodes whose agent is ready", "true"),
    ("set-cilium-node-taints", "taint nodes whose agent is there but not ready", "false"),
    ("skip-crd-creation", "do not register CustomResourceDefinitions", "false"),
];

/// Beginnings of keys that would be ours if we knew them.
const OURS: &[&str] =
    &["operator-", "cluster-pool-", "identity-gc", "identity-heartbeat", "leader-election-", "nodes-gc"];

/// Known to other components although they begin like ours.
const NOT_OURS: &[&str] = &["operator-pprof", "operator-prometheus-enable-tls", "operator-prometheus-tls"];

/// The command line.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// Folder with one file per key.
    pub config_dir: Option<PathBuf>,
    /// Keys given as flags.
    pub keys: BTreeMap<String, String>,
}

impl Arguments {
    /// Reads the command line; the first argument is the program's name.
    ///
    /// # Errors
    /// A flag is unknown, or help or the version is asked for.
    pub fn parse<I: IntoIterator<Item = OsString>>(arguments: I) -> Result<Self, clap::Error> {
        let mut command = Command::new("cilium-operator")
            .about("The cluster daemon of cilium-rs: custom resources, pod CIDRs, garbage, node taints")
            .version(env!("CARGO_PKG_VERSION"))
            .arg(Arg::new("config-dir").long("config-dir").value_name("DIR").help("folder with one file per key"));
        for (key, help, default) in KEYS {
            let help = if default.is_empty() { (*help).to_owned() } else { format!("{help} [default: {default}]") };
            let argument = Arg::new(*key).long(*key).value_name("VALUE").num_args(0..=1).require_equals(true);
            command = command.arg(argument.default_missing_value("true").action(ArgAction::Set).help(help));
        }
        let matches = command.try_get_matches_from(arguments)?;
        let given = |key: &str| matches.get_one::<String>(key).cloned();
        let keys = KEYS.iter().filter_map(|(key, ..)| Some(((*key).to_owned(), given(key)?))).collect();
        Ok(Self { config_dir: given("config-dir").map(PathBuf::from), keys })
    }
}

/// What the operator does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The API server.
    pub client: k8s::ClientConfig,
    /// Namespace of the Lease and of the agents; the service account's if unset.
    pub namespace: Option<String>,
    /// Log details.
    pub debug: bool,
    /// Leave the CustomResourceDefinitions to others.
    pub skip_crd_creation: bool,
    /// Pools of the families that are on, in `cluster-pool` mode.
    pub cluster_pools: Option<Vec<Pools>>,
    /// How often and after what time CiliumIdentities are deleted.
    pub identity_gc: Option<IdentityGc>,
    /// How often CiliumEndpoints are looked at.
    pub endpoint_gc_interval: Option<Duration>,
    /// How often CiliumNodes are looked at.
    pub node_gc_interval: Option<Duration>,
    /// What is done to nodes whose agent is, or is not, ready.
    pub readiness: Readiness,
    /// Where `/healthz` is served.
    pub api_address: SocketAddr,
    /// Where `/metrics` is served.
    pub metrics_address: Option<SocketAddr>,
    /// Keys that look like ours and are unknown.
    pub unknown: Vec<String>,
}

/// Deletion of CiliumIdentities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityGc {
    /// How often they are looked at.
    pub interval: Duration,
    /// How long one must be unused.
    pub timeout: Duration,
}

/// What is done to nodes whose agent is, or is not, ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Label selector of the agents' pods.
    pub pod_labels: String,
    /// Their namespace, if not the operator's.
    pub pod_namespace: Option<String>,
    /// The taint's key.
    pub taint: String,
    /// Take the taint off nodes whose agent is ready.
    pub remove_taint: bool,
    /// Taint nodes whose agent is there but not ready.
    pub set_taint: bool,
    /// Set the condition NetworkUnavailable.
    pub set_condition: bool,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Error {
    /// The key, or the folder.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl Config {
    /// Reads folder and flags.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load(arguments: &Arguments) -> Result<Self, Vec<Error>> {
        let mut keys = BTreeMap::new();
        if let Some(folder) = &arguments.config_dir {
            keys = k8s::config_map::read_folder(folder)
                .map_err(|e| vec![Error { key: e.path.display().to_string(), reason: e.source.to_string() }])?;
        }
        let unknown = unknown(keys.keys());
        keys.extend(arguments.keys.clone());
        Self::from_keys(keys, unknown)
    }

    fn from_keys(keys: BTreeMap<String, String>, unknown: Vec<String>) -> Result<Self, Vec<Error>> {
        let mut values = Values::new(KEYS, keys);
        let identity_gc = values
            .interval("identity-gc-interval")
            .map(|interval| IdentityGc { interval, timeout: values.duration("identity-heartbeat-timeout") });
        let endpoints = !values.boolean("disable-endpoint-crd");
        let config = Self {
            client: client(&mut values),
            namespace: values.optional("k8s-namespace").or_else(|| std::env::var("CILIUM_K8S_NAMESPACE").ok()),
            debug: values.boolean("debug"),
            skip_crd_creation: values.boolean("skip-crd-creation"),
            cluster_pools: cluster_pools(&mut values),
            // Without CiliumEndpoints every identity would look unused.
            identity_gc: identity_gc.filter(|_| endpoints),
            endpoint_gc_interval: values.interval("cilium-endpoint-gc-interval").filter(|_| endpoints),
            node_gc_interval: values.interval("nodes-gc-interval"),
            readiness: Readiness {
                pod_labels: values.text("cilium-pod-labels"),
                pod_namespace: values.optional("cilium-pod-namespace"),
                taint: values.text("agent-not-ready-taint-key"),
                remove_taint: values.boolean("remove-cilium-node-taints"),
                set_taint: values.boolean("set-cilium-node-taints"),
                set_condition: values.boolean("set-cilium-is-up-condition"),
            },
            api_address: values
                .address("operator-api-serve-addr")
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9234))),
            metrics_address: values.address("operator-prometheus-serve-addr"),
            unknown,
        };
        values.finish(config)
    }
}

fn client(values: &mut Values) -> k8s::ClientConfig {
    k8s::ClientConfig {
        kubeconfig: values.optional("k8s-kubeconfig-path").map(PathBuf::from),
        api_servers: values.list("k8s-api-server-urls"),
        qps: Some(values.number::<f64>("operator-k8s-client-qps")).filter(|qps| *qps > 0.0),
        burst: Some(values.number::<u32>("operator-k8s-client-burst")).filter(|burst| *burst > 0),
        user_agent: Some(concat!("cilium-operator/", env!("CARGO_PKG_VERSION")).to_owned()),
        ..k8s::ClientConfig::default()
    }
}

fn cluster_pools(values: &mut Values) -> Option<Vec<Pools>> {
    let mode: Option<ipam::Mode> = values.parsed("ipam");
    let families = [
        ("enable-ipv4", "cluster-pool-ipv4-cidr", "cluster-pool-ipv4-mask-size"),
        ("enable-ipv6", "cluster-pool-ipv6-cidr", "cluster-pool-ipv6-mask-size"),
    ];
    let mut pools = Vec::new();
    for (enabled, cidrs, mask_size) in families {
        let prefixes = values.prefixes(cidrs, enabled == "enable-ipv6");
        let size = values.number(mask_size);
        if !values.boolean(enabled) || mode != Some(ipam::Mode::ClusterPool) {
            continue;
        }
        if prefixes.is_empty() {
            values.wrong(cidrs, "is required with ipam: cluster-pool");
            continue;
        }
        match Pools::new(&prefixes, size) {
            Ok(family) => pools.push(family),
            Err(error) => values.wrong(cidrs, error),
        }
    }
    (mode == Some(ipam::Mode::ClusterPool)).then_some(pools)
}

fn unknown<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    let known: BTreeSet<&str> = KEYS.iter().map(|(key, ..)| *key).collect();
    let begins = |key: &str, list: &[&str]| list.iter().any(|start| key.starts_with(start));
    keys.filter(|key| !known.contains(key.as_str()) && begins(key, OURS) && !begins(key, NOT_OURS)).cloned().collect()
}

#[cfg(test)]
mod tests;
