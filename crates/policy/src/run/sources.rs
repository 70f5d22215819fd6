// SPDX-License-Identifier: Apache-2.0
//! All tables that the engine reads, as a single stream of events.

use super::super::Inputs;
use crate::ingest::{ApiServers, CidrGroup};
use crate::rules::Policy;
use model::{Endpoint, Identity, IdentityId, LocalNode, Namespace, Node, Pod, RemoteEndpoint};
use statedb::{Batch, Changes, Reader};
use std::sync::Arc;

/// Something that changed.
#[derive(Debug)]
pub(super) enum Event {
    Endpoints(Batch<Endpoint>),
    Pods(Batch<Pod>),
    Namespaces(Batch<Namespace>),
    Identities(Batch<Identity>),
    RemoteEndpoints(Batch<RemoteEndpoint>),
    Nodes(Batch<Node>),
    LocalNode(Batch<LocalNode>),
    Policies(Batch<Policy>),
    Groups(Batch<CidrGroup>),
    ApiServers,
}

pub(super) struct Sources {
    endpoints: Changes<Endpoint>,
    pods: Changes<Pod>,
    namespaces: Changes<Namespace>,
    identities: Changes<Identity>,
    remote_endpoints: Changes<RemoteEndpoint>,
    nodes: Changes<Node>,
    local_node: Changes<LocalNode>,
    policies: Changes<Policy>,
    groups: Changes<CidrGroup>,
    api_servers: Changes<ApiServers>,
}

impl Sources {
    pub(super) fn new<S>(inputs: &Inputs<S>, policies: &Reader<Policy>) -> Self {
        Self {
            endpoints: inputs.endpoints.subscribe(),
            pods: inputs.pods.subscribe(),
            namespaces: inputs.namespaces.subscribe(),
            identities: inputs.identities.subscribe(),
            remote_endpoints: inputs.remote_endpoints.subscribe(),
            nodes: inputs.nodes.subscribe(),
            local_node: inputs.local_node.subscribe(),
            policies: policies.subscribe(),
            groups: inputs.cidr_groups.subscribe(),
            api_servers: inputs.api_servers.subscribe(),
        }
    }

    /// Waits for the next change to any table. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            // Entities come before statements about them.
            biased;
            batch = self.identities.next() => Event::Identities(batch),
            batch = self.namespaces.next() => Event::Namespaces(batch),
            batch = self.pods.next() => Event::Pods(batch),
            batch = self.local_node.next() => Event::LocalNode(batch),
            batch = self.nodes.next() => Event::Nodes(batch),
            batch = self.groups.next() => Event::Groups(batch),
            _ = self.api_servers.next() => Event::ApiServers,
            batch = self.policies.next() => Event::Policies(batch),
            batch = self.remote_endpoints.next() => Event::RemoteEndpoints(batch),
            batch = self.endpoints.next() => Event::Endpoints(batch),
        }
    }

    /// Whether the cluster's identities have been listed.
    pub(super) fn know_identities(&self) -> bool {
        self.identities.snapshot().initialized()
    }

    /// An identity as the API server shows it, as far as has been heard.
    pub(super) fn shown_identity(&self, id: IdentityId) -> Option<Arc<Identity>> {
        self.identities.snapshot().get(&id)
    }

    /// Whether every table has been complete at some point, and this node is known.
    pub(super) fn complete(&self) -> bool {
        self.endpoints.snapshot().initialized()
            && self.pods.snapshot().initialized()
            && self.namespaces.snapshot().initialized()
            && self.know_identities()
            && self.remote_endpoints.snapshot().initialized()
            && self.nodes.snapshot().initialized()
            && !self.local_node.snapshot().is_empty()
            && self.policies.snapshot().initialized()
            && self.groups.snapshot().initialized()
            && self.api_servers.snapshot().initialized()
    }
}
