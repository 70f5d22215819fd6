// SPDX-License-Identifier: Apache-2.0
//! Rules for requests, where they are attached.

use crate::cluster::{self, Owner};
use crate::route::{Attached, Content, Place, Port, table};
use l7::{Attachment, HostMatch, Object, Route, RouteAction, Target, TokenKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The rules of a route; none if it is for connections. `key` is that of session persistence.
pub(super) fn of_route(route: &Attached, key: Option<&TokenKey>) -> Vec<Object> {
    let Content::Requests(rules) = &route.content else { return Vec::new() };
    // Gateways that show backends a certificate have clusters of their own, and so rules of their own.
    let mut by_owner: BTreeMap<Option<Owner>, Tables> = BTreeMap::new();
    for place in route.parents.iter().flat_map(|parent| &parent.places) {
        let (_, owner) = cluster::usage(route, place);
        by_owner.entry(owner).or_default().add(place);
    }
    let mut objects = Vec::new();
    for (owner, tables) in by_owner {
        let own = owner.as_ref().map(|owner| Own { owner, ports: &route.ports });
        let attachments = tables.attachments();
        let suffix = owner.as_ref().map_or_else(String::new, |owner| format!("@{owner}"));
        for (number, rule) in rules.iter().enumerate() {
            objects.push(Object::from(Route {
                name: format!("{} rule {number}{suffix}", route.name).into(),
                attachments: Arc::clone(&attachments),
                matches: Arc::clone(&rule.matches),
                filters: rule.filters.clone(),
                action: keyed(own.as_ref().map_or_else(|| rule.action.clone(), |own| own.action(&rule.action)), key),
                rate_limit: rule.rate_limit.clone(),
            }));
        }
    }
    objects
}

/// Where clients come back to their backend, with the key.
fn keyed(mut action: RouteAction, key: Option<&TokenKey>) -> RouteAction {
    if let RouteAction::Forward(forward) = &mut action
        && forward.persistence.is_some()
    {
        forward.token_key = key.cloned();
    }
    action
}

#[derive(Default)]
struct Tables(BTreeMap<l7::Name, BTreeSet<HostMatch>>);

impl Tables {
    fn add(&mut self, place: &Place) {
        self.0.entry(table(&place.name)).or_default().extend(place.hosts.iter().cloned());
    }

    fn attachments(&self) -> Arc<[Attachment]> {
        let attachment = |(table, hosts): (&l7::Name, &BTreeSet<HostMatch>)| Attachment {
            table: Arc::clone(table),
            hosts: hosts.iter().cloned().collect(),
        };
        self.0.iter().map(attachment).collect()
    }
}

/// A Gateway with clusters of its own.
struct Own<'a> {
    owner: &'a Owner,
    ports: &'a BTreeSet<Port>,
}

impl Own<'_> {
    fn action(&self, action: &RouteAction) -> RouteAction {
        let RouteAction::Forward(forward) = action else { return action.clone() };
        let mut forward = forward.clone();
        for backend in &mut forward.backends {
            if let Target::Cluster(name) = &mut backend.target {
                *name = self.cluster(name);
            }
        }
        for mirror in &mut forward.mirrors {
            mirror.cluster = self.cluster(&mirror.cluster);
        }
        RouteAction::Forward(forward)
    }

    fn cluster(&self, shared: &l7::Name) -> l7::Name {
        let usage = cluster::Use::Requests;
        let port = self.ports.iter().find(|port| cluster::name(port, usage, None) == *shared);
        port.map_or_else(|| Arc::clone(shared), |port| cluster::name(port, usage, Some(self.owner)))
    }
}
