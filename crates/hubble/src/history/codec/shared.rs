// SPDX-License-Identifier: Apache-2.0
//! What an encoder knows its definitions by. Strings and rows are compared by address, which is quick, and sound as long as the key keeps them
//! alive; equal ones at two addresses are defined twice, which costs a few bytes.

use super::definitions::{Context, Name, Side};
use crate::application::Request;
use crate::names::{InterfaceName, Peer};
use abi::Addr;
use abi::event::{Event, Verdict};
use model::{Identity, Workload};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Shared, and compared by its address.
pub(super) struct ByAddress<T: ?Sized>(pub(super) Arc<T>);

impl<T: ?Sized> PartialEq for ByAddress<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: ?Sized> Eq for ByAddress<T> {}

impl<T: ?Sized> Hash for ByAddress<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).addr().hash(state);
    }
}

/// Namespace and name.
type Names = (ByAddress<str>, ByAddress<str>);

/// One side of an event.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct SideKey {
    addr: Addr,
    mac: [u8; 6],
    identity: u32,
    endpoint: u16,
    labels: Option<ByAddress<Identity>>,
    pod: Option<Names>,
    workload: Option<ByAddress<Workload>>,
    service: Option<(Option<ByAddress<str>>, Names)>,
}

impl SideKey {
    pub(super) fn source(event: &Event, peer: &Peer) -> Self {
        Self::new((event.src, event.src_mac, event.src_identity, event.src_endpoint), peer)
    }

    pub(super) fn destination(event: &Event, peer: &Peer) -> Self {
        Self::new((event.dst, event.dst_mac, event.dst_identity, event.dst_endpoint), peer)
    }

    fn new((addr, mac, identity, endpoint): (Addr, [u8; 6], u32, u16), peer: &Peer) -> Self {
        let names = |a: &Arc<str>, b: &Arc<str>| (ByAddress(Arc::clone(a)), ByAddress(Arc::clone(b)));
        Self {
            addr,
            mac,
            identity,
            endpoint,
            labels: peer.identity.clone().map(ByAddress),
            pod: peer.pod.as_ref().map(|pod| names(&pod.namespace, &pod.name)),
            workload: peer.workload.clone().map(ByAddress),
            service: peer
                .service
                .as_ref()
                .map(|service| (service.cluster.clone().map(ByAddress), names(&service.namespace, &service.name))),
        }
    }

    pub(super) fn definition(&self) -> Side {
        let name = |names: &Names| Name { scope: names.0.0.to_string(), name: names.1.0.to_string(), cluster: None };
        Side {
            addr_hi: self.addr.hi,
            addr_lo: self.addr.lo,
            mac: self.mac.to_vec(),
            identity: self.identity,
            endpoint: self.endpoint.into(),
            known: self.labels.is_some(),
            labels: self.labels.iter().flat_map(|identity| identity.0.labels.to_strings()).collect(),
            pod: self.pod.as_ref().map(name),
            workload: self.workload.as_ref().map(|w| Name {
                scope: w.0.kind.clone(),
                name: w.0.name.clone(),
                cluster: None,
            }),
            service: self.service.as_ref().map(|(cluster, names)| Name {
                cluster: cluster.as_ref().map(|cluster| cluster.0.to_string()),
                ..name(names)
            }),
        }
    }
}

/// All that events have in common that differ in time, ports and size only.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct ContextKey {
    pub(super) sides: [u64; 2],
    /// Of egress and ingress; from 1 on.
    pub(super) rules: [u64; 2],
    /// From 1 on.
    pub(super) labels: u64,
    pub(super) interface: InterfaceName,
    /// See [`without_parts`].
    pub(super) event: Event,
    pub(super) request: Option<ByAddress<Request>>,
}

/// An event without what its sides have, and what it has of its own.
pub(super) fn without_parts(event: &Event) -> Event {
    Event {
        time: 0,
        src: Addr::default(),
        dst: Addr::default(),
        sport: 0,
        dport: 0,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        src_identity: 0,
        dst_identity: 0,
        src_endpoint: 0,
        dst_endpoint: 0,
        len: 0,
        packets: 0,
        ..*event
    }
}

impl ContextKey {
    pub(super) fn definition(&self) -> Context {
        let Event { src_xlated, dst_orig, ifindex, egress, ingress, .. } = self.event;
        let Event { kind, point, reason, proto, tcp_flags, icmp_code, reply, direction, .. } = self.event;
        let [source, destination] = self.sides;
        let [egress_rule, ingress_rule] = self.rules;
        let verdict = |verdict: Verdict| [verdict.outcome, verdict.match_type].to_vec();
        Context {
            source,
            destination,
            xlated_hi: src_xlated.hi,
            xlated_lo: src_xlated.lo,
            asked_hi: dst_orig.hi,
            asked_lo: dst_orig.lo,
            ifindex,
            interface: self.interface.to_string(),
            egress: egress.provenance,
            egress_verdict: verdict(egress),
            egress_rule,
            ingress: ingress.provenance,
            ingress_verdict: verdict(ingress),
            ingress_rule,
            shape: [kind, point, reason, proto, tcp_flags, icmp_code, reply, direction].to_vec(),
            labels: self.labels,
            request: self.request.as_ref().map(|request| Request::clone(&request.0)),
        }
    }
}
