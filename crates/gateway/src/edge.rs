// SPDX-License-Identifier: Apache-2.0
//! A Gateway with the ListenerSets that add to it: which listeners it has, and which of them serve.

mod conflicts;
mod listener;
mod tls;

pub(crate) use listener::{Listener, ListenerName, Protocol};
pub(crate) use tls::{certificate, not_permitted, usable_anchors};

use crate::class;
use crate::ingress;
use crate::name::{ObjectName, ParentKind, ParentName};
use crate::objects::{Objects, Referred};
use crate::source::{Meta, Source};
use crate::verdict::Verdict;
use k8s::gateway::{FromNamespaces, GatewaySpec, ListenerSetSpec};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s::kube::core::{Selector, SelectorExt};
use statedb::Index;
use std::sync::Arc;

/// A Gateway of ours. One row per Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) gateway: ObjectName,
    pub(crate) meta: Meta,
    /// Whether the Gateway can be served, whatever its listeners are.
    pub(crate) accepted: Verdict,
    /// Whether what the Gateway itself refers to is there, if it does refer to something.
    pub(crate) resolved: Option<Verdict>,
    /// Whether it lets in clients whose certificates nobody knows.
    pub(crate) lets_in_unverified: bool,
    /// Secret with the certificate that it shows to backends.
    pub(crate) client_certificate: Option<ObjectName>,
    pub(crate) sets: Vec<AddedSet>,
    /// Of the Gateway and of the sets that are allowed.
    pub(crate) listeners: Vec<Listener>,
}

/// A ListenerSet that wants to add to a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AddedSet {
    pub(crate) name: ObjectName,
    pub(crate) meta: Meta,
    pub(crate) allowed: bool,
}

impl statedb::Row for Edge {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.gateway.clone()
    }
}

impl Edge {
    /// What routes may attach to.
    pub(crate) fn parents(&self) -> impl Iterator<Item = ParentName> + '_ {
        let sets = self.sets.iter().map(|set| ParentName::listener_set(&set.name));
        std::iter::once(ParentName::gateway(&self.gateway)).chain(sets)
    }

    /// The listeners that a parent has.
    pub(crate) fn listeners_of<'a>(&'a self, parent: &'a ParentName) -> impl Iterator<Item = &'a Listener> + 'a {
        self.listeners.iter().filter(move |listener| listener.name.owner == *parent)
    }
}

/// The Gateway that a ListenerSet wants to add to.
pub(crate) fn gateway_of(set: &Source<ListenerSetSpec>) -> Option<ObjectName> {
    let parent = &set.spec.parent_ref;
    let group = parent.group.as_deref().is_none_or(|group| group == k8s::gateway::GROUP);
    let kind = parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
    (group && kind).then(|| ObjectName::referred(&set.name.namespace, parent.namespace.as_deref(), &parent.name))
}

/// The Gateway of that name, if it is ours.
pub(crate) fn resolve(
    objects: &Objects,
    sets: &Index<Source<ListenerSetSpec>, ObjectName>,
    name: &ObjectName,
) -> Option<Edge> {
    let gateway = objects.gateways.snapshot().get(name)?;
    let class = class::of(objects, &gateway)?;
    let mut sets: Vec<_> = sets.get(name);
    sets.sort_by(|a, b| (a.meta.created, &a.name).cmp(&(b.meta.created, &b.name)));
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let allows = |set: &Source<ListenerSetSpec>| {
        allowed.is_some_and(|from| is_from(objects, from, "None", &name.namespace, &set.name.namespace))
    };
    let (allowed, refused): (Vec<_>, Vec<_>) = sets.iter().partition(|set| allows(set));

    let mut listeners = listener::resolve(objects, &gateway, &ParentName::gateway(name), &gateway.spec.listeners);
    for set in &allowed {
        let owner = ParentName::listener_set(&set.name);
        listeners.extend(listener::resolve(objects, &gateway, &owner, &set.spec.listeners));
    }
    conflicts::mark(&mut listeners);
    let (client_certificate, resolved) = client_certificate(objects, &gateway).unzip();
    let added = |allowed: bool| {
        move |set: &&Arc<Source<ListenerSetSpec>>| AddedSet { name: set.name.clone(), meta: set.meta.clone(), allowed }
    };
    Some(Edge {
        gateway: name.clone(),
        meta: gateway.meta.clone(),
        accepted: class.verdict(&gateway.spec),
        resolved,
        lets_in_unverified: tls::lets_in_unverified(&gateway.spec),
        client_certificate: client_certificate.flatten(),
        sets: allowed
            .iter()
            .copied()
            .map(|set| added(true)(&set))
            .chain(refused.iter().copied().map(|set| added(false)(&set)))
            .collect(),
        listeners,
    })
}

/// The certificate that a Gateway shows to backends, and whether it is there.
fn client_certificate(objects: &Objects, gateway: &Source<GatewaySpec>) -> Option<(Option<ObjectName>, Verdict)> {
    let reference = gateway.spec.tls.as_ref()?.backend.as_ref()?.client_certificate_ref.as_ref()?;
    let owner = ParentName::gateway(&gateway.name);
    Some(match tls::certificate(objects, &owner, reference) {
        Ok(name) => (Some(name), Verdict::yes("ResolvedRefs")),
        Err(fault) if fault.reason == tls::INVALID_CERTIFICATE => {
            (None, Verdict::no("InvalidClientCertificateRef", fault.message))
        }
        Err(fault) => (None, fault),
    })
}

/// Whether a choice of namespaces, made in `own`, chooses `other`.
pub(crate) fn is_from(objects: &Objects, from: &FromNamespaces, default: &str, own: &str, other: &Arc<str>) -> bool {
    match from.from.as_deref().unwrap_or(default) {
        "All" => true,
        "Same" => own == other.as_ref(),
        "Selector" => from.selector.as_ref().is_some_and(|selector| selects(objects, selector, other)),
        _ => false,
    }
}

/// Whether a selector selects a namespace. One that cannot be read selects none.
fn selects(objects: &Objects, selector: &LabelSelector, namespace: &Arc<str>) -> bool {
    let Some(namespace) = objects.namespaces.snapshot().get(namespace) else { return false };
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&namespace.labels))
}

/// Whether an object of one of these kinds, which has `namespace`, may refer to another of the core group.
pub(crate) fn may_refer(objects: &Objects, owner: &ParentName, kind: &str, name: &ObjectName) -> bool {
    let kinds: &[&str] = match owner.kind {
        ParentKind::ListenerSet => &["ListenerSet", "XListenerSet"],
        _ if ingress::behind(&owner.name).is_some() => &[ingress::KIND],
        _ => &["Gateway"],
    };
    objects.permits(kinds, &owner.name.namespace, &Referred { group: "", kind, name })
}
