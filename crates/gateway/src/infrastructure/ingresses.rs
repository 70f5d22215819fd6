// SPDX-License-Identifier: Apache-2.0
//! Ingresses are told where they are reached, once a proxy serves them, and at which ports of nodes they are not.

use super::{Programmed, Serving};
use crate::ingress::{Ingress, IngressConfig};
use crate::name::{ObjectName, ParentName};
use crate::status::Addresses;
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::ObjectReference;
use statedb::{Index, Inputs, Reader, Tasks};
use std::sync::Arc;

/// The addresses that the status of an Ingress is to have, and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressAddresses {
    /// Namespace and name of the Ingress.
    pub name: ObjectName,
    /// They.
    pub addresses: Vec<String>,
}

impl statedb::Row for IngressAddresses {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// An Ingress of which some node's proxy cannot have a port.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressClosed {
    /// Namespace and name of the Ingress.
    pub name: ObjectName,
    about: ObjectReference,
    /// The ports with their nodes, and why, for people.
    pub ports: Vec<String>,
}

impl statedb::Row for IngressClosed {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

impl IngressClosed {
    /// The same for its author: an Ingress has no conditions.
    #[must_use]
    pub fn warning(&self) -> Warning {
        let (about, note) = (self.about.clone(), self.ports.join("; "));
        Warning { about, reason: "PortNotOpened", action: "Listen", note }
    }
}

/// Ingresses by the Gateway that stands for them.
fn by_gateway(config: &IngressConfig, ingresses: &Reader<Ingress>) -> Index<Ingress, ObjectName> {
    let config = config.clone();
    ingresses.index(move |ingress| [ingress.gateway(&config)])
}

fn names(ingresses: Vec<Arc<Ingress>>) -> Vec<ObjectName> {
    ingresses.iter().map(|ingress| ingress.name.clone()).collect()
}

/// Keeps which Ingresses are closed somewhere.
pub(super) fn closed(
    tasks: &Tasks,
    config: &IngressConfig,
    ingresses: &Reader<Ingress>,
    programmed: &Reader<Programmed>,
) -> Reader<IngressClosed> {
    let by_gateway = by_gateway(config, ingresses);
    let inputs = Inputs::of(ingresses, |ingress: &Ingress| [ingress.name.clone()])
        .and(programmed, move |row| names(by_gateway.get(&row.object.name)));
    let (config, ingresses, programmed) = (config.clone(), ingresses.clone(), programmed.clone());
    let row = move |name: &ObjectName, _: Option<&IngressClosed>| {
        let ingress = ingresses.snapshot().get(name)?;
        let programmed = programmed.snapshot().get(&ParentName::gateway(&ingress.gateway(&config)))?;
        let ports: Vec<_> = programmed.closed.values().map(|closed| closed.text.clone()).collect();
        (!ports.is_empty()).then(|| IngressClosed { name: name.clone(), about: ingress.reference(), ports })
    };
    statedb::derive(tasks, "ingress-closed", inputs, row).rows
}

/// Keeps which Ingresses are to be told of other addresses.
pub(super) fn derive(
    tasks: &Tasks,
    config: &IngressConfig,
    ingresses: &Reader<Ingress>,
    addresses: &Reader<Addresses>,
    serving: &Serving,
) -> Reader<IngressAddresses> {
    let by_gateway = by_gateway(config, ingresses);
    let [at_gateway, of_late] = std::array::from_fn(|_| by_gateway.clone());
    let by_missing = serving.by_missing();
    let inputs = Inputs::of(ingresses, |ingress: &Ingress| [ingress.name.clone()])
        .and(addresses, move |row| names(at_gateway.get(&row.gateway)))
        .and(&serving.programmed, move |row| names(by_gateway.get(&row.object.name)))
        .and(&serving.late, move |late| {
            by_missing.get(&late.0).iter().flat_map(|row| names(of_late.get(&row.object.name))).collect::<Vec<_>>()
        });
    let (config, ingresses) = (config.clone(), ingresses.clone());
    let (addresses, serving) = (addresses.clone(), serving.clone());
    let row = move |name: &ObjectName, _: Option<&IngressAddresses>| {
        let ingress = ingresses.snapshot().get(name)?;
        let gateway = ingress.gateway(&config);
        let programmed = serving.programmed.snapshot().get(&ParentName::gateway(&gateway));
        // Once told, it is true for as long as one node serves it.
        let told = !ingress.addresses.is_empty();
        let served = programmed.is_some_and(|row| serving.everywhere(&row) || (told && row.nodes > 0));
        let reached = addresses.snapshot().get(&gateway).filter(|_| served);
        let reached = reached.iter().flat_map(|row| &row.addresses).map(|address| address.value.clone());
        let reached: Vec<String> = reached.collect();
        (reached != ingress.addresses).then(|| IngressAddresses { name: name.clone(), addresses: reached })
    };
    statedb::derive(tasks, "ingress-addresses", inputs, row).rows
}
