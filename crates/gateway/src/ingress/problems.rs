// SPDX-License-Identifier: Apache-2.0
//! What of Ingresses is not served, for their authors: they have no conditions. It is told of as routes and listeners are made, or not made, of
//! it.

use super::{Ingress, IngressConfig, translate};
use crate::edge;
use crate::name::{ObjectName, ParentName, RouteName};
use crate::objects::Objects;
use crate::resolve::Resolved;
use crate::route::Attached;
use crate::source::KeyPair;
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use statedb::{Index, Inputs, Reader, Tasks};
use std::sync::Arc;

/// Why something is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IngressFault {
    /// An annotation cannot be read, or does not go with others.
    Annotation,
    /// A rule says what cannot be done, such as a path that is no regular expression.
    Rule,
    /// A backend is not there, or is no Service.
    Backend,
    /// A Secret with a certificate is not there, or holds none.
    Certificate,
    /// An older Ingress has the host, or the path of it.
    Host,
}

impl IngressFault {
    const ALL: [Self; 5] = [Self::Annotation, Self::Rule, Self::Backend, Self::Certificate, Self::Host];

    fn reason(self) -> &'static str {
        match self {
            Self::Annotation => "InvalidAnnotation",
            Self::Rule => "InvalidRule",
            Self::Backend => "BackendNotFound",
            Self::Certificate => "CertificateNotFound",
            Self::Host => "HostTaken",
        }
    }
}

/// What of an Ingress is not served for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressProblem {
    /// Namespace and name of the Ingress.
    pub name: ObjectName,
    /// The reason.
    pub fault: IngressFault,
    about: ObjectReference,
    /// What, for people.
    pub notes: Vec<String>,
}

impl statedb::Row for IngressProblem {
    type Key = (ObjectName, IngressFault);
    fn key(&self) -> Self::Key {
        (self.name.clone(), self.fault)
    }
}

impl IngressProblem {
    /// The same for its author.
    #[must_use]
    pub fn warning(&self) -> Warning {
        let (about, note) = (self.about.clone(), self.notes.join("; "));
        Warning { about, reason: self.fault.reason(), action: "Serve", note }
    }
}

/// What only the oldest Ingress of those that share a Gateway has: a path of a host, or how TLS of a host ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    gateway: ObjectName,
    host: Option<String>,
    /// Type and path.
    path: Option<(Option<String>, Option<String>)>,
}

impl Claim {
    fn text(&self) -> String {
        let host = self.host.as_deref().unwrap_or("*");
        match self.path.as_ref().map(|(_, path)| path.as_deref().unwrap_or_default()) {
            Some(path) => format!("host {host}, path {path}"),
            None => format!("TLS of host {host}"),
        }
    }
}

fn claims(config: &IngressConfig, ingress: &Ingress) -> Vec<Claim> {
    let gateway = ingress.gateway(config);
    let tls = translate::hosts_with_tls(config, ingress).into_iter().map(|(host, _)| (host, None));
    let paths = translate::rules(ingress).flat_map(|(host, paths)| {
        let path = |path| translate::path_match(path);
        let paths = paths.into_iter().map(path).map(|path| Some((path.kind, path.value)));
        paths.map(move |path| (host.map(str::to_owned), path)).collect::<Vec<_>>()
    });
    // What nothing else is for, of all hosts.
    let default = ingress
        .spec
        .default_backend
        .iter()
        .map(|_| (None, Some((Some("PathPrefix".to_owned()), Some("/".to_owned())))));
    tls.chain(paths).chain(default).map(|(host, path)| Claim { gateway: gateway.clone(), host, path }).collect()
}

/// Keeps them.
pub(crate) fn derive(
    tasks: &Tasks,
    config: &IngressConfig,
    ingresses: &Reader<Ingress>,
    resolved: &Resolved,
) -> Reader<IngressProblem> {
    let judge = Judge::new(config, ingresses, resolved);
    let row = move |(name, fault): &(ObjectName, IngressFault), _: Option<&IngressProblem>| {
        let ingress = judge.ingresses.snapshot().get(name)?;
        let notes = judge.notes(&ingress, *fault);
        let about = ingress.reference();
        (!notes.is_empty()).then(|| IngressProblem { name: name.clone(), fault: *fault, about, notes })
    };
    statedb::derive(tasks, "ingress-problems", inputs(config, ingresses, resolved), row).rows
}

type Key = (ObjectName, IngressFault);

fn inputs(config: &IngressConfig, ingresses: &Reader<Ingress>, resolved: &Resolved) -> Inputs<Key> {
    let config = config.clone();
    let by_claim = by_claim(&config, ingresses);
    let by_route = {
        let config = config.clone();
        ingresses.index(move |ingress| translate::route_names(&config, ingress))
    };
    let by_secret = {
        let config = config.clone();
        ingresses.index(move |ingress| {
            let hosts = translate::hosts_with_tls(&config, ingress);
            hosts.into_iter().filter_map(|(_, secret)| secret).collect::<Vec<_>>()
        })
    };
    let all = ingresses.clone();
    let of_route = move |name: &RouteName| {
        let ingresses = by_route.get(name);
        let faults = [IngressFault::Rule, IngressFault::Backend];
        ingresses.iter().flat_map(|one| faults.map(|fault| (one.name.clone(), fault))).collect::<Vec<_>>()
    };
    let objects = &resolved.objects;
    Inputs::of(ingresses, move |ingress: &Ingress| {
        let own = IngressFault::ALL.map(|fault| (ingress.name.clone(), fault));
        let rivals = claims(&config, ingress).into_iter().flat_map(|claim| by_claim.get(&claim)).collect::<Vec<_>>();
        let rivals = rivals.iter().map(|one| (one.name.clone(), IngressFault::Host)).collect::<Vec<_>>();
        own.into_iter().chain(rivals).collect::<Vec<_>>()
    })
    .and(&resolved.routes.rows, move |route: &Attached| of_route(&route.name))
    .and(&objects.key_pairs, move |pair: &KeyPair| {
        let ingresses = by_secret.get(&pair.name);
        ingresses.iter().map(|one| (one.name.clone(), IngressFault::Certificate)).collect::<Vec<_>>()
    })
    // Those that stand for Ingresses change with the first or last of a namespace.
    .and(&objects.grants, move |_| {
        all.snapshot().iter().map(|one| (one.name.clone(), IngressFault::Certificate)).collect::<Vec<_>>()
    })
}

fn by_claim(config: &IngressConfig, ingresses: &Reader<Ingress>) -> Index<Ingress, Claim> {
    let config = config.clone();
    ingresses.index(move |ingress| claims(&config, ingress))
}

/// What is to be known to judge.
struct Judge {
    config: IngressConfig,
    ingresses: Reader<Ingress>,
    by_claim: Index<Ingress, Claim>,
    routes: Reader<Attached>,
    objects: Objects,
}

impl Judge {
    fn new(config: &IngressConfig, ingresses: &Reader<Ingress>, resolved: &Resolved) -> Self {
        Self {
            config: config.clone(),
            ingresses: ingresses.clone(),
            by_claim: by_claim(config, ingresses),
            routes: resolved.routes.rows.clone(),
            objects: resolved.objects.clone(),
        }
    }

    fn notes(&self, ingress: &Ingress, fault: IngressFault) -> Vec<String> {
        match fault {
            IngressFault::Annotation => ingress.annotations.problems.clone(),
            IngressFault::Rule => self.routes(ingress).iter().filter_map(|route| rule(route)).collect(),
            IngressFault::Backend => {
                let routes = self.routes(ingress);
                let unresolved = routes.iter().map(|route| &route.resolved).filter(|verdict| !verdict.holds);
                let mut notes: Vec<_> = unresolved.map(|verdict| verdict.message.clone()).collect();
                notes.dedup();
                notes.extend(translate::without_service(ingress));
                notes
            }
            IngressFault::Certificate => self.certificates(ingress),
            IngressFault::Host => self.taken(ingress),
        }
    }

    fn routes(&self, ingress: &Ingress) -> Vec<Arc<Attached>> {
        let routes = self.routes.snapshot();
        translate::route_names(&self.config, ingress).iter().filter_map(|name| routes.get(name)).collect()
    }

    fn certificates(&self, ingress: &Ingress) -> Vec<String> {
        if ingress.annotations.passthrough {
            return Vec::new();
        }
        let owner = ParentName::gateway(&ingress.gateway(&self.config));
        let missing = |(host, secret): (Option<String>, Option<ObjectName>)| {
            let host = host.as_deref().unwrap_or("*");
            let Some(secret) = secret else { return Some(format!("TLS of host {host}: no Secret is named")) };
            let fault = edge::certificate(&self.objects, &owner, &translate::reference(&secret)).err()?;
            Some(format!("TLS of host {host}: {}", fault.message))
        };
        translate::hosts_with_tls(&self.config, ingress).into_iter().filter_map(missing).collect()
    }

    fn taken(&self, ingress: &Ingress) -> Vec<String> {
        let age = |one: &Ingress| (one.meta.created, one.name.clone());
        let taken = claims(&self.config, ingress).into_iter().filter_map(|claim| {
            let rivals = self.by_claim.get(&claim);
            let older = rivals.iter().filter(|one| age(one) < age(ingress)).min_by_key(|one| age(one))?;
            let same = claim.path.is_none() && self.tls(older, &claim) == self.tls(ingress, &claim);
            (!same).then(|| format!("{}: the older Ingress {} has it", claim.text(), older.name))
        });
        taken.collect()
    }

    /// How TLS of a host ends: with which Secret, unless it is passed through.
    fn tls(&self, ingress: &Ingress, claim: &Claim) -> Option<(bool, Option<ObjectName>)> {
        let mut hosts = translate::hosts_with_tls(&self.config, ingress).into_iter();
        let (_, secret) = hosts.find(|(host, _)| *host == claim.host)?;
        Some((ingress.annotations.passthrough, secret.filter(|_| !ingress.annotations.passthrough)))
    }
}

/// What of a route does nothing.
fn rule(route: &Attached) -> Option<String> {
    let refused = route.parents.iter().map(|parent| &parent.accepted).find(|accepted| !accepted.holds);
    let verdict = refused.or(route.partly.as_ref())?;
    Some(format!("{}: {}", translate::told_host(&route.name), verdict.message))
}
