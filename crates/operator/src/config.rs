// SPDX-License-Identifier: Apache-2.0
//! Configuration: a folder with one file per key, as a ConfigMap is mounted, overridden by flags of the same names. The
//! agents share the ConfigMap, so unknown keys are left to them. All errors are reported at once.

pub use crate::gateways::Gateways;
use ipam::cluster::Pools;
use ipnet::IpNet;
pub use model::config::Arguments;
use model::config::operator::{Config as Keys, ServiceIpam};
use model::config::shared::Ipam;
use model::config::{ConfigErrors, Group, Label, LogOption, Reader};
use node::readiness::Readiness;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Prefixes of keys that would be ours.
const OURS: &[&str] =
    &["operator-", "cluster-pool-", "identity-gc", "identity-heartbeat", "leader-election-", "nodes-gc"];

/// Keys with such a prefix that belong to other components.
const NOT_OURS: &[&str] = &["operator-pprof", "operator-prometheus-enable-tls", "operator-prometheus-tls"];

/// The command line of `cilium-operator`.
#[must_use]
pub fn command() -> clap::Command {
    let about = "The cluster daemon of cilium-rs: custom resources, pod CIDRs, garbage, node taints";
    Arguments::command("cilium-operator", about, &Keys::keys()).version(env!("CARGO_PKG_VERSION"))
}

/// What the operator does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The API server.
    pub client: k8s::ClientConfig,
    /// Namespace of the Lease, of the agents and of shared Services; the operator's own if unset.
    pub namespace: Option<String>,
    /// Log details.
    pub debug: bool,
    /// How logs are written.
    pub log_options: Vec<LogOption>,
    /// Leave the CustomResourceDefinitions to others.
    pub skip_crd_creation: bool,
    /// Pools of the enabled families, in `cluster-pool` mode.
    pub cluster_pools: Option<Vec<Pools>>,
    /// How long a removed node's prefixes are held back: its pods may still run, and it may come back.
    pub pod_cidr_rest: Duration,
    /// How often and after what time CiliumIdentities are deleted.
    pub identity_gc: Option<IdentityGc>,
    /// How often CiliumEndpoints are checked.
    pub endpoint_gc_interval: Option<Duration>,
    /// How often CiliumNodes are checked.
    pub node_gc_interval: Option<Duration>,
    /// Which Services get addresses.
    pub lb_ipam: Option<lbipam::Config>,
    /// Which Services have addresses of nodes.
    pub node_ipam: Option<lbipam::Config>,
    /// What to do to nodes depending on their agent's readiness.
    pub readiness: Readiness,
    /// The agents' configuration of Services, by which they are judged.
    pub services: services::Config,
    /// What is done for Gateways, if anything.
    pub gateways: Option<Gateways>,
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
    /// How often they are checked.
    pub interval: Duration,
    /// How long one must be unused.
    pub timeout: Duration,
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

    /// Parses the keys; a missing one has its default.
    ///
    /// # Errors
    ///
    /// Every value that cannot be used, alone or together with others.
    pub fn parse(values: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let mut read = Reader::new(values);
        let keys = Keys::read(&mut read);
        let cluster_pools = cluster_pools(&keys, &mut read);
        if keys.default_lb_service_ipam == ServiceIpam::NodeIpam && !keys.node_ipam {
            read.refuse("default-lb-service-ipam", "nodeipam", "possible without enable-node-ipam: \"true\"");
        }
        // Errors in the agents' keys are theirs to report.
        let services = services::Config::parse(values).unwrap_or_default();
        let served = gateway::Config::parse(values).ok();
        Ok(read.finish(Self { services, ..Self::new(keys, served, cluster_pools) })?)
    }

    fn new(keys: Keys, served: Option<gateway::Config>, cluster_pools: Option<Vec<Pools>>) -> Self {
        // Without CiliumEndpoints every identity would look unused.
        let endpoints = !keys.disable_endpoint_crd;
        let identity_gc = interval(keys.identity_gc_interval).filter(|_| endpoints);
        let service_ipam = |ipam| lbipam::Config {
            default_class: keys.default_lb_service_ipam == ipam,
            ipv4: keys.ipv4,
            ipv6: keys.ipv6,
        };
        Self {
            client: client(&keys),
            gateways: gateways(&keys, served),
            namespace: keys.namespace,
            debug: keys.debug,
            log_options: keys.log_options,
            skip_crd_creation: keys.skip_crds,
            cluster_pools,
            pod_cidr_rest: Duration::from_secs(5 * 60),
            identity_gc: identity_gc.map(|interval| IdentityGc { interval, timeout: keys.identity_heartbeat_timeout }),
            endpoint_gc_interval: interval(keys.endpoint_gc_interval).filter(|_| endpoints),
            node_gc_interval: interval(keys.node_gc_interval),
            lb_ipam: keys.lb_ipam.then(|| service_ipam(ServiceIpam::LbIpam)),
            node_ipam: keys.node_ipam.then(|| service_ipam(ServiceIpam::NodeIpam)),
            readiness: Readiness {
                pod_labels: keys.pod_labels,
                pod_namespace: keys.pod_namespace,
                taint: keys.taint,
                remove_taint: keys.remove_taints,
                set_taint: keys.set_taints,
                set_condition: keys.set_condition,
            },
            services: services::Config::default(),
            api_address: keys.api_address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))),
            metrics_address: keys.metrics_address,
            unknown: Vec::new(),
        }
    }
}

/// A duration where zero means never.
fn interval(interval: Duration) -> Option<Duration> {
    Some(interval).filter(|interval| !interval.is_zero())
}

fn gateways(keys: &Keys, served: Option<gateway::Config>) -> Option<Gateways> {
    let app_protocol = served.as_ref().is_some_and(|served| served.app_protocol);
    let envoy_configs = served.as_ref().is_some_and(|served| served.envoy_configs);
    let ingresses = served.filter(|served| served.ingress);
    (keys.gateway_api || envoy_configs || ingresses.is_some()).then(|| Gateways {
        gateway_api: keys.gateway_api,
        envoy_configs,
        ingress_nodes: ingresses.as_ref().map(|served| selector(&served.ingress_host_nodes)).unwrap_or_default(),
        secrets_namespace: Some(keys.gateway_secrets_namespace.clone()).filter(|_| keys.gateway_secrets_sync),
        reports_namespace: keys.gateway_secrets_namespace.clone(),
        service: gateway::ServiceConfig {
            gateways_at_nodes: keys.gateway_host_network,
            ingresses_at_nodes: ingresses.as_ref().is_some_and(|ingresses| ingresses.ingress_host_network),
            external_traffic_policy: keys.gateway_traffic_policy.clone(),
            app_protocol,
        },
        nodes: selector(&keys.gateway_nodes),
        ingresses,
    })
}

/// What a watch of nodes with these labels asks for.
fn selector(labels: &[Label]) -> String {
    labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn client(keys: &Keys) -> k8s::ClientConfig {
    k8s::ClientConfig {
        kubeconfig: keys.kubeconfig.as_ref().map(PathBuf::from),
        api_servers: keys.api_servers.clone(),
        qps: Some(keys.client_qps).filter(|qps| *qps > 0.0),
        burst: Some(keys.client_burst).filter(|burst| *burst > 0),
        user_agent: Some(concat!("cilium-operator/", env!("CARGO_PKG_VERSION")).to_owned()),
        ..k8s::ClientConfig::default()
    }
}

/// The pools of the enabled families, in `cluster-pool` mode.
fn cluster_pools(keys: &Keys, read: &mut Reader<'_>) -> Option<Vec<Pools>> {
    let families = [
        (keys.ipv4, "cluster-pool-ipv4-cidr", prefixes(&keys.pool_ipv4), keys.mask_size_ipv4),
        (keys.ipv6, "cluster-pool-ipv6-cidr", prefixes(&keys.pool_ipv6), keys.mask_size_ipv6),
    ];
    if keys.ipam != Ipam::ClusterPool {
        return None;
    }
    let mut pools = Vec::new();
    for (enabled, key, prefixes, mask_size) in families {
        if !enabled || read.has_refused(key) {
            continue;
        }
        if prefixes.is_empty() {
            read.refuse(key, "", "enough with ipam: cluster-pool: name prefixes for the nodes' pod CIDRs");
            continue;
        }
        match Pools::new(&prefixes, mask_size) {
            Ok(family) => pools.push(family),
            Err(error) => read.refuse(key, read.given(key).unwrap_or_default(), format!("possible: {error}")),
        }
    }
    Some(pools)
}

fn prefixes<N: Copy + Into<IpNet>>(of_family: &[N]) -> Vec<IpNet> {
    of_family.iter().map(|net| (*net).into()).collect()
}

fn unknown<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let known: BTreeSet<&str> = Keys::keys().iter().map(|key| key.name).collect();
    let begins = |key: &str, list: &[&str]| list.iter().any(|start| key.starts_with(start));
    names.filter(|key| !known.contains(key.as_str()) && begins(key, OURS) && !begins(key, NOT_OURS)).cloned().collect()
}

#[cfg(test)]
mod tests;
