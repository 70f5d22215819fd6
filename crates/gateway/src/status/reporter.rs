// SPDX-License-Identifier: Apache-2.0
//! What is to be said of each object, as it follows from what is served.

use super::{Addresses, Status, Subject, edges, features, owners, policies, routes, services};
use crate::class;
use crate::edge::Edge;
use crate::infrastructure::{Programmed, ServiceConfig, Serving};
use crate::name::{ObjectName, ParentName};
use crate::resolve::Resolved;
use crate::route::Attached;
use crate::source::Source;
use crate::tls_policy::{self, Policies};
use k8s::gateway::{Condition, GatewayClassConfigStatus, GatewayClassStatus, SupportedFeature};
use statedb::{Index, Reader};
use std::sync::Arc;

/// What statuses are made of.
pub(crate) struct Reporter {
    pub(super) resolved: Resolved,
    pub(super) addresses: Reader<Addresses>,
    pub(super) serving: Serving,
    /// By the Gateways and ListenerSets that they are attached to.
    attached: Index<Attached, Subject>,
    by_service: Index<Attached, ObjectName>,
    edges_by_set: Index<Edge, ObjectName>,
    policies: Policies,
    features: Vec<SupportedFeature>,
}

impl Reporter {
    pub(crate) fn new(
        resolved: &Resolved,
        addresses: &Reader<Addresses>,
        serving: &Serving,
        config: &ServiceConfig,
    ) -> Self {
        Self {
            features: features::supported(config.app_protocol),
            attached: resolved.routes.rows.index(owners),
            by_service: resolved.routes.rows.index(services),
            edges_by_set: resolved
                .edges
                .rows
                .index(|edge| edge.sets.iter().map(|set| set.name.clone()).collect::<Vec<_>>()),
            policies: Policies::new(&resolved.objects.tls_policies),
            resolved: resolved.clone(),
            addresses: addresses.clone(),
            serving: serving.clone(),
        }
    }

    /// What proxies have of an object.
    fn programmed(&self, object: &ParentName) -> Option<Arc<Programmed>> {
        self.serving.programmed.snapshot().get(object)
    }

    /// The same, with whether it is `said` already that the present state is in force.
    fn served<'a>(&self, row: Option<&'a Programmed>, said: &[Condition]) -> edges::Served<'a> {
        let is_told = |row: &Programmed| {
            said.iter().any(|condition| {
                condition.kind == "Programmed"
                    && condition.status == "True"
                    && condition.observed_generation == Some(row.wanted.generation)
            })
        };
        edges::Served {
            row,
            everywhere: row.is_some_and(|row| self.serving.everywhere(row)),
            told: row.is_some_and(is_told),
        }
    }

    pub(super) fn status(&self, subject: &Subject) -> Option<Status> {
        let objects = &self.resolved.objects;
        match subject {
            Subject::Class(name) => {
                let class = objects.classes.snapshot().get(name).filter(|class| class::is_ours(class))?;
                let accepted = class::verdict(objects, &class).condition("Accepted", class.meta.generation);
                Some(Status::Class(GatewayClassStatus {
                    conditions: vec![accepted],
                    supported_features: self.features.clone(),
                }))
            }
            Subject::Mesh(name) => {
                let mesh = objects.meshes.snapshot().get(name)?;
                let accepted = class::mesh(&mesh.spec)?;
                let conditions = vec![accepted.condition("Accepted", mesh.meta.generation)];
                Some(Status::Mesh(GatewayClassStatus { conditions, supported_features: features::of_mesh() }))
            }
            Subject::Gateway(name) => self.gateway(name),
            Subject::ListenerSet(name) => self.listener_set(name),
            Subject::Route(name) => {
                objects.routes.snapshot().get(name)?;
                let attached = self.resolved.routes.rows.snapshot().get(name);
                Some(Status::Route(attached.map(|route| routes::status(&route)).unwrap_or_default()))
            }
            Subject::Policy(name) => {
                let policy = objects.tls_policies.snapshot().get(name)?;
                let targets = tls_policy::targets(&policy);
                let routes: Vec<Arc<Attached>> =
                    targets.iter().flat_map(|target| self.by_service.get(target)).collect();
                Some(Status::Policy(policies::status(objects, &self.policies, &policy, &routes)))
            }
            Subject::ClassConfig(name) => {
                let parameters = objects.parameters.snapshot().get(name)?;
                let accepted = class::config(&parameters).condition("Accepted", parameters.generation);
                Some(Status::ClassConfig(GatewayClassConfigStatus { conditions: vec![accepted] }))
            }
        }
    }

    fn gateway(&self, name: &ObjectName) -> Option<Status> {
        let edge = self.resolved.edges.rows.snapshot().get(name)?;
        let Source { spec, told, .. } = &*self.resolved.objects.gateways.snapshot().get(name)?;
        let addresses = self.addresses.snapshot().get(name);
        let addresses = addresses.map(|row| row.addresses.clone()).unwrap_or_default();
        let attached = self.attached.get(&Subject::Gateway(name.clone()));
        let row = self.programmed(&ParentName::gateway(name));
        let said = told.as_ref().map_or(&[][..], |told| &told.status.conditions);
        let served = self.served(row.as_deref(), said);
        let at = edges::Reached { addresses: &addresses, asked: &spec.addresses, served };
        Some(Status::Gateway(edges::gateway(&edge, &at, &attached)))
    }

    fn listener_set(&self, name: &ObjectName) -> Option<Status> {
        let edge = self.edges_by_set.get(name).into_iter().next()?;
        let attached = self.attached.get(&Subject::ListenerSet(name.clone()));
        let row = self.programmed(&ParentName::listener_set(name));
        let set = self.resolved.objects.listener_sets.snapshot().get(name)?;
        let said = set.told.as_ref().map_or(&[][..], |told| &told.status.conditions);
        let served = self.served(row.as_deref(), said);
        edges::listener_set(&edge, name, served, &attached).map(Status::ListenerSet)
    }
}
