// SPDX-License-Identifier: Apache-2.0
//! Judges who may reach whom, again only for the pairs of a client and a server on which a change bears.

use super::compiled::Compiled;
use crate::resolve::{Engine, SubjectKey};
use crate::rules::{Direction, Policy};
use abi::flow::proto;
use model::{EndpointId, EndpointPolicy, Identity, IdentityId, MeshPod, Permission, Proxied, RemoteEndpoint, Server};
use statedb::{Change, Index, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) struct Judge {
    engine: Engine,
    pub(super) compiled: Compiled,
    /// Pods of the cluster.
    by_identity: Index<RemoteEndpoint, IdentityId>,
    /// The identity that each of them had when it was last heard of.
    pods: BTreeMap<MeshPod, IdentityId>,
    /// This node's pods, and how many have each identity.
    endpoints: BTreeMap<EndpointId, IdentityId>,
    clients: BTreeMap<IdentityId, usize>,
    /// What each route sends to, and how many send to each server.
    routes: BTreeMap<Arc<str>, BTreeSet<Server>>,
    servers: BTreeMap<Server, usize>,
    /// What policy can see of the pods of the servers that can be judged.
    subjects: BTreeMap<IdentityId, BTreeSet<SubjectKey>>,
    rows: BTreeMap<IdentityId, Permission>,
    /// Identities that were removed while a policy was compiled for them.
    removed: BTreeSet<IdentityId>,
    news: News,
    /// Verdicts so far.
    #[cfg(test)]
    pub(super) judged: usize,
}

/// What has been heard since the last verdicts.
#[derive(Default)]
struct News {
    /// Identities that came, went, or may have gained or lost pods here.
    clients: BTreeSet<IdentityId>,
    /// Identities whose pods, or themselves, came or went.
    pods: BTreeSet<IdentityId>,
    /// Identities of servers that are asked for under other ports.
    ports: BTreeSet<IdentityId>,
}

/// What must be judged, and whose row has changed.
#[derive(Default)]
struct Docket {
    pairs: BTreeSet<(IdentityId, IdentityId)>,
    changed: BTreeSet<IdentityId>,
}

/// What policy sees of a client: its ports do not matter.
fn as_client(identity: IdentityId) -> SubjectKey {
    SubjectKey::new(identity, &[])
}

const fn ports_of(identity: IdentityId) -> std::ops::RangeInclusive<Server> {
    (identity, 0)..=(identity, u16::MAX)
}

fn add<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Judge {
    pub(super) fn new(engine: Engine, by_identity: Index<RemoteEndpoint, IdentityId>) -> Self {
        Self {
            engine,
            compiled: Compiled::default(),
            by_identity,
            pods: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            clients: BTreeMap::new(),
            routes: BTreeMap::new(),
            servers: BTreeMap::new(),
            subjects: BTreeMap::new(),
            rows: BTreeMap::new(),
            removed: BTreeSet::new(),
            news: News::default(),
            #[cfg(test)]
            judged: 0,
        }
    }

    pub(super) fn identity(&mut self, change: Change<Identity>) {
        let (Change::Upsert(row) | Change::Delete(row)) = &change;
        if row.id.is_node_local() {
            return;
        }
        self.news.clients.insert(row.id);
        self.news.pods.insert(row.id);
        match change {
            Change::Upsert(row) => {
                self.removed.remove(&row.id);
                self.engine.upsert_identity(&row);
            }
            Change::Delete(row) => {
                self.removed.insert(row.id);
            }
        }
        self.forget_removed();
    }

    /// As long as a policy is compiled for an identity, it is known.
    fn forget_removed(&mut self) {
        let engine = &mut self.engine;
        self.removed.retain(|id| {
            engine.remove_identity(*id);
            engine.knows(*id)
        });
    }

    pub(super) fn pod(&mut self, change: Change<RemoteEndpoint>) {
        let before = match change {
            Change::Upsert(row) => {
                self.engine.upsert_pod(&row);
                self.news.pods.insert(row.identity);
                self.pods.insert(row.key(), row.identity)
            }
            Change::Delete(row) => {
                self.engine.remove_pod(&row.key());
                self.pods.remove(&row.key())
            }
        };
        self.news.pods.extend(before);
    }

    pub(super) fn policy(&mut self, change: Change<Policy>) {
        match change {
            Change::Upsert(policy) if policy.valid => self.engine.upsert_policy(policy),
            Change::Upsert(policy) | Change::Delete(policy) => self.engine.remove_policy(&policy.name),
        }
    }

    pub(super) fn client(&mut self, change: &Change<EndpointPolicy>) {
        let before = match change {
            Change::Upsert(row) => {
                add(&mut self.clients, row.identity);
                self.news.clients.insert(row.identity);
                self.endpoints.insert(row.endpoint, row.identity)
            }
            Change::Delete(row) => self.endpoints.remove(&row.endpoint),
        };
        if let Some(before) = before {
            subtract(&mut self.clients, &before);
            self.news.clients.insert(before);
        }
    }

    pub(super) fn route(&mut self, change: &Change<Proxied>) {
        let none = self.routes.is_empty();
        let (before, now) = match change {
            Change::Upsert(row) => (self.routes.insert(row.route.clone(), row.servers.clone()), row.servers.clone()),
            Change::Delete(row) => (self.routes.remove(&row.route), BTreeSet::new()),
        };
        let before = before.unwrap_or_default();
        now.iter().for_each(|server| add(&mut self.servers, *server));
        before.iter().for_each(|server| subtract(&mut self.servers, server));
        self.news.ports.extend(now.symmetric_difference(&before).map(|(identity, _)| *identity));
        if none != self.routes.is_empty() {
            // Nobody is judged without a route.
            self.news.clients.extend(self.clients.keys());
        }
    }

    /// The rows that have changed since the last call.
    pub(super) fn settle(&mut self) -> Vec<(IdentityId, Option<Permission>)> {
        let News { clients, pods, ports } = std::mem::take(&mut self.news);
        let mut docket = Docket::default();
        for server in pods.union(&ports) {
            self.place_server(*server, ports.contains(server), &mut docket);
        }
        for client in clients {
            self.place_client(client, &mut docket);
        }
        self.forget_removed();
        for change in self.compiled.settle(&mut self.engine) {
            let identity = change.subject.identity;
            if self.rows.contains_key(&identity) && change.subject == as_client(identity) {
                docket.pairs.extend(change.egress.among(&self.subjects).map(|server| (identity, server)));
            }
            if self.subjects.get(&identity).is_some_and(|subjects| subjects.contains(&change.subject)) {
                docket.pairs.extend(change.ingress.among(&self.rows).map(|client| (client, identity)));
            }
        }
        for (client, server) in docket.pairs {
            if self.judge(client, server) {
                docket.changed.insert(client);
            }
        }
        docket.changed.into_iter().map(|client| (client, self.rows.get(&client).cloned())).collect()
    }

    /// Begins or ends to judge a server.
    fn place_server(&mut self, server: IdentityId, other_ports: bool, docket: &mut Docket) {
        let wanted = self.servers.range(ports_of(server)).next().and_then(|_| self.subjects_of(server));
        let before = self.subjects.get(&server).cloned();
        if wanted == before && !other_ports {
            return;
        }
        wanted.iter().flatten().for_each(|key| self.compiled.acquire(&mut self.engine, key));
        before.iter().flatten().for_each(|key| self.compiled.release(&mut self.engine, key));
        match wanted {
            Some(subjects) => self.subjects.insert(server, subjects),
            None => self.subjects.remove(&server),
        };
        docket.pairs.extend(self.rows.keys().map(|client| (*client, server)));
    }

    /// Begins or ends to judge a client.
    fn place_client(&mut self, client: IdentityId, docket: &mut Docket) {
        let known = !client.is_reserved() && self.engine.knows(client);
        let wanted = known && !self.routes.is_empty() && self.clients.contains_key(&client);
        if wanted == self.rows.contains_key(&client) {
            return;
        }
        docket.changed.insert(client);
        if wanted {
            self.compiled.acquire(&mut self.engine, &as_client(client));
            self.rows.insert(client, Permission { client, servers: BTreeMap::new() });
            docket.pairs.extend(self.subjects.keys().map(|server| (client, *server)));
        } else {
            self.compiled.release(&mut self.engine, &as_client(client));
            self.rows.remove(&client);
        }
    }

    /// What policy can see of the pods that have an identity; none for nodes, of which no policy says whom they let in. Nothing as long as
    /// nobody knows them.
    fn subjects_of(&self, identity: IdentityId) -> Option<BTreeSet<SubjectKey>> {
        if identity.is_reserved() {
            return Some(BTreeSet::new());
        }
        let pods = self.by_identity.get(&identity);
        let subjects: BTreeSet<_> = pods.iter().map(|pod| SubjectKey::new(identity, &pod.named_ports)).collect();
        (self.engine.knows(identity) && !subjects.is_empty()).then_some(subjects)
    }

    /// Judges a client and a server anew. Returns whether that has changed anything.
    fn judge(&mut self, client: IdentityId, server: IdentityId) -> bool {
        let ports: Vec<_> = self.servers.range(ports_of(server)).map(|((_, port), _)| *port).collect();
        let verdicts = ports.iter().filter_map(|port| Some(((server, *port), self.verdict(client, server, *port)?)));
        let now: BTreeMap<_, _> = verdicts.collect();
        #[cfg(test)]
        {
            self.judged += ports.len();
        }
        let Some(row) = self.rows.get_mut(&client) else { return false };
        let before: BTreeMap<_, _> =
            row.servers.range(ports_of(server)).map(|(key, allowed)| (*key, *allowed)).collect();
        if now == before {
            return false;
        }
        row.servers.retain(|key, _| !before.contains_key(key));
        row.servers.extend(now);
        true
    }

    fn verdict(&self, client: IdentityId, server: IdentityId, port: u16) -> Option<bool> {
        let subjects = self.subjects.get(&server)?;
        let egress = self.compiled.policy(&as_client(client))?;
        let mut allowed = egress.allows(Direction::Egress, server, proto::TCP, port);
        for subject in subjects {
            allowed &= self.compiled.policy(subject)?.allows(Direction::Ingress, client, proto::TCP, port);
        }
        Some(allowed)
    }
}
