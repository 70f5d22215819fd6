// SPDX-License-Identifier: Apache-2.0
//! Everything that the proxy serves, as a set of objects, and the difference between two such sets.

use crate::{Certificate, Client, Cluster, Endpoints, Listener, Name, Permission, RateLimit, Route, TrustAnchors};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// One part of a snapshot. Two that are clones of each other are known to be equal at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Object {
    /// A socket.
    Listener(Arc<Listener>),
    /// A rule for requests.
    Route(Arc<Route>),
    /// How backends are spoken to.
    Cluster(Arc<Cluster>),
    /// Where backends are.
    Endpoints(Arc<Endpoints>),
    /// How many requests are let through.
    RateLimit(Arc<RateLimit>),
    /// A certificate with its key.
    Certificate(Arc<Certificate>),
    /// Authorities.
    TrustAnchors(Arc<TrustAnchors>),
    /// Who a pod is.
    Client(Arc<Client>),
    /// What pods may reach.
    Permission(Arc<Permission>),
}

impl Object {
    /// What it is replaced and removed by.
    #[must_use]
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Listener(listener) => (Kind::Listener, &listener.name),
            Self::Route(route) => (Kind::Route, &route.name),
            Self::Cluster(cluster) => (Kind::Cluster, &cluster.name),
            Self::Endpoints(endpoints) => (Kind::Endpoints, &endpoints.cluster),
            Self::RateLimit(limit) => (Kind::RateLimit, &limit.name),
            Self::Certificate(certificate) => (Kind::Certificate, &certificate.name),
            Self::TrustAnchors(anchors) => (Kind::TrustAnchors, &anchors.name),
            Self::Client(client) => (Kind::Client, &client.name),
            Self::Permission(permission) => (Kind::Permission, &permission.name),
        };
        Key { kind, name: name.clone() }
    }
}

macro_rules! parts {
    ($($part:ident)*) => {$(
        impl From<$part> for Object {
            fn from(part: $part) -> Self {
                Self::$part(Arc::new(part))
            }
        }
    )*};
}
parts!(Listener Route Cluster Endpoints RateLimit Certificate TrustAnchors Client Permission);

/// What an [`Object`] can be. What others refer to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// [`TrustAnchors`].
    TrustAnchors,
    /// [`Permission`].
    Permission,
    /// [`Client`].
    Client,
    /// [`Certificate`].
    Certificate,
    /// [`Endpoints`], by the name of their cluster.
    Endpoints,
    /// [`Cluster`].
    Cluster,
    /// [`RateLimit`].
    RateLimit,
    /// [`Route`].
    Route,
    /// [`Listener`].
    Listener,
}

/// Kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Kind.
    pub kind: Kind,
    /// Name among those of the kind.
    pub name: Name,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::TrustAnchors => "trust anchors",
            Kind::Permission => "permission of identity",
            Kind::Client => "client",
            Kind::Certificate => "certificate",
            Kind::Endpoints => "endpoints of",
            Kind::Cluster => "cluster",
            Kind::RateLimit => "rate limit",
            Kind::Route => "route",
            Kind::Listener => "listener",
        };
        write!(f, "{kind} {}", self.name)
    }
}

/// Number of a snapshot. It grows while an agent runs; another agent begins anew, so equal numbers mean nothing between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

/// All that the proxy is to serve. A clone shares everything, and a difference costs as much as differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    objects: OrdMap<Key, Object>,
}

impl Snapshot {
    /// Puts the object in, in place of the one of its key.
    pub fn set(&mut self, object: impl Into<Object>) {
        let object = object.into();
        self.objects.insert(object.key(), object);
    }

    /// Takes the object out.
    pub fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    /// The object of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// All objects, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.iter()
    }

    /// The pods whose requests to Services can be judged.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        let first = Key { kind: Kind::Client, name: "".into() };
        let clients = self.objects.range(first..).map_while(|(_, object)| match object {
            Object::Client(client) => Some(client.as_ref()),
            _ => None,
        });
        let permission = |client: &Client| Key { kind: Kind::Permission, name: Permission::name_of(client.identity) };
        clients.filter(move |client| self.objects.contains_key(&permission(client)))
    }

    /// All listeners, by name.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        let first = Key { kind: Kind::Listener, name: "".into() };
        self.objects.range(first..).map_while(|(_, object)| match object {
            Object::Listener(listener) => Some(listener.as_ref()),
            _ => None,
        })
    }

    /// What makes `newer` of it.
    #[must_use]
    pub fn difference(&self, newer: &Self) -> Update {
        let mut update = Update::default();
        for difference in self.objects.diff(&newer.objects) {
            match difference {
                DiffItem::Add(_, object) | DiffItem::Update { new: (_, object), .. } => update.set.push(object.clone()),
                DiffItem::Remove(key, _) => update.remove.push(key.clone()),
            }
        }
        update
    }

    /// Makes the changes of `update`.
    pub fn apply(&mut self, update: Update) {
        for key in &update.remove {
            self.remove(key);
        }
        for object in update.set {
            self.set(object);
        }
    }
}

impl FromIterator<Object> for Snapshot {
    fn from_iter<T: IntoIterator<Item = Object>>(objects: T) -> Self {
        let mut snapshot = Self::default();
        for object in objects {
            snapshot.set(object);
        }
        snapshot
    }
}

/// Changes that come into force together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Objects that are new or other than before.
    pub set: Vec<Object>,
    /// Objects that are gone.
    pub remove: Vec<Key>,
}

impl Update {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}
