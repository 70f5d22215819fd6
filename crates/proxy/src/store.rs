// SPDX-License-Identifier: Apache-2.0
//! Objects become what is in force. Only this task changes that, off the request path.

use crate::invalid::Invalid;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::route::HostMap;
use crate::serving::{HttpSite, Listening, MeshSite, Served, Serving, TlsSite};
use crate::tls::{Credentials, anchors, certified};
use crate::upstream::Upstream;
use l7::link::{Fault, Received, Status};
use l7::{
    Cluster, Endpoints, HttpServer, Key, Kind, Listener, Name, Object, RateLimit, Serve, Snapshot, TlsAction,
    TlsServer, Trust, Update, Version,
};
use sharing::Sharing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod sharing;
#[cfg(test)]
mod tests;

/// What the agent has given, and what has been made of it.
#[derive(Debug)]
pub(crate) struct Store {
    /// The last state of each object that could be used, or that could be if what it refers to were there.
    good: Snapshot,
    serving: Serving,
    credentials: Credentials,
    faults: BTreeMap<Key, String>,
    version: Version,
    sharing: Sharing,
    metrics: Arc<Metrics>,
    workers: usize,
}

impl Store {
    pub(crate) fn new(metrics: Arc<Metrics>, workers: usize) -> Self {
        Self {
            good: Snapshot::default(),
            serving: Serving::default(),
            credentials: Credentials::default(),
            faults: BTreeMap::new(),
            version: Version(0),
            sharing: Sharing::default(),
            metrics,
            workers,
        }
    }

    /// What is in force once it is swapped in.
    pub(crate) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// What can be started from again.
    pub(crate) fn good(&self) -> &Snapshot {
        &self.good
    }

    pub(crate) fn status(&self) -> Status {
        let fault = |(object, reason): (&Key, &String)| {
            // Who has nothing to verify its clients with serves nobody, and the other names of the listener as before.
            let partial = object.kind == Kind::Listener;
            Fault { object: object.clone(), reason: reason.clone(), partial }
        };
        Status { version: self.version, faults: self.faults.iter().map(fault).collect() }
    }

    /// Takes an update in.
    pub(crate) fn apply(&mut self, received: Received) {
        let Received { version, complete, update } = received;
        let update = if complete { self.completed(update) } else { update };
        self.version = version;
        self.serving.number += 1;
        let mut credentials = BTreeSet::new();
        for key in update.remove {
            self.faults.remove(&key);
            self.good.remove(&key);
            self.take_out(&key, &mut credentials);
        }
        let mut set = update.set;
        // What others refer to comes first.
        set.sort_by_key(|object| object.key().kind);
        for mut object in set {
            if let Object::Route(route) = &mut object {
                self.sharing.share(route);
            }
            let key = object.key();
            match self.put_in(&object, &mut credentials) {
                Ok(()) => {
                    self.faults.remove(&key);
                    self.good.set(object);
                }
                Err(invalid) => {
                    tracing::warn!(object = %key, %invalid, "an object is not in force");
                    self.faults.insert(key.clone(), invalid.to_string());
                    if matches!(key.kind, Kind::Cluster | Kind::Listener) {
                        // What verifies its peer may come later. Until then it serves nothing, rather than as it did before.
                        self.good.set(object);
                    }
                }
            }
        }
        self.sharing.forget();
        if !credentials.is_empty() {
            self.renew(&credentials);
        }
        self.metrics.version.set(i64::try_from(version.0).unwrap_or(i64::MAX));
        self.metrics.faults.set(i64::try_from(self.faults.len()).unwrap_or(i64::MAX));
        self.metrics.routes.set(i64::try_from(self.serving.tables.len()).unwrap_or(i64::MAX));
    }

    /// A complete update as changes: what is not in it is to go. What has failed before is tried again.
    fn completed(&self, update: Update) -> Update {
        let named: BTreeSet<Key> = update.set.iter().map(Object::key).collect();
        let known = self.good.iter().map(|(key, _)| key).chain(self.faults.keys());
        let remove: BTreeSet<&Key> = known.filter(|key| !named.contains(key)).collect();
        let set = update.set.into_iter().filter(|object| {
            let key = object.key();
            self.faults.contains_key(&key) || self.good.get(&key) != Some(object)
        });
        Update { remove: remove.into_iter().cloned().collect(), set: set.collect() }
    }

    fn take_out(&mut self, key: &Key, credentials: &mut BTreeSet<Name>) {
        let name = &key.name;
        match key.kind {
            Kind::Route => self.serving.tables.remove(name),
            Kind::Listener => {
                if let Some(before) = self.serving.listeners.remove(name) {
                    self.serving.places.remove(&before.spec);
                }
            }
            Kind::Cluster => drop(self.serving.upstreams.remove(name)),
            Kind::Endpoints => self.place(name, None),
            Kind::RateLimit => drop(self.serving.limiters.remove(name)),
            Kind::Certificate => {
                self.credentials.certificates.remove(name);
                credentials.insert(name.clone());
            }
            Kind::TrustAnchors => {
                self.credentials.anchors.remove(name);
                credentials.insert(name.clone());
            }
            Kind::Client => self.serving.callers.remove_client(name),
            Kind::Permission => self.serving.callers.remove_permission(name),
        }
    }

    fn put_in(&mut self, object: &Object, credentials: &mut BTreeSet<Name>) -> Result<(), Invalid> {
        match object {
            Object::Route(route) => self.serving.tables.set(route),
            Object::Listener(listener) => self.listen(listener),
            Object::Cluster(cluster) => self.cluster(cluster),
            Object::Endpoints(endpoints) => {
                self.place(&endpoints.cluster, Some(endpoints));
                Ok(())
            }
            Object::RateLimit(limit) => self.limit(limit),
            Object::Certificate(certificate) => {
                let parsed = certified(certificate)?;
                self.credentials.certificates.insert(certificate.name.clone(), parsed);
                credentials.insert(certificate.name.clone());
                Ok(())
            }
            Object::TrustAnchors(trust) => {
                let parsed = anchors(trust)?;
                self.credentials.anchors.insert(trust.name.clone(), parsed);
                credentials.insert(trust.name.clone());
                Ok(())
            }
            Object::Client(client) => self.serving.callers.set_client(client),
            Object::Permission(permission) => {
                self.serving.callers.set_permission(permission);
                Ok(())
            }
        }
    }

    fn cluster(&mut self, cluster: &Arc<Cluster>) -> Result<(), Invalid> {
        let tls = cluster.tls.as_ref().map(|tls| self.credentials.client(tls)).transpose();
        let tls = tls.inspect_err(|_| drop(self.serving.upstreams.remove(&cluster.name)))?;
        let before = self.serving.upstreams.get(&cluster.name).map(Arc::as_ref);
        let upstream = Upstream::new(Arc::clone(cluster), tls, before);
        let upstream = upstream.with(self.endpoints(&cluster.name).as_deref(), self.workers);
        self.serving.upstreams.insert(cluster.name.clone(), Arc::new(upstream));
        Ok(())
    }

    /// One that stays what it was keeps its tokens.
    fn limit(&mut self, limit: &Arc<RateLimit>) -> Result<(), Invalid> {
        if !self.serving.limiters.get(&limit.name).is_some_and(|before| before.is_of(limit)) {
            self.serving.limiters.insert(limit.name.clone(), Arc::new(Limiter::new(limit)?));
        }
        Ok(())
    }

    fn endpoints(&self, cluster: &Name) -> Option<Arc<Endpoints>> {
        match self.good.get(&Key { kind: Kind::Endpoints, name: cluster.clone() }) {
            Some(Object::Endpoints(endpoints)) => Some(Arc::clone(endpoints)),
            _ => None,
        }
    }

    /// Endpoints may come before their cluster and go after it.
    fn place(&mut self, cluster: &Name, endpoints: Option<&Arc<Endpoints>>) {
        if let Some(upstream) = self.serving.upstreams.get_mut(cluster) {
            *upstream = Arc::new(upstream.with(endpoints.map(Arc::as_ref), self.workers));
        }
    }

    fn listen(&mut self, listener: &Arc<Listener>) -> Result<(), Invalid> {
        let mut fault = None;
        let served = match &listener.serve {
            Serve::Http(server) => Served::Http(site(server)),
            Serve::Tls(servers) => Served::Tls(self.tls(servers, &mut fault)),
            Serve::Tcp(forward) => Served::Tcp(forward.clone()),
            Serve::Udp(forward) => Served::Udp(forward.clone()),
            Serve::Service(server) => Served::Service(server.forward.clone(), server.consumers.as_ref().map(site)),
        };
        let before = self.serving.listeners.get(&listener.name);
        let connections = before.map(|before| Arc::clone(&before.connections)).unwrap_or_default();
        let crowd = before.map(|before| Arc::clone(&before.crowd)).unwrap_or_default();
        let metrics = self.metrics.listener(&listener.name);
        let clear = listener.clear.as_ref().map(site);
        let listening =
            Listening { spec: Arc::clone(listener), served, clear, metrics: Arc::new(metrics), connections, crowd };
        self.serving.places.add(listener);
        if let Some(before) = self.serving.listeners.insert(listener.name.clone(), Arc::new(listening)) {
            self.serving.places.remove(&before.spec);
        }
        fault.map_or(Ok(()), Err)
    }

    /// The first server that has nothing to verify its clients with is at fault; the others serve.
    fn tls(&self, servers: &[TlsServer], fault: &mut Option<Invalid>) -> HostMap<Arc<TlsSite>> {
        let mut sites = HostMap::default();
        for server in servers {
            let made = Arc::new(self.tls_site(&server.action).unwrap_or_else(|invalid| {
                fault.get_or_insert(invalid);
                TlsSite::Refused
            }));
            for host in server.hosts.iter().filter(|host| sites.get(host).is_none()).collect::<Vec<_>>() {
                sites.set(host, Arc::clone(&made));
            }
        }
        sites
    }

    fn tls_site(&self, action: &TlsAction) -> Result<TlsSite, Invalid> {
        Ok(match action {
            TlsAction::Passthrough(forward) => TlsSite::Passthrough(forward.clone()),
            TlsAction::Tcp(termination, forward) => {
                TlsSite::Tcp(self.credentials.server(termination)?, forward.clone())
            }
            TlsAction::Http(termination, server) => {
                let verification = self.credentials.verification(termination);
                TlsSite::Http(self.credentials.server(termination)?, site(server), verification)
            }
        })
    }

    /// Makes anew whatever refers to a credential that has changed.
    fn renew(&mut self, changed: &BTreeSet<Name>) {
        let objects: Vec<(Key, Object)> = self
            .good
            .iter()
            .filter(|(_, object)| refers(object, changed))
            .map(|(k, o)| (k.clone(), o.clone()))
            .collect();
        for (key, object) in objects {
            match self.put_in(&object, &mut BTreeSet::new()) {
                Ok(()) => drop(self.faults.remove(&key)),
                Err(invalid) => {
                    tracing::warn!(object = %key, %invalid, "what it refers to is not there");
                    self.faults.insert(key, invalid.to_string());
                }
            }
        }
    }
}

fn site(server: &HttpServer) -> Arc<HttpSite> {
    let mut tables = HostMap::default();
    for table in &server.tables {
        if tables.get(&table.host).is_none() {
            tables.set(&table.host, table.table.clone());
        }
    }
    let mesh = server.mesh.as_ref().map(|mesh| MeshSite {
        by_consumer: mesh.consumers.iter().map(|one| (one.namespace.clone(), one.table.clone())).collect(),
        produces: mesh.produces,
    });
    Arc::new(HttpSite { tables, trusted_hops: server.trusted_hops, mesh })
}

/// Whether the object is made with one of these credentials.
fn refers(object: &Object, credentials: &BTreeSet<Name>) -> bool {
    let any = |names: &[Name]| names.iter().any(|name| credentials.contains(name));
    match object {
        Object::Cluster(cluster) => cluster.tls.as_ref().is_some_and(|tls| {
            tls.certificate.as_ref().is_some_and(|name| credentials.contains(name))
                || matches!(&tls.trust, Trust::Anchors(names) if any(names))
        }),
        Object::Listener(listener) => match &listener.serve {
            Serve::Tls(servers) => servers.iter().any(|server| match &server.action {
                TlsAction::Passthrough(_) => false,
                TlsAction::Tcp(termination, _) | TlsAction::Http(termination, _) => {
                    any(&termination.certificates)
                        || termination.client.as_ref().is_some_and(|client| any(&client.trust))
                }
            }),
            Serve::Http(_) | Serve::Tcp(_) | Serve::Udp(_) | Serve::Service(_) => false,
        },
        Object::Route(_)
        | Object::Endpoints(_)
        | Object::RateLimit(_)
        | Object::Certificate(_)
        | Object::TrustAnchors(_)
        | Object::Client(_)
        | Object::Permission(_) => false,
    }
}
