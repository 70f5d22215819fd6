// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod config;
mod explain;
mod identity;
mod ingest;
mod ipcache;
mod labels;
mod metrics;
mod reconcile;
mod resolve;
mod rest;
mod rules;
mod run;
mod selectors;

use datapath::{Epochs, Kernel};
use identity::allocate;
use ipcache::target::IpcacheTarget;
use model::{Endpoint, EndpointPolicy, Identity, IpEntry, LocalNode, Namespace, Node, Pod, Provenance, RemoteEndpoint};
use reconcile::{PolicyTarget, known_endpoints};
use resolve::Engine;
use run::{Feature, Run, Tables};
use statedb::{Reader, StatusReader, Tasks, reconcile, table};
use std::sync::Arc;
use surface::Surface;
use tokio::sync::mpsc;

pub use config::{Config, ConfigError};
pub use explain::PolicyLine;
pub use identity::{ApiStore, Created, IdentityStore, StoreError, numbers_of_cluster};
pub use ingest::{
    ApiServers, CidrGroup, ingest_api_servers, ingest_cidr_group, ingest_endpoint, ingest_identity, ingest_namespace,
};
pub use labels::{LabelFilter, PatternError, security_labels};
pub use metrics::Metrics;
pub use resolve::{CompiledPolicy, Enforcement, Entries, EntryKey, Families};
pub use rules::{
    Context, Direction, Policy, PolicyName, Problem, ingest_cilium_policy, ingest_clusterwide_policy,
    ingest_network_policy,
};
pub use run::PolicyProblems;

/// What the feature reads.
pub struct Inputs<S> {
    /// Maps.
    pub kernel: Arc<dyn Kernel>,
    /// Epochs of flows.
    pub epochs: Epochs,
    /// Where identities are made.
    pub identity_store: S,
    /// Pods of this node that have an interface.
    pub endpoints: Reader<Endpoint>,
    /// Pods of this node.
    pub pods: Reader<Pod>,
    /// Namespaces.
    pub namespaces: Reader<Namespace>,
    /// CiliumIdentities.
    pub identities: Reader<Identity>,
    /// CiliumEndpoints.
    pub remote_endpoints: Reader<RemoteEndpoint>,
    /// Nodes.
    pub nodes: Reader<Node>,
    /// This node.
    pub local_node: Reader<LocalNode>,
    /// NetworkPolicies; `None` when they do not count ([`Config::network_policies`]).
    pub network_policies: Option<Reader<Policy>>,
    /// CiliumNetworkPolicies.
    pub cilium_policies: Reader<Policy>,
    /// CiliumClusterwideNetworkPolicies.
    pub clusterwide_policies: Reader<Policy>,
    /// CiliumCIDRGroups.
    pub cidr_groups: Reader<CidrGroup>,
    /// EndpointSlices of the Service `kubernetes`.
    pub api_servers: Reader<ApiServers>,
}

/// What the feature writes.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// What policy says about each pod of this node.
    pub endpoint_policies: Reader<EndpointPolicy>,
    /// Every identity: reserved, of the cluster, of prefixes.
    pub identities: Reader<Identity>,
    /// Identity of each address.
    pub ipcache: Reader<IpEntry>,
    /// The rules behind entries.
    pub provenance: Reader<Provenance>,
    /// Compiled policies.
    pub compiled: Reader<CompiledPolicy>,
    /// Fields of policies that are not honoured.
    pub problems: Reader<PolicyProblems>,
    /// How far the kernel's policies are.
    pub policy_status: StatusReader<CompiledPolicy>,
    /// How far the kernel's ipcache is.
    pub ipcache_status: StatusReader<IpEntry>,
    /// Numbers.
    pub metrics: Metrics,
    /// What it shows of itself.
    pub surface: Surface,
}

/// Starts the feature.
///
/// # Errors
///
/// A map cannot be opened or read.
pub fn start<S: IdentityStore + Clone>(
    config: Config,
    inputs: Inputs<S>,
    tasks: &Tasks,
) -> Result<Outputs, datapath::Error> {
    let policy_target = PolicyTarget::open(&inputs.kernel, inputs.epochs.clone())?;
    let ipcache_target = IpcacheTarget::open(&inputs.kernel, inputs.epochs.clone())?;
    let restored = known_endpoints(&inputs.kernel)?;
    let prefixes = ipcache_target.identities();
    let policies = policy_target.present().clone();
    let last_policy = policies.keys().copied().chain(restored.values().map(|(id, _)| *id)).max().unwrap_or_default();
    let engine = Engine::new(config.enforcement, config.families, prefixes, last_policy);

    let (identities_writer, identities) = table("identities");
    let (compiled_writer, compiled) = table("compiled-policies");
    let (endpoints_writer, endpoint_policies) = table("endpoint-policies");
    let (ipcache_writer, ipcache) = table("ipcache");
    let (provenance_writer, provenance) = table("provenance");
    let (problems_writer, problems) = table("policy-problems");
    let policy_status = reconcile(tasks, "reconcile-policies", compiled.clone(), policy_target);
    let ipcache_status = reconcile(tasks, "reconcile-ipcache", ipcache.clone(), ipcache_target);

    let (requests, receive_requests) = mpsc::unbounded_channel();
    let (results, made) = mpsc::unbounded_channel();
    let numbers = numbers_of_cluster(config.cluster_id);
    let store = inputs.identity_store.clone();
    tasks.spawn(
        "allocate-identities",
        allocate::serve(store, numbers, inputs.identities.clone(), receive_requests, results),
    );

    let metrics = Metrics::default();
    let surface = Surface::new()
        .table(&endpoint_policies)
        .table(&identities)
        .table(&ipcache)
        .table(&provenance)
        .table(&compiled)
        .table(&problems)
        .reconciler(&policy_status)
        .reconciler(&ipcache_status)
        .routes(rest::routes(identities.clone(), ipcache.clone()))
        .metrics(|registry| metrics.register(registry));
    let feature = Feature {
        engine,
        tables: Tables {
            identities: identities_writer,
            compiled: compiled_writer,
            endpoints: endpoints_writer,
            ipcache: ipcache_writer,
            provenance: provenance_writer,
            problems: problems_writer,
        },
        restored,
        policies,
        requests,
        made,
        policy_status: policy_status.clone(),
        ipcache_status: ipcache_status.clone(),
        metrics: metrics.clone(),
    };
    let run = Run::new(config, &inputs, feature);
    tasks.spawn("policy", run.run(inputs));
    Ok(Outputs {
        endpoint_policies,
        identities,
        ipcache,
        provenance,
        compiled,
        problems,
        policy_status,
        ipcache_status,
        metrics,
        surface,
    })
}
