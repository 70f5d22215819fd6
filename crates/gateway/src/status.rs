// SPDX-License-Identifier: Apache-2.0
//! What objects' authors are told: the same tables that are served, as conditions.

mod edges;
mod features;
mod policies;
mod reporter;
mod routes;

pub(crate) use reporter::Reporter;

use crate::name::{ObjectName, ParentKind, ParentName, RouteName};
use crate::objects::Objects;
use crate::resolve::Resolved;
use crate::route::Attached;
use crate::source::Source;
use crate::tls_policy;
use k8s::gateway::{
    Condition, GatewayClassConfigStatus, GatewayClassSpec, GatewayClassStatus, GatewayStatus, ListenerSetStatus,
    PolicyStatus, RouteStatus, StatusAddress,
};
use statedb::{Derived, Inputs, Reader, Tasks};
use std::collections::BTreeSet;

/// The addresses at which a Gateway is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) gateway: ObjectName,
    pub(crate) addresses: Vec<StatusAddress>,
}

impl statedb::Row for Addresses {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.gateway.clone()
    }
}

/// An object that something is said of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A GatewayClass.
    Class(ObjectName),
    /// An XMesh.
    Mesh(ObjectName),
    /// A Gateway.
    Gateway(ObjectName),
    /// A ListenerSet.
    ListenerSet(ObjectName),
    /// A route.
    Route(RouteName),
    /// A BackendTLSPolicy.
    Policy(ObjectName),
    /// A CiliumGatewayClassConfig.
    ClassConfig(ObjectName),
}

/// What is to be said of an object. Conditions have no times; [`Report::correction`] gives them these.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The object.
    pub subject: Subject,
    /// What is to be said of it.
    pub status: Status,
}

/// A status of ours. Of routes and policies it has our entries alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Of a GatewayClass.
    Class(GatewayClassStatus),
    /// Of an XMesh.
    Mesh(GatewayClassStatus),
    /// Of a Gateway.
    Gateway(GatewayStatus),
    /// Of a ListenerSet.
    ListenerSet(ListenerSetStatus),
    /// Of a route.
    Route(RouteStatus),
    /// Of a BackendTLSPolicy.
    Policy(PolicyStatus),
    /// Of a CiliumGatewayClassConfig.
    ClassConfig(GatewayClassConfigStatus),
}

impl statedb::Row for Report {
    type Key = Subject;
    fn key(&self) -> Subject {
        self.subject.clone()
    }
}

/// What is said of an object and is to be said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// What is to be said.
    pub report: Report,
    /// Version of the object in which something else is said.
    pub version: String,
    present: Status,
}

impl statedb::Row for Correction {
    type Key = Subject;
    fn key(&self) -> Subject {
        self.report.subject.clone()
    }
}

impl Correction {
    /// The status that is to be written. `now` is in RFC 3339.
    #[must_use]
    pub fn status(&self, now: &str) -> Option<Status> {
        self.report.correction(&self.present, now)
    }
}

/// Keeps what is to be corrected.
pub(crate) fn correct(tasks: &Tasks, objects: &Objects, reports: &Reader<Report>) -> Reader<Correction> {
    let inputs = Inputs::of(reports, |report: &Report| [report.subject.clone()])
        .and(&objects.classes, |class| [Subject::Class(class.name.clone())])
        .and(&objects.meshes, |mesh| [Subject::Mesh(mesh.name.clone())])
        .and(&objects.gateways, |gateway| [Subject::Gateway(gateway.name.clone())])
        .and(&objects.listener_sets, |set| [Subject::ListenerSet(set.name.clone())])
        .and(&objects.routes, |route| [Subject::Route(route.name.clone())])
        .and(&objects.tls_policies, |policy| [Subject::Policy(policy.name.clone())])
        .and(&objects.parameters, |parameters| [Subject::ClassConfig(parameters.name.clone())]);
    let (objects, reports) = (objects.clone(), reports.clone());
    let row = move |subject: &Subject, _: Option<&Correction>| {
        let report = Report::clone(&*reports.snapshot().get(subject)?);
        let (version, present) = told(&objects, subject)?;
        report.correction(&present, "")?;
        Some(Correction { report, version, present })
    };
    statedb::derive(tasks, "gateway-corrections", inputs, row).rows
}

/// What is said of an object, and in which version of it.
fn told(objects: &Objects, subject: &Subject) -> Option<(String, Status)> {
    match subject {
        Subject::Class(name) => {
            let told = objects.classes.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::Class(told.status)))
        }
        Subject::Mesh(name) => {
            let told = objects.meshes.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::Mesh(told.status)))
        }
        Subject::Gateway(name) => {
            let told = objects.gateways.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::Gateway(told.status)))
        }
        Subject::ListenerSet(name) => {
            let told = objects.listener_sets.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::ListenerSet(told.status)))
        }
        Subject::Route(name) => {
            let told = objects.routes.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::Route(told.status)))
        }
        Subject::Policy(name) => {
            let told = objects.tls_policies.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::Policy(told.status)))
        }
        Subject::ClassConfig(name) => {
            let told = objects.parameters.snapshot().get(name)?.told.clone()?;
            Some((told.version, Status::ClassConfig(told.status)))
        }
    }
}

/// Keeps what is to be said of each object.
pub(crate) fn report(tasks: &Tasks, reporter: Reporter) -> Reader<Report> {
    let edges = reporter.resolved.edges.rows.clone();
    let of_object = move |object: &ParentName| match object.kind {
        ParentKind::Gateway => edges.snapshot().get(&object.name).map(|edge| of_edge(&edge)).unwrap_or_default(),
        ParentKind::ListenerSet => vec![Subject::ListenerSet(object.name.clone())],
        ParentKind::Service => Vec::new(),
    };
    let (of_late, by_missing) = (of_object.clone(), reporter.serving.by_missing());
    let inputs = inputs(&reporter.resolved, &reporter.addresses)
        .and(&reporter.serving.programmed, move |row| of_object(&row.object))
        .and(&reporter.serving.late, move |late| {
            by_missing.get(&late.0).iter().flat_map(|row| of_late(&row.object)).collect::<Vec<_>>()
        });
    let row = move |subject: &Subject, _: Option<&Report>| {
        Some(Report { subject: subject.clone(), status: reporter.status(subject)? })
    };
    let Derived { rows, .. } = statedb::derive(tasks, "gateway-reports", inputs, row);
    rows
}

/// Which reports each row bears on.
fn inputs(resolved: &Resolved, addresses: &Reader<Addresses>) -> Inputs<Subject> {
    let objects = &resolved.objects;
    let classes = objects.classes.clone();
    let by_service = resolved.routes.rows.index(services);
    let policies = objects.tls_policies.index(tls_policy::targets);
    let by_anchors = objects.tls_policies.index(tls_policy::anchors);
    let siblings = policies.clone();
    Inputs::of(&objects.classes, |class: &Source<GatewayClassSpec>| [Subject::Class(class.name.clone())])
        .and(&objects.meshes, |mesh| [Subject::Mesh(mesh.name.clone())])
        .and(&objects.parameters, move |parameters| {
            let classes = classes.snapshot();
            let of_classes = classes.iter().map(|class| Subject::Class(class.name.clone()));
            of_classes.chain([Subject::ClassConfig(parameters.name.clone())]).collect::<Vec<_>>()
        })
        .and(&resolved.edges.rows, of_edge)
        .and(addresses, |row| [Subject::Gateway(row.gateway.clone())])
        // What was said of a route that has no parents of ours any more is to be taken back.
        .and(&objects.routes, |route| [Subject::Route(route.name.clone())])
        .and(&resolved.routes.rows, move |route| {
            let mut subjects = vec![Subject::Route(route.name.clone())];
            for owner in owners(route) {
                subjects.push(owner);
            }
            let targets = services(route).into_iter().flat_map(|service| policies.get(&service));
            subjects.extend(targets.map(|policy| Subject::Policy(policy.name.clone())));
            subjects
        })
        .and(&objects.tls_policies, move |policy| {
            let targets = tls_policy::targets(policy);
            let others = targets.iter().flat_map(|target| siblings.get(target));
            let others = others.map(|policy| Subject::Policy(policy.name.clone()));
            others.chain([Subject::Policy(policy.name.clone())]).collect::<Vec<_>>()
        })
        .and(&objects.anchors, move |anchors| {
            let policies = by_anchors.get(&anchors.name);
            policies.iter().map(|policy| Subject::Policy(policy.name.clone())).collect::<Vec<_>>()
        })
        .and(&objects.services, move |service| {
            let routes = by_service.get(&service.name);
            routes.iter().map(|route| Subject::Route(route.name.clone())).collect::<Vec<_>>()
        })
}

/// A Gateway and its ListenerSets.
fn of_edge(edge: &crate::edge::Edge) -> Vec<Subject> {
    let sets = edge.sets.iter().map(|set| Subject::ListenerSet(set.name.clone()));
    sets.chain([Subject::Gateway(edge.gateway.clone())]).collect()
}

fn services(route: &Attached) -> Vec<ObjectName> {
    route.ports.iter().map(|port| port.service.clone()).collect()
}

/// Gateways and ListenerSets to whose listeners a route is attached.
fn owners(route: &Attached) -> BTreeSet<Subject> {
    let places = route.parents.iter().flat_map(|parent| &parent.places);
    let owners = places.filter_map(|place| match place.name.owner.kind {
        ParentKind::ListenerSet => Some(Subject::ListenerSet(place.name.owner.name.clone())),
        ParentKind::Gateway => Some(Subject::Gateway(place.name.owner.name.clone())),
        // Nothing is said of Services.
        ParentKind::Service => None,
    });
    owners.collect()
}

/// Whether two lists of conditions say the same, whenever they began to hold.
fn same(desired: &[Condition], present: &[Condition]) -> bool {
    desired.len() == present.len()
        && desired.iter().all(|one| {
            let timeless =
                |other: &&Condition| Condition { last_transition_time: String::new(), ..(*other).clone() } == *one;
            present.iter().any(|other| timeless(&other))
        })
}

impl Report {
    /// The status as it is to be written, if what is there says something else. `now` is in RFC 3339.
    #[must_use]
    pub fn correction(&self, present: &Status, now: &str) -> Option<Status> {
        match (&self.status, present) {
            (Status::Class(desired), Status::Class(present)) => {
                edges::correct_class(desired, present, now).map(Status::Class)
            }
            (Status::Mesh(desired), Status::Mesh(present)) => {
                edges::correct_class(desired, present, now).map(Status::Mesh)
            }
            (Status::Gateway(desired), Status::Gateway(present)) => edges::correct_gateway(desired, present, now),
            (Status::ListenerSet(desired), Status::ListenerSet(present)) => {
                edges::correct_listener_set(desired, present, now)
            }
            (Status::Route(desired), Status::Route(present)) => routes::correct(desired, present, now),
            (Status::Policy(desired), Status::Policy(present)) => policies::correct(desired, present, now),
            (Status::ClassConfig(desired), Status::ClassConfig(present)) => {
                let conditions = edges::corrected(&desired.conditions, &present.conditions, now)?;
                Some(Status::ClassConfig(GatewayClassConfigStatus { conditions }))
            }
            _ => None,
        }
    }
}
