// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod addresses;
mod api;
mod config;
mod explain;
#[cfg(fuzzing)]
pub mod fuzz;
mod identity;
mod ingest;
mod judged;
mod labels;
mod metrics;
mod permissions;
mod problems;
mod reconcile;
mod resolve;
mod rules;
mod run;
mod selectors;

use ::ipcache::Ipcache;
use datapath::{Epochs, Kernel};
use identity::allocate;
use k8s::Warnings;
use model::{Endpoint, EndpointPolicy, Identity, IpEntry, LocalNode, Namespace, Node, Pod, Provenance, RemoteEndpoint};
use reconcile::{PolicyTarget, known_endpoints};
use resolve::Engine;
use run::{Feature, Run, Tables};
use statedb::{Reader, StatusReader, Tasks, Writer, merge, reconcile, table};
use std::sync::Arc;
use surface::Surface;
use tokio::sync::mpsc;

pub use config::Config;
pub use explain::PolicyLine;
pub use identity::gc as identity_gc;
pub use identity::{ApiStore, Created, IdentityStore, StoreError, StoreErrorKind};
pub use ingest::{
    ApiServers, CidrGroup, ingest_api_servers, ingest_cidr_group, ingest_endpoint, ingest_identity, ingest_namespace,
};
pub use judged::{Judgeable, Judged, judge_groups};
pub use labels::{LabelFilter, PatternError, security_labels};
pub use metrics::Metrics;
pub use permissions::Proxying;
pub use problems::PolicyProblems;
pub use resolve::{CompiledPolicy, Enforcement, Entries, EntryKey, Families};
pub use rules::{
    Context, Direction, Policy, PolicyName, Problem, ingest_cilium_policy, ingest_clusterwide_policy,
    ingest_network_policy,
};

/// What the feature reads.
pub struct Inputs<S> {
    /// Maps.
    pub kernel: Arc<dyn Kernel>,
    /// Epochs of flows.
    pub epochs: Epochs,
    /// Where policy writes its entries for the ipcache.
    pub addresses: Writer<IpEntry>,
    /// The resulting ipcache, with `addresses` among its writers.
    pub ipcache: Ipcache,
    /// Where identities are created.
    pub identity_store: S,
    /// Tells a pod's author why it has no identity.
    pub warnings: Warnings,
    /// Pods of this node that have an interface.
    pub endpoints: Reader<Endpoint>,
    /// Pods of this node.
    pub pods: Reader<Pod>,
    pub namespaces: Reader<Namespace>,
    /// The namespace that Cilium is in: pods of its proxy are known as `reserved:ingress`.
    pub cilium_namespace: Arc<str>,
    /// CiliumIdentities.
    pub identities: Reader<Identity>,
    /// CiliumEndpoints.
    pub remote_endpoints: Reader<RemoteEndpoint>,
    pub nodes: Reader<Node>,
    pub local_node: Reader<LocalNode>,
    /// NetworkPolicies; `None` when they are disabled ([`Config::network_policies`]).
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

impl<S> Inputs<S> {
    /// The policies of all enabled kinds. A name includes the kind, so none takes precedence over another.
    fn policies(&self) -> impl Iterator<Item = Reader<Policy>> {
        let cilium = [&self.cilium_policies, &self.clusterwide_policies];
        self.network_policies.iter().chain(cilium).cloned()
    }
}

/// What the feature writes.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The policy of each pod of this node.
    pub endpoint_policies: Reader<EndpointPolicy>,
    /// Every identity: reserved, of the cluster, of prefixes.
    pub identities: Reader<Identity>,
    /// The rules behind entries.
    pub provenance: Reader<Provenance>,
    /// Compiled policies.
    pub compiled: Reader<CompiledPolicy>,
    /// Fields of policies that are not honoured.
    pub problems: Reader<PolicyProblems>,
    /// The state of policies in the kernel.
    pub policy_status: StatusReader<CompiledPolicy>,
    pub metrics: Metrics,
    /// Tables, status, routes and metrics.
    pub surface: Surface,
    policies: Reader<Policy>,
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
    let restored = known_endpoints(&inputs.kernel)?;
    let prefixes = inputs.ipcache.restored.to_vec();
    let installed = policy_target.present().clone();
    let last_policy = installed.keys().copied().chain(restored.values().map(|(id, _)| *id)).max().unwrap_or_default();
    let engine = Engine::new(config.enforcement, config.families(), prefixes, last_policy);

    let (identities_writer, identities) = table("identities");
    let (compiled_writer, compiled) = table("compiled-policies");
    let (endpoints_writer, endpoint_policies) = table("endpoint-policies");
    let (provenance_writer, provenance) = table("provenance");
    let policies = merge(tasks, "policies", inputs.policies()).rows;
    let problems = problems::derive(tasks, &policies, &inputs.cidr_groups).rows;
    let policy_status = reconcile(tasks, "reconcile-policies", compiled.clone(), policy_target);

    let (requests, receive_requests) = mpsc::unbounded_channel();
    let (send_outcomes, outcomes) = mpsc::unbounded_channel();
    let numbers = config.cluster().identities();
    let store = inputs.identity_store.clone();
    tasks.spawn(
        "allocate-identities",
        allocate::serve(store, numbers, inputs.identities.clone(), receive_requests, send_outcomes),
    );

    let metrics = Metrics::default();
    let surface = Surface::new()
        .table(&endpoint_policies)
        .table(&identities)
        .table(&provenance)
        .table(&compiled)
        .table(&problems)
        .reconciler(&policy_status)
        .routes(api::routes(identities.clone()))
        .metrics(|registry| metrics.register(registry));
    let feature = Feature {
        engine,
        tables: Tables {
            identities: identities_writer,
            compiled: compiled_writer,
            endpoints: endpoints_writer,
            provenance: provenance_writer,
        },
        restored,
        installed,
        requests,
        outcomes,
        policy_status: policy_status.clone(),
        metrics: metrics.clone(),
    };
    tasks.spawn("policy", Run::new(config, inputs, policies.clone(), feature).run());
    Ok(Outputs {
        endpoint_policies,
        identities,
        provenance,
        compiled,
        problems,
        policy_status,
        metrics,
        surface,
        policies,
    })
}
