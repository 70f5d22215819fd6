// SPDX-License-Identifier: Apache-2.0
//! What is said of GatewayClasses, Gateways and ListenerSets.

use super::{Status, same};
use crate::edge::{Edge, Listener, ListenerName, Protocol};
use crate::infrastructure::{Closed, Programmed};
use crate::name::{ObjectName, ParentKind, ParentName};
use crate::route::Attached;
use crate::source::Meta;
use crate::verdict::{Verdict, date};
use k8s::gateway::{
    Condition, GatewayAddress, GatewayClassStatus, GatewayStatus, ListenerSetStatus, ListenerStatus, RouteGroupKind,
    StatusAddress,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many routes are attached to each listener.
fn count(routes: &[Arc<Attached>]) -> BTreeMap<&ListenerName, i64> {
    let mut counts = BTreeMap::new();
    for route in routes {
        let places = route.parents.iter().flat_map(|parent| &parent.places);
        let listeners: BTreeSet<_> = places.map(|place| &place.name).collect();
        listeners.into_iter().for_each(|listener| *counts.entry(listener).or_default() += 1);
    }
    counts
}

/// Where a Gateway is reached.
pub(super) struct Reached<'a> {
    pub(super) addresses: &'a [StatusAddress],
    /// Addresses that it wants.
    pub(super) asked: &'a [GatewayAddress],
    pub(super) served: Served<'a>,
}

/// What proxies have of a Gateway or ListenerSet.
#[derive(Clone, Copy)]
pub(super) struct Served<'a> {
    /// None: nobody knows of it.
    pub(super) row: Option<&'a Programmed>,
    /// Nothing is to be waited for.
    pub(super) everywhere: bool,
    /// It is said already that its present state is in force.
    pub(super) told: bool,
}

impl Served<'_> {
    /// Whether proxies serve that state of it. A node that comes later does not take back what has been said.
    fn verdict(self, wanted: &Meta) -> Verdict {
        let programmed = Verdict::yes("Programmed");
        match self.row.filter(|row| row.wanted == *wanted && row.nodes > 0) {
            None => Verdict::no("Pending", "no proxy has it in force yet"),
            Some(row) if row.missing.is_empty() => programmed,
            Some(row) if self.everywhere => programmed.with_message(row.progress()),
            Some(_) if self.told => programmed,
            Some(row) => Verdict::no("Pending", row.progress()),
        }
    }

    fn closed(&self) -> impl Iterator<Item = (&(u16, bool), &Closed)> {
        self.row.into_iter().flat_map(|row| &row.closed)
    }

    /// The same of one of its listeners.
    fn listener(self, listener: &Listener, wanted: &Meta) -> Verdict {
        let port = (listener.port, listener.protocol == Some(Protocol::Udp));
        let closed = self.closed().find(|(closed, _)| **closed == port);
        match closed {
            Some((_, closed)) if closed.everywhere => Verdict::no("Pending", closed.text.clone()),
            Some((_, closed)) => self.verdict(wanted).with_message(closed.text.clone()),
            None => self.verdict(wanted),
        }
    }

    /// The same of a Gateway: of a part of it, if somewhere it is not all of it.
    fn gateway(self, wanted: &Meta) -> Verdict {
        let closed: Vec<_> = self.closed().map(|(_, closed)| closed.text.as_str()).collect();
        if self.closed().any(|(_, closed)| closed.everywhere) {
            return Verdict::no("Pending", closed.join(". "));
        }
        let verdict = self.verdict(wanted);
        if verdict.holds && !closed.is_empty() { verdict.with_message(closed.join(". ")) } else { verdict }
    }
}

pub(super) fn gateway(edge: &Edge, at: &Reached<'_>, routes: &[Arc<Attached>]) -> GatewayStatus {
    let (own, generation) = (ParentName::gateway(&edge.gateway), edge.meta.generation);
    let attached = edge.sets.iter().filter(|set| set.allowed && is_accepted(edge, &set.name));
    let accepted = accepted(edge, &own);
    let programmed = programmed(&accepted, &edge.meta, at);
    let mut conditions =
        vec![accepted.condition("Accepted", generation), programmed.condition("Programmed", generation)];
    conditions.extend(edge.resolved.as_ref().map(|verdict| verdict.condition("ResolvedRefs", generation)));
    if edge.lets_in_unverified {
        let verdict =
            Verdict::yes("ConfigurationChanged").with_message("clients that show no valid certificate are let in");
        conditions.push(verdict.condition("InsecureFrontendValidationMode", generation));
    }
    GatewayStatus {
        addresses: at.addresses.to_vec(),
        conditions,
        listeners: listeners(edge, &own, (&edge.meta, at.served), routes),
        attached_listener_sets: Some(i64::try_from(attached.count()).unwrap_or(i64::MAX)),
    }
}

/// Whether a Gateway, or what adds to it, serves anything.
fn accepted(edge: &Edge, owner: &ParentName) -> Verdict {
    if !edge.accepted.holds {
        return edge.accepted.clone();
    }
    let invalid: Vec<_> =
        edge.listeners_of(owner).filter(|listener| !listener.is_valid()).map(|listener| &*listener.name.name).collect();
    if invalid.is_empty() {
        return Verdict::yes("Accepted");
    }
    let message = format!("not valid: listeners {}", invalid.join(", "));
    if edge.listeners_of(owner).any(Listener::serves) {
        Verdict::yes("ListenersNotValid").with_message(message)
    } else {
        Verdict::no("ListenersNotValid", message)
    }
}

fn programmed(accepted: &Verdict, wanted: &Meta, at: &Reached<'_>) -> Verdict {
    if !accepted.holds {
        return Verdict::no("Invalid", "the Gateway is not accepted");
    }
    if at.addresses.is_empty() {
        return Verdict::no("AddressNotAssigned", "the Gateway has no address yet");
    }
    let asked = at.asked.iter().filter_map(|address| address.value.as_deref()).filter(|value| !value.is_empty());
    let unusable: Vec<_> = asked.filter(|value| !at.addresses.iter().any(|address| address.value == *value)).collect();
    if !unusable.is_empty() {
        return Verdict::no("AddressNotUsable", format!("cannot have the addresses {}", unusable.join(", ")));
    }
    at.served.gateway(wanted)
}

fn is_accepted(edge: &Edge, set: &ObjectName) -> bool {
    set_verdict(edge, &ParentName::listener_set(set)).holds
}

fn set_verdict(edge: &Edge, owner: &ParentName) -> Verdict {
    if !edge.accepted.holds {
        return Verdict::no("ParentNotAccepted", "the Gateway is not accepted");
    }
    accepted(edge, owner)
}

/// Nothing if the set is not of this Gateway.
pub(super) fn listener_set(
    edge: &Edge,
    name: &ObjectName,
    served: Served<'_>,
    routes: &[Arc<Attached>],
) -> Option<ListenerSetStatus> {
    let set = edge.sets.iter().find(|set| set.name == *name)?;
    let owner = ParentName::listener_set(name);
    let accepted = if set.allowed {
        set_verdict(edge, &owner)
    } else {
        Verdict::no("NotAllowed", "the Gateway does not allow ListenerSets of this namespace")
    };
    let programmed = if accepted.holds { served.verdict(&set.meta) } else { accepted.clone() };
    Some(ListenerSetStatus {
        conditions: vec![
            accepted.condition("Accepted", set.meta.generation),
            programmed.condition("Programmed", set.meta.generation),
        ],
        listeners: listeners(edge, &owner, (&set.meta, served), routes),
    })
}

/// `state` is that of their object which is wanted, and what is served of it.
fn listeners(
    edge: &Edge,
    owner: &ParentName,
    state: (&Meta, Served<'_>),
    routes: &[Arc<Attached>],
) -> Vec<ListenerStatus> {
    let counts = count(routes);
    let kind = |kind: &crate::RouteKind| RouteGroupKind {
        group: Some(k8s::gateway::GROUP.to_owned()),
        kind: kind.as_str().to_owned(),
    };
    let status = |listener: &Listener| ListenerStatus {
        name: listener.name.name.to_string(),
        // XListenerSet wants to be told. Who has no field for it drops it.
        port: (owner.kind == ParentKind::ListenerSet).then(|| i64::from(listener.port)),
        supported_kinds: listener.kinds.iter().map(kind).collect(),
        attached_routes: counts.get(&listener.name).copied().unwrap_or_default(),
        conditions: conditions(edge, listener, state),
    };
    edge.listeners_of(owner).map(status).collect()
}

fn conditions(edge: &Edge, listener: &Listener, (wanted, served): (&Meta, Served<'_>)) -> Vec<Condition> {
    let generation = wanted.generation;
    let conflicted = match &listener.conflict {
        Some(conflict) => Verdict { holds: true, ..conflict.clone() },
        None => Verdict::no("NoConflicts", ""),
    };
    let programmed = match &listener.conflict {
        Some(conflict) => conflict.clone(),
        None if listener.serves() && edge.accepted.holds => served.listener(listener, wanted),
        None => Verdict::no("Invalid", "the listener cannot be served"),
    };
    let mut conditions = vec![
        listener.accepted.condition("Accepted", generation),
        conflicted.condition("Conflicted", generation),
        listener.resolved.condition("ResolvedRefs", generation),
        programmed.condition("Programmed", generation),
    ];
    if listener.overlaps {
        let verdict = Verdict::yes("OverlappingHostnames")
            .with_message("other listeners of the port end TLS for some of its host names");
        conditions.push(verdict.condition("OverlappingTLSConfig", generation));
    }
    conditions
}

pub(super) fn correct_class(
    desired: &GatewayClassStatus,
    present: &GatewayClassStatus,
    now: &str,
) -> Option<GatewayClassStatus> {
    let conditions = corrected(&desired.conditions, &present.conditions, now);
    if conditions.is_none() && desired.supported_features == present.supported_features {
        return None;
    }
    let conditions = conditions.unwrap_or_else(|| present.conditions.clone());
    Some(GatewayClassStatus { conditions, ..desired.clone() })
}

/// The conditions as they are to be, with those that others have written, unless ours are there already.
pub(super) fn corrected(desired: &[Condition], present: &[Condition], now: &str) -> Option<Vec<Condition>> {
    if same(desired, &ours(present, desired)) {
        return None;
    }
    let mut conditions = desired.to_vec();
    date(&mut conditions, present, now);
    keep_others(&mut conditions, present, desired);
    Some(conditions)
}

/// Those of the present conditions of which there are desired ones: what others say is theirs.
fn ours(present: &[Condition], desired: &[Condition]) -> Vec<Condition> {
    present.iter().filter(|one| desired.iter().any(|other| other.kind == one.kind)).cloned().collect()
}

fn keep_others(conditions: &mut Vec<Condition>, present: &[Condition], desired: &[Condition]) {
    conditions.extend(present.iter().filter(|one| !desired.iter().any(|other| other.kind == one.kind)).cloned());
}

pub(super) fn correct_gateway(desired: &GatewayStatus, present: &GatewayStatus, now: &str) -> Option<Status> {
    let equal = same(&desired.conditions, &present.conditions)
        && same_listeners(&desired.listeners, &present.listeners)
        && desired.addresses == present.addresses
        // Before Gateway API 1.5 there is no field for it.
        && desired.attached_listener_sets.unwrap_or_default() == present.attached_listener_sets.unwrap_or_default();
    (!equal).then(|| {
        let mut status = desired.clone();
        date(&mut status.conditions, &present.conditions, now);
        date_listeners(&mut status.listeners, &present.listeners, now);
        Status::Gateway(status)
    })
}

pub(super) fn correct_listener_set(
    desired: &ListenerSetStatus,
    present: &ListenerSetStatus,
    now: &str,
) -> Option<Status> {
    let equal =
        same(&desired.conditions, &present.conditions) && same_listeners(&desired.listeners, &present.listeners);
    (!equal).then(|| {
        let mut status = desired.clone();
        date(&mut status.conditions, &present.conditions, now);
        date_listeners(&mut status.listeners, &present.listeners, now);
        Status::ListenerSet(status)
    })
}

fn same_listeners(desired: &[ListenerStatus], present: &[ListenerStatus]) -> bool {
    desired.len() == present.len()
        && desired.iter().zip(present).all(|(desired, present)| {
            let rest =
                |status: &ListenerStatus| ListenerStatus { conditions: Vec::new(), port: None, ..status.clone() };
            rest(desired) == rest(present) && same(&desired.conditions, &present.conditions)
        })
}

fn date_listeners(listeners: &mut [ListenerStatus], present: &[ListenerStatus], now: &str) {
    for listener in listeners {
        let before = present.iter().find(|before| before.name == listener.name);
        date(&mut listener.conditions, before.map_or(&[], |before| &before.conditions), now);
    }
}
