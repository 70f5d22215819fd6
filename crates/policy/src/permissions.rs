// SPDX-License-Identifier: Apache-2.0
//! What this node's pods could reach by themselves of what the node's proxy may send them to. Such servers are anywhere in the cluster, and the
//! programs need the policies of this node's pods alone; so they are compiled beside those, while there is a route to judge.

use crate::resolve::{CompiledPolicy, Engine, SubjectKey};
use crate::rules::{Direction, Policy};
use crate::{Config, Outputs};
use abi::flow::proto;
use futures::FutureExt;
use model::{EndpointId, EndpointPolicy, Identity, IdentityId, Permission, PolicyId, Proxied, RemoteEndpoint, Server};
use statedb::{Change, Changes, Index, Reader, Row, Tasks, Writer};
use std::collections::{BTreeMap, BTreeSet};

/// What is asked, and where the answers go.
pub struct Proxying {
    /// CiliumEndpoints.
    pub remote_endpoints: Reader<RemoteEndpoint>,
    /// Where the node's proxy sends what pods ask Services.
    pub proxied: Reader<Proxied>,
    /// What policy says of that. Without a route it is empty.
    pub permissions: Writer<Permission>,
}

impl Outputs {
    /// Keeps saying what policy says of what the node's proxy sends for this node's pods.
    pub fn permit(&self, config: &Config, proxying: Proxying, tasks: &Tasks) {
        let Proxying { remote_endpoints, proxied, permissions } = proxying;
        let judge = Judge {
            engine: Engine::new(config.enforcement, config.families(), [], PolicyId(0)),
            compiled: BTreeMap::new(),
            by_identity: remote_endpoints.index(|pod| [pod.identity]),
        };
        let sources = Sources {
            policies: self.policies.subscribe(),
            identities: self.identities.subscribe(),
            remote_endpoints: remote_endpoints.subscribe(),
            clients: self.endpoint_policies.subscribe(),
            proxied: proxied.subscribe(),
        };
        tasks.spawn("proxy-permissions", keep(judge, sources, proxied, permissions));
    }
}

/// Keeps the table of permissions. As long as there never was a route to judge, nothing is compiled.
async fn keep(mut judge: Judge, mut sources: Sources, proxied: Reader<Proxied>, mut permissions: Writer<Permission>) {
    proxied.initialized().await;
    while proxied.snapshot().is_empty() {
        permissions.mark_initialized();
        sources.proxied.next().await;
    }
    loop {
        if sources.complete() {
            permissions.replace(judged(&mut judge, &sources, &proxied));
            permissions.mark_initialized();
        }
        sources.next(&mut judge).await;
        while sources.next(&mut judge).now_or_never().is_some() {}
    }
}

/// Nobody is judged without a route.
fn judged(judge: &mut Judge, sources: &Sources, proxied: &Reader<Proxied>) -> Vec<Permission> {
    let rows = proxied.snapshot();
    let clients = sources.clients.snapshot();
    let clients = clients.iter().filter(|_| !rows.is_empty()).map(|row| row.identity).collect();
    judge.permissions(&clients, &rows.iter().flat_map(|row| row.servers.iter().copied()).collect())
}

struct Sources {
    policies: Changes<Policy>,
    identities: Changes<Identity>,
    remote_endpoints: Changes<RemoteEndpoint>,
    clients: Changes<EndpointPolicy>,
    proxied: Changes<Proxied>,
}

impl Sources {
    /// Waits for a change to any table, and tells the judge. Cancel safe.
    async fn next(&mut self, judge: &mut Judge) {
        tokio::select! {
            // Entities come before statements about them.
            biased;
            batch = self.identities.next() => batch.changes.into_iter().for_each(|change| judge.identity(change)),
            batch = self.remote_endpoints.next() => batch.changes.into_iter().for_each(|change| judge.pod(change)),
            batch = self.policies.next() => batch.changes.into_iter().for_each(|change| judge.policy(change)),
            _ = self.clients.next() => {}
            _ = self.proxied.next() => {}
        }
    }

    fn complete(&self) -> bool {
        self.policies.snapshot().initialized()
            && self.identities.snapshot().initialized()
            && self.remote_endpoints.snapshot().initialized()
            && self.clients.snapshot().initialized()
    }
}

struct Judge {
    engine: Engine,
    /// Policies that are kept compiled, each under a number that stands for a pod of it.
    compiled: BTreeMap<SubjectKey, EndpointId>,
    /// Pods of the cluster.
    by_identity: Index<RemoteEndpoint, IdentityId>,
}

impl Judge {
    fn identity(&mut self, change: Change<Identity>) {
        match change {
            Change::Upsert(row) | Change::Delete(row) if row.id.is_node_local() => drop(row),
            Change::Upsert(row) => self.engine.upsert_identity(&row),
            Change::Delete(row) => self.engine.remove_identity(row.id),
        }
    }

    fn pod(&mut self, change: Change<RemoteEndpoint>) {
        match change {
            Change::Upsert(row) => self.engine.upsert_pod(&row),
            Change::Delete(row) => self.engine.remove_pod(&row.key()),
        }
    }

    fn policy(&mut self, change: Change<Policy>) {
        match change {
            Change::Upsert(policy) if policy.valid => self.engine.upsert_policy(policy),
            Change::Upsert(policy) | Change::Delete(policy) => self.engine.remove_policy(&policy.name),
        }
    }

    fn permissions(&mut self, clients: &BTreeSet<IdentityId>, servers: &BTreeSet<Server>) -> Vec<Permission> {
        let clients: Vec<_> =
            clients.iter().copied().filter(|id| !id.is_reserved() && self.engine.knows(*id)).collect();
        let servers: Vec<_> = servers.iter().filter_map(|server| Some((*server, self.subjects(server.0)?))).collect();
        let wanted = clients.iter().map(|id| SubjectKey::new(*id, &[]));
        self.compile(wanted.chain(servers.iter().flat_map(|(_, subjects)| subjects.iter().cloned())).collect());
        let permission = |client: IdentityId| {
            let egress = self.policy_of(&SubjectKey::new(client, &[]))?;
            let judged = servers.iter().filter_map(|((identity, port), subjects)| {
                let leaves = egress.allows(Direction::Egress, *identity, proto::TCP, *port);
                let mut enters = true;
                for subject in subjects {
                    enters &= self.policy_of(subject)?.allows(Direction::Ingress, client, proto::TCP, *port);
                }
                Some(((*identity, *port), leaves && enters))
            });
            Some(Permission { client, servers: judged.collect() })
        };
        clients.into_iter().filter_map(permission).collect()
    }

    /// What policy can see of the pods that have an identity; none for nodes, of which no policy says whom they let in. Nothing as long as
    /// nobody knows them.
    fn subjects(&self, identity: IdentityId) -> Option<BTreeSet<SubjectKey>> {
        if identity.is_reserved() {
            return Some(BTreeSet::new());
        }
        let pods = self.by_identity.get(&identity);
        let subjects: BTreeSet<_> = pods.iter().map(|pod| SubjectKey::new(identity, &pod.named_ports)).collect();
        (self.engine.knows(identity) && !subjects.is_empty()).then_some(subjects)
    }

    /// Compiles these policies, and no others any more.
    fn compile(&mut self, wanted: BTreeSet<SubjectKey>) {
        self.compiled.retain(|key, number| {
            let kept = wanted.contains(key);
            if !kept {
                self.engine.detach(*number);
            }
            kept
        });
        let taken: BTreeSet<_> = self.compiled.values().copied().collect();
        let mut free = (0..=u16::MAX).map(EndpointId).filter(|number| !taken.contains(number));
        for key in wanted {
            if !self.compiled.contains_key(&key)
                && let Some(number) = free.next()
            {
                self.engine.attach(number, key.clone(), None);
                self.compiled.insert(key, number);
            }
        }
        self.engine.settle();
    }

    fn policy_of(&self, subject: &SubjectKey) -> Option<CompiledPolicy> {
        self.engine.policy_of(*self.compiled.get(subject)?)
    }
}

#[cfg(test)]
mod tests;
