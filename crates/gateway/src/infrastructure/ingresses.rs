// SPDX-License-Identifier: Apache-2.0
//! Ingresses are told where they are reached, once a proxy serves them.

use super::Programmed;
use crate::ingress::{Ingress, IngressConfig};
use crate::name::{ObjectName, ParentName};
use crate::status::Addresses;
use statedb::{Inputs, Reader, Tasks};
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

pub(super) fn derive(
    tasks: &Tasks,
    config: &IngressConfig,
    ingresses: &Reader<Ingress>,
    addresses: &Reader<Addresses>,
    programmed: &Reader<Programmed>,
) -> Reader<IngressAddresses> {
    let gateway = {
        let config = config.clone();
        move |ingress: &Ingress| ingress.gateway(&config)
    };
    let by_gateway = ingresses.index({
        let gateway = gateway.clone();
        move |ingress| [gateway(ingress)]
    });
    let names = |found: Vec<Arc<Ingress>>| found.iter().map(|ingress| ingress.name.clone()).collect::<Vec<_>>();
    let at_gateway = by_gateway.clone();
    let inputs = Inputs::of(ingresses, |ingress: &Ingress| [ingress.name.clone()])
        .and(addresses, move |row| names(at_gateway.get(&row.gateway)))
        .and(programmed, move |row| names(by_gateway.get(&row.object.name)));
    let (ingresses, addresses, programmed) = (ingresses.clone(), addresses.clone(), programmed.clone());
    let row = move |name: &ObjectName, _: Option<&IngressAddresses>| {
        let ingress = ingresses.snapshot().get(name)?;
        let gateway = gateway(&ingress);
        let programmed = programmed.snapshot().get(&ParentName::gateway(&gateway));
        let served = programmed.is_some_and(|row| row.generation.is_some());
        let reached = addresses.snapshot().get(&gateway).filter(|_| served);
        let reached = reached.iter().flat_map(|row| &row.addresses).map(|address| address.value.clone());
        let reached: Vec<String> = reached.collect();
        (reached != ingress.addresses).then(|| IngressAddresses { name: name.clone(), addresses: reached })
    };
    statedb::derive(tasks, "ingress-addresses", inputs, row).rows
}
