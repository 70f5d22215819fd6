// SPDX-License-Identifier: Apache-2.0
//! What is said of CiliumEnvoyConfigs, which have no status: the table `envoy-config-problems`, and events.

use super::{EnvoyConfig, Placed};
use crate::cluster::pod_at;
use crate::name::{ObjectName, RouteName};
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use k8s::kube::core::SelectorExt as _;
use model::{IpEntry, Node};
use statedb::{Derived, Inputs, Reader, Tasks};
use std::net::SocketAddr;
use std::sync::Arc;

/// Addresses of one object that are told of.
const ADDRESSES_TOLD: usize = 16;

/// An object of which not everything is honoured.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoyProblems {
    /// Namespace and name.
    pub name: ObjectName,
    about: ObjectReference,
    /// What is not honoured, and what follows.
    pub problems: Vec<String>,
}

impl statedb::Row for EnvoyProblems {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

impl EnvoyProblems {
    /// Kind, namespace and name.
    #[must_use]
    pub fn object(&self) -> String {
        RouteName::config(&self.name).to_string()
    }

    /// The same for the object's author.
    #[must_use]
    pub fn warning(&self) -> Warning {
        let (about, note) = (self.about.clone(), self.problems.join("; "));
        Warning { about, reason: "EnvoyConfigNotHonoured", action: "Validate", note }
    }
}

/// Keeps what is to be said of each object of which anything is; where it is known who has an address, of addresses too.
pub(crate) fn problems(
    tasks: &Tasks,
    placed: &Derived<Placed>,
    addresses: Option<&Reader<IpEntry>>,
) -> Reader<EnvoyProblems> {
    let (rows, addresses) = (placed.rows.clone(), addresses.cloned());
    let mut inputs = Inputs::of(&placed.rows, |placed: &Placed| [placed.config.name.clone()]);
    if let Some(addresses) = &addresses {
        let ips = |placed: &Placed| written(&placed.config).map(|(_, address)| address.ip()).collect::<Vec<_>>();
        let by_address = placed.rows.index(ips);
        inputs = inputs.and(addresses, move |entry| {
            let placed = by_address.get(&entry.prefix.addr());
            placed.iter().map(|placed| placed.config.name.clone()).collect::<Vec<_>>()
        });
    }
    let row = move |name: &ObjectName, _: Option<&EnvoyProblems>| {
        let placed = rows.snapshot().get(name)?;
        let (about, mut problems) = (placed.config.about.clone(), placed.problems.clone());
        problems.extend(addresses.iter().flat_map(|addresses| nobodys(&placed.config, addresses)));
        (!problems.is_empty()).then(|| EnvoyProblems { name: name.clone(), about, problems })
    };
    statedb::derive(tasks, "envoy-config-problems", inputs, row).rows
}

/// The addresses that are written down, each with its cluster.
fn written(config: &EnvoyConfig) -> impl Iterator<Item = (&Arc<str>, &SocketAddr)> {
    let known = config.clusters.iter().filter_map(|(name, cluster)| Some((name, cluster.as_ref().ok()?)));
    known.flat_map(|(name, cluster)| cluster.spoken.addresses.iter().map(move |address| (name, address)))
}

/// Addresses to which nothing is sent.
fn nobodys(config: &EnvoyConfig, addresses: &Reader<IpEntry>) -> Vec<String> {
    let namespace = &*config.name.namespace;
    let of = if namespace.is_empty() { String::new() } else { format!(" of namespace {namespace}") };
    let unknown = written(config).filter(|(_, address)| pod_at(addresses, address.ip(), namespace).is_none());
    let told = unknown.map(|(name, address)| format!("cluster {name:?}: {address} gets nothing: no pod{of} has it"));
    told.take(ADDRESSES_TOLD).collect()
}

/// The objects that hold on this node.
pub fn envoy_configs_here(tasks: &Tasks, configs: &Reader<EnvoyConfig>, nodes: &Reader<Node>) -> Reader<EnvoyConfig> {
    let all = configs.clone();
    let inputs = Inputs::of(configs, |config: &EnvoyConfig| [config.name.clone()]).and(nodes, move |node| {
        let all = all.snapshot();
        all.iter().filter(|_| node.local).map(|config| config.name.clone()).collect::<Vec<_>>()
    });
    let (configs, local) = (configs.clone(), nodes.index(|node| node.local.then_some(())));
    let row = move |name: &ObjectName, _: Option<&EnvoyConfig>| {
        let config = configs.snapshot().get(name)?;
        let here = |node: &Node| config.nodes.as_ref().is_none_or(|nodes| nodes.matches(&node.labels));
        local.get(&()).iter().any(|node| here(node)).then(|| EnvoyConfig::clone(&config))
    };
    statedb::derive(tasks, "envoy-configs-here", inputs, row).rows
}
