// SPDX-License-Identifier: Apache-2.0
//! Configuration: a folder with one file per key, as a ConfigMap is mounted, overridden by flags of the same names. It is
//! the agents' ConfigMap too, so keys that are none of ours are left to them. All errors are reported at once.

use ipam::cluster::Pools;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use model::config::Arguments;
use model::config::operator as keys;
use model::config::{ConfigErrors, Key, Reader, shared};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Beginnings of keys that would be ours if we knew them.
const OURS: &[&str] =
    &["operator-", "cluster-pool-", "identity-gc", "identity-heartbeat", "leader-election-", "nodes-gc"];

/// Known to other components although they begin like ours.
const NOT_OURS: &[&str] = &["operator-pprof", "operator-prometheus-enable-tls", "operator-prometheus-tls"];

/// The command line of `cilium-operator`.
#[must_use]
pub fn command() -> clap::Command {
    let about = "The cluster daemon of cilium-rs: custom resources, pod CIDRs, garbage, node taints";
    Arguments::command("cilium-operator", about, keys::KEYS).version(env!("CARGO_PKG_VERSION"))
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
    /// How long what a node had that is gone is given to no other: its pods may still run, and it may come back.
    pub pod_cidr_rest: Duration,
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

impl Config {
    /// Reads folder and flags.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, or all values that cannot be used, each with its key.
    pub fn load(arguments: &Arguments) -> anyhow::Result<Self> {
        let mut values = match &arguments.config_dir {
            Some(folder) => k8s::config_map::read_folder(folder)?,
            None => BTreeMap::new(),
        };
        let unknown = unknown(values.keys());
        values.extend(arguments.keys.clone());
        Ok(Self { unknown, ..Self::parse(&values)? })
    }

    /// Types the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, alone or together with others.
    pub fn parse(values: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let mut read = Reader::new(values);
        let timeout = read.duration(&keys::IDENTITY_HEARTBEAT_TIMEOUT).unwrap_or_default();
        let identity_gc = interval(&mut read, &keys::IDENTITY_GC_INTERVAL);
        let endpoints = !read.flag(&shared::DISABLE_ENDPOINT_CRD);
        let config = Self {
            client: client(&mut read),
            namespace: read
                .text(&keys::NAMESPACE)
                .map(str::to_owned)
                .or_else(|| std::env::var("CILIUM_K8S_NAMESPACE").ok()),
            debug: read.flag(&shared::DEBUG),
            skip_crd_creation: read.flag(&keys::SKIP_CRDS),
            cluster_pools: cluster_pools(&mut read),
            pod_cidr_rest: Duration::from_secs(5 * 60),
            // Without CiliumEndpoints every identity would look unused.
            identity_gc: identity_gc.filter(|_| endpoints).map(|interval| IdentityGc { interval, timeout }),
            endpoint_gc_interval: interval(&mut read, &keys::ENDPOINT_GC_INTERVAL).filter(|_| endpoints),
            node_gc_interval: interval(&mut read, &keys::NODES_GC_INTERVAL),
            readiness: readiness(&mut read),
            api_address: read.address(&keys::API_ADDRESS).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            metrics_address: read.address(&keys::METRICS_ADDRESS),
            unknown: Vec::new(),
        };
        Ok(read.finish(config)?)
    }
}

/// A duration of which zero means never.
fn interval(read: &mut Reader<'_>, key: &Key) -> Option<Duration> {
    read.duration(key).filter(|interval| !interval.is_zero())
}

fn client(read: &mut Reader<'_>) -> k8s::ClientConfig {
    k8s::ClientConfig {
        kubeconfig: read.text(&shared::K8S_KUBECONFIG_PATH).map(PathBuf::from),
        api_servers: read.list(&shared::K8S_API_SERVER_URLS).into_iter().map(str::to_owned).collect(),
        qps: read.number(&keys::CLIENT_QPS).filter(|qps| *qps > 0.0),
        burst: read.number(&keys::CLIENT_BURST).filter(|burst| *burst > 0),
        user_agent: Some(concat!("cilium-operator/", env!("CARGO_PKG_VERSION")).to_owned()),
        ..k8s::ClientConfig::default()
    }
}

fn readiness(read: &mut Reader<'_>) -> Readiness {
    Readiness {
        pod_labels: read.text(&keys::POD_LABELS).unwrap_or_default().to_owned(),
        pod_namespace: read.text(&keys::POD_NAMESPACE).map(str::to_owned),
        taint: read.text(&keys::TAINT).unwrap_or_default().to_owned(),
        remove_taint: read.flag(&keys::REMOVE_TAINTS),
        set_taint: read.flag(&keys::SET_TAINTS),
        set_condition: read.flag(&keys::SET_CONDITION),
    }
}

fn cluster_pools(read: &mut Reader<'_>) -> Option<Vec<Pools>> {
    let mode: Option<ipam::Mode> = read.parsed(&shared::IPAM, "supported: use kubernetes or cluster-pool");
    let ipv4 = prefixes(read, &keys::POOL_IPV4, "an IPv4 prefix", |item| item.parse().map(Ipv4Net::into));
    let ipv6 = prefixes(read, &keys::POOL_IPV6, "an IPv6 prefix", |item| item.parse().map(Ipv6Net::into));
    let families = [
        (&shared::ENABLE_IPV4, &keys::POOL_IPV4, ipv4, &keys::POOL_IPV4_MASK_SIZE),
        (&shared::ENABLE_IPV6, &keys::POOL_IPV6, ipv6, &keys::POOL_IPV6_MASK_SIZE),
    ];
    let mut pools = Vec::new();
    for (enabled, key, prefixes, mask_size) in families {
        let size = read.number(mask_size);
        if !read.flag(enabled) || mode != Some(ipam::Mode::ClusterPool) {
            continue;
        }
        // What could not be read has been refused already.
        let (Some(prefixes), Some(size)) = (prefixes, size) else { continue };
        if prefixes.is_empty() {
            read.refuse(key, "", "enough with ipam: cluster-pool: name prefixes for the nodes' pod CIDRs");
            continue;
        }
        match Pools::new(&prefixes, size) {
            Ok(family) => pools.push(family),
            Err(error) => read.refuse(key, read.verbatim(key), format!("possible: {error}")),
        }
    }
    (mode == Some(ipam::Mode::ClusterPool)).then_some(pools)
}

/// The prefixes of one family; none of them if one is refused.
fn prefixes(
    read: &mut Reader<'_>,
    key: &Key,
    want: &'static str,
    parse: impl Fn(&str) -> Result<IpNet, ipnet::AddrParseError>,
) -> Option<Vec<IpNet>> {
    let mut prefixes = Some(Vec::new());
    for item in read.list(key) {
        match parse(item) {
            Ok(prefix) => prefixes.iter_mut().for_each(|prefixes| prefixes.push(prefix)),
            Err(_) => {
                read.refuse(key, item, want);
                prefixes = None;
            }
        }
    }
    prefixes
}

fn unknown<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let known: BTreeSet<&str> = keys::KEYS.iter().map(|key| key.name).collect();
    let begins = |key: &str, list: &[&str]| list.iter().any(|start| key.starts_with(start));
    names.filter(|key| !known.contains(key.as_str()) && begins(key, OURS) && !begins(key, NOT_OURS)).cloned().collect()
}

#[cfg(test)]
mod tests;
