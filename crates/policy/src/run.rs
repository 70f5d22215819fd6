// SPDX-License-Identifier: Apache-2.0
//! The task that feeds the engine and publishes its results. Nothing is published before every source is complete:
//! until then the kernel carries on with what is pinned.

mod local;
mod publish;
mod sources;
mod unseen;

use crate::addresses::Addresses;
use crate::identity::Identities;
use crate::identity::allocate::{Outcome, Request};
use crate::resolve::{CompiledPolicy, Engine, Entries};
use crate::rules::Policy;
use crate::{ApiServers, Config, Inputs, Metrics};
use ::ipcache::Ipcache;
use futures::FutureExt;
use k8s::Warnings;
use model::{
    Endpoint, EndpointId, EndpointPolicy, Identity, IdentityId, IpEntry, Labels, LocalNode, Namespace, Pod, PolicyId,
    Provenance, RemoteEndpoint,
};
use sources::{Event, Sources};
use statedb::{Change, Reader, Row, StatusReader, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use unseen::Unseen;

/// How often to check whether the programs have stopped using a policy that no pod has any more.
const RETIRE: Duration = Duration::from_secs(1);
/// Changes to batch before publishing.
const TOGETHER: usize = 256;

/// The tables that this feature writes.
pub(crate) struct Tables {
    pub(crate) identities: Writer<Identity>,
    pub(crate) compiled: Writer<CompiledPolicy>,
    pub(crate) endpoints: Writer<EndpointPolicy>,
    pub(crate) provenance: Writer<Provenance>,
}

/// What the task gets when the feature starts.
pub(crate) struct Feature {
    pub(crate) engine: Engine,
    pub(crate) tables: Tables,
    /// What the kernel knew about pods.
    pub(crate) restored: BTreeMap<EndpointId, (PolicyId, IdentityId)>,
    /// The policies that the kernel has.
    pub(crate) installed: BTreeMap<PolicyId, Entries>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<Outcome>,
    pub(crate) policy_status: StatusReader<CompiledPolicy>,
    pub(crate) metrics: Metrics,
}

pub(crate) struct Run {
    sources: Sources,
    config: Config,
    kernel: Arc<dyn datapath::Kernel>,
    engine: Engine,
    addresses: Addresses,
    identities: Identities,
    pods: Reader<Pod>,
    namespaces: Reader<Namespace>,
    cilium_namespace: Arc<str>,
    api_servers: Reader<ApiServers>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Identity of each pod of this node that has one.
    attached: BTreeMap<EndpointId, IdentityId>,
    /// Pods of this node without one.
    waiting: BTreeSet<EndpointId>,
    /// What the kernel knew about pods at start.
    restored: BTreeMap<EndpointId, (PolicyId, IdentityId)>,
    /// Labels whose identity is being created, with the lost number, if any.
    requested: BTreeMap<Labels, Option<IdentityId>>,
    /// Identities that were removed while pods on other nodes had them.
    missed: BTreeSet<IdentityId>,
    /// Identities of this node's pods that the API server does not show.
    unseen: Unseen,
    /// Addresses of this node.
    own_addresses: BTreeSet<IpAddr>,
    requests: mpsc::UnboundedSender<Request>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// Labels without an identity, and the reason.
    refused: BTreeMap<Labels, String>,
    warnings: Warnings,
    tables: Tables,
    policy_status: StatusReader<CompiledPolicy>,
    /// Policy's entries for the ipcache.
    entries: Writer<IpEntry>,
    ipcache: Ipcache,
    metrics: Metrics,
    published_revision: u64,
    /// Some pod's policy is not in the kernel yet.
    unsettled: bool,
    /// Some unused policy is still in the kernel.
    retiring: bool,
}

impl Run {
    pub(crate) fn new<S>(config: Config, inputs: Inputs<S>, policies: Reader<Policy>, feature: Feature) -> Self {
        let Feature { engine, mut tables, restored, installed, requests, outcomes, policy_status, metrics } = feature;
        // Keep what is in the kernel until nobody uses it, like any policy that no pod has any more.
        installed.into_iter().for_each(|(id, entries)| tables.compiled.insert(CompiledPolicy::orphan(id, entries)));
        Self {
            sources: Sources::new(&inputs, &policies),
            addresses: Addresses::new(config.addresses()),
            config,
            kernel: inputs.kernel,
            engine,
            identities: Identities::default(),
            pods: inputs.pods,
            namespaces: inputs.namespaces,
            cilium_namespace: inputs.cilium_namespace,
            api_servers: inputs.api_servers,
            entries: inputs.addresses,
            ipcache: inputs.ipcache,
            endpoints: BTreeMap::new(),
            attached: BTreeMap::new(),
            waiting: BTreeSet::new(),
            restored,
            requested: BTreeMap::new(),
            missed: BTreeSet::new(),
            unseen: Unseen::default(),
            own_addresses: BTreeSet::new(),
            requests,
            outcomes,
            refused: BTreeMap::new(),
            warnings: inputs.warnings,
            tables,
            policy_status,
            metrics,
            published_revision: 0,
            unsettled: false,
            retiring: false,
        }
    }

    pub(crate) async fn run(mut self) {
        while !self.sources.complete() {
            let event = self.sources.next().await;
            self.handle(event);
        }
        self.resolve_waiting();
        self.publish().await;
        self.initialized();
        loop {
            self.wait().await;
            for _ in 0..TOGETHER {
                let Some(event) = self.sources.next().now_or_never() else { break };
                self.handle(event);
            }
            self.publish().await;
        }
    }

    async fn wait(&mut self) {
        tokio::select! {
            event = self.sources.next() => self.handle(event),
            Some(outcome) = self.outcomes.recv() => match outcome {
                Outcome::Made(identity) => self.identity_made(&identity),
                Outcome::Refused(labels, why) => self.identity_refused(labels, why),
                Outcome::Due(request) => self.identity_due(request),
            },
            unseen = self.unseen.due() => self.identity_unseen(unseen),
            () = self.policy_status.changed(), if self.unsettled => {}
            () = tokio::time::sleep(RETIRE), if self.retiring => {}
        }
    }

    /// Everything from the sources is published: from here on the rest may be pruned.
    fn initialized(&mut self) {
        self.tables.identities.mark_initialized();
        self.tables.compiled.mark_initialized();
        self.entries.mark_initialized();
        self.tables.provenance.mark_initialized();
        self.tables.endpoints.mark_initialized();
        self.engine.forget_restored_prefixes();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Endpoints(batch) => each(batch.changes, |change| match change {
                Change::Upsert(row) => {
                    self.endpoints.insert(row.id, Endpoint::clone(&row));
                    self.resolve_endpoint(row.id);
                }
                Change::Delete(row) => self.remove_endpoint(row.id),
            }),
            Event::Pods(batch) => each(batch.changes, |change| {
                if let Change::Upsert(row) = change {
                    self.resolve_where(|endpoint| endpoint.pod() == Some(&row.name));
                }
            }),
            Event::Namespaces(batch) => each(batch.changes, |change| {
                if let Change::Upsert(row) = change {
                    self.resolve_where(|endpoint| endpoint.pod().is_some_and(|pod| pod.namespace == row.name));
                }
            }),
            Event::Identities(batch) => {
                each(batch.changes, |change| match change {
                    Change::Upsert(row) => self.upsert_identity(&row),
                    Change::Delete(row) => self.identity_removed(&row),
                });
                self.resolve_waiting();
            }
            Event::RemoteEndpoints(batch) => {
                each(batch.changes, |change| self.remote_endpoint_changed(change));
                self.forget_missed();
            }
            Event::Nodes(batch) => each(batch.changes, |change| match change {
                Change::Upsert(row) => self.addresses.upsert_node(model::Node::clone(&row)),
                Change::Delete(row) => self.addresses.remove_node(&row.key()),
            }),
            Event::LocalNode(batch) => each(batch.changes, |change| {
                if let Change::Upsert(row) = change {
                    self.own_addresses = own_addresses(&row);
                    self.addresses.set_local_node(LocalNode::clone(&row));
                    self.api_servers_changed();
                }
            }),
            Event::ApiServers => self.api_servers_changed(),
            Event::Policies(batch) => each(batch.changes, |change| self.policy_changed(change)),
            Event::Groups(batch) => each(batch.changes, |change| match change {
                Change::Upsert(row) => self.engine.upsert_group(crate::CidrGroup::clone(&row)),
                Change::Delete(row) => self.engine.remove_group(&row.name),
            }),
        }
    }

    fn remote_endpoint_changed(&mut self, change: Change<RemoteEndpoint>) {
        match change {
            Change::Upsert(row) => {
                self.engine.upsert_pod(&row);
                self.addresses.upsert_pod(RemoteEndpoint::clone(&row));
            }
            Change::Delete(row) => {
                self.engine.remove_pod(&row.key());
                self.addresses.remove_pod(&row.key());
            }
        }
    }

    fn api_servers_changed(&mut self) {
        let slices = self.api_servers.snapshot();
        let addresses: BTreeSet<_> = slices.iter().flat_map(|slice| &slice.addresses).copied().collect();
        self.engine.set_api_servers(&addresses, !addresses.is_disjoint(&self.own_addresses));
        self.addresses.set_api_servers(addresses);
    }

    fn policy_changed(&mut self, change: Change<Policy>) {
        match change {
            Change::Upsert(policy) if policy.valid => self.engine.upsert_policy(policy),
            Change::Upsert(policy) | Change::Delete(policy) => self.engine.remove_policy(&policy.name),
        }
    }
}

fn own_addresses(node: &LocalNode) -> BTreeSet<IpAddr> {
    let main = node.ipv4.map(IpAddr::V4).into_iter().chain(node.ipv6.map(IpAddr::V6));
    main.chain(node.addresses.iter().copied()).collect()
}

fn each<R: statedb::Row>(changes: Vec<Change<R>>, apply: impl FnMut(Change<R>)) {
    changes.into_iter().for_each(apply);
}
