// SPDX-License-Identifier: Apache-2.0
//! Definitions as files have them. Numbers of fields never change their meaning: a later version reads the files of an earlier one.

use super::Malformed;
use crate::application::Request;
use crate::names::Peer;
use abi::Addr;
use abi::event::{Event, Verdict};
use model::{Identity, IdentityId, Label, PodName, PolicyKind, Provenance, ProvenanceId, ServiceName, Workload};
use std::sync::Arc;

/// Namespace and name, or kind and name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Name {
    #[prost(string, tag = "1")]
    pub(super) scope: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    /// Of a Service, if it is another one than ours.
    #[prost(string, optional, tag = "3")]
    pub(super) cluster: Option<String>,
}

/// One side of an event.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Side {
    #[prost(fixed64, tag = "1")]
    pub(super) addr_hi: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) addr_lo: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) mac: Vec<u8>,
    #[prost(uint32, tag = "4")]
    pub(super) identity: u32,
    #[prost(uint32, tag = "5")]
    pub(super) endpoint: u32,
    /// Whether the identity has labels that were known.
    #[prost(bool, tag = "6")]
    pub(super) known: bool,
    #[prost(string, repeated, tag = "7")]
    pub(super) labels: Vec<String>,
    #[prost(message, optional, tag = "8")]
    pub(super) pod: Option<Name>,
    #[prost(message, optional, tag = "9")]
    pub(super) workload: Option<Name>,
    #[prost(message, optional, tag = "10")]
    pub(super) service: Option<Name>,
}

/// A rule behind a verdict.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rule {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, tag = "4")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) labels: Vec<String>,
    #[prost(string, tag = "6")]
    pub(super) rule: String,
    #[prost(string, optional, tag = "7")]
    pub(super) log: Option<String>,
    #[prost(uint64, tag = "8")]
    pub(super) revision: u64,
}

/// Labels of the node.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Labels {
    #[prost(string, repeated, tag = "1")]
    pub(super) labels: Vec<String>,
}

/// What events have in common.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Context {
    /// Numbers of sides, from 0 on.
    #[prost(uint64, tag = "1")]
    pub(super) source: u64,
    #[prost(uint64, tag = "2")]
    pub(super) destination: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) xlated_hi: u64,
    #[prost(fixed64, tag = "4")]
    pub(super) xlated_lo: u64,
    #[prost(fixed64, tag = "5")]
    pub(super) asked_hi: u64,
    #[prost(fixed64, tag = "6")]
    pub(super) asked_lo: u64,
    #[prost(uint32, tag = "7")]
    pub(super) ifindex: u32,
    #[prost(string, tag = "8")]
    pub(super) interface: String,
    #[prost(uint32, tag = "9")]
    pub(super) egress: u32,
    /// Outcome and match type.
    #[prost(bytes = "vec", tag = "10")]
    pub(super) egress_verdict: Vec<u8>,
    /// Numbers of rules and labels, from 1 on; 0 is none.
    #[prost(uint64, tag = "11")]
    pub(super) egress_rule: u64,
    #[prost(uint32, tag = "12")]
    pub(super) ingress: u32,
    #[prost(bytes = "vec", tag = "13")]
    pub(super) ingress_verdict: Vec<u8>,
    #[prost(uint64, tag = "14")]
    pub(super) ingress_rule: u64,
    /// Kind, point, reason, protocol, TCP flags, ICMP code, reply, direction.
    #[prost(bytes = "vec", tag = "15")]
    pub(super) shape: Vec<u8>,
    #[prost(uint64, tag = "16")]
    pub(super) labels: u64,
    /// What the event is, if it is no packet.
    #[prost(message, optional, tag = "17")]
    pub(super) request: Option<Request>,
}

/// A side as events and names have it.
pub(super) struct SideRow {
    addr: Addr,
    mac: [u8; 6],
    identity: u32,
    endpoint: u16,
    pub(super) peer: Peer,
}

impl TryFrom<Side> for SideRow {
    type Error = Malformed;

    fn try_from(side: Side) -> Result<Self, Malformed> {
        let labels = side.labels.iter().map(|label| label.parse::<Label>()).collect::<Result<_, _>>();
        let identity = Identity { id: IdentityId(side.identity), labels: labels.map_err(|_| Malformed)? };
        let peer = Peer {
            pod: side.pod.map(|pod| PodName::new(pod.scope, pod.name)),
            workload: side.workload.map(|w| Arc::new(Workload { kind: w.scope, name: w.name })),
            identity: side.known.then(|| Arc::new(identity)),
            service: side.service.map(|s| ServiceName {
                cluster: s.cluster.map(Into::into),
                namespace: s.scope.into(),
                name: s.name.into(),
            }),
        };
        Ok(Self {
            addr: Addr { hi: side.addr_hi, lo: side.addr_lo },
            mac: side.mac.try_into().map_err(|_| Malformed)?,
            identity: side.identity,
            endpoint: side.endpoint.try_into().map_err(|_| Malformed)?,
            peer,
        })
    }
}

impl From<&Provenance> for Rule {
    fn from(rule: &Provenance) -> Self {
        Self {
            id: rule.id.0,
            kind: rule.kind.to_string(),
            namespace: rule.namespace.clone(),
            name: rule.name.clone(),
            labels: rule.labels.clone(),
            rule: rule.rule.clone(),
            log: rule.log.clone(),
            revision: rule.revision,
        }
    }
}

impl TryFrom<Rule> for Provenance {
    type Error = Malformed;

    fn try_from(rule: Rule) -> Result<Self, Malformed> {
        const KINDS: [PolicyKind; 3] =
            [PolicyKind::NetworkPolicy, PolicyKind::CiliumNetworkPolicy, PolicyKind::CiliumClusterwideNetworkPolicy];
        Ok(Self {
            id: ProvenanceId(rule.id),
            kind: KINDS.into_iter().find(|kind| kind.to_string() == rule.kind).ok_or(Malformed)?,
            namespace: rule.namespace,
            name: rule.name,
            labels: rule.labels,
            rule: rule.rule,
            log: rule.log,
            revision: rule.revision,
        })
    }
}

impl Context {
    /// The event that these sides have in common; without time, ports and sizes.
    pub(super) fn event(&self, source: &SideRow, destination: &SideRow) -> Option<Event> {
        let &[kind, point, reason, proto, tcp_flags, icmp_code, reply, direction] = self.shape.as_slice() else {
            return None;
        };
        Some(Event {
            src: source.addr,
            dst: destination.addr,
            src_xlated: Addr { hi: self.xlated_hi, lo: self.xlated_lo },
            dst_orig: Addr { hi: self.asked_hi, lo: self.asked_lo },
            src_mac: source.mac,
            dst_mac: destination.mac,
            src_identity: source.identity,
            dst_identity: destination.identity,
            src_endpoint: source.endpoint,
            dst_endpoint: destination.endpoint,
            ifindex: self.ifindex,
            egress: verdict(self.egress, &self.egress_verdict)?,
            ingress: verdict(self.ingress, &self.ingress_verdict)?,
            kind,
            point,
            reason,
            proto,
            tcp_flags,
            icmp_code,
            reply,
            direction,
            ..Event::default()
        })
    }
}

fn verdict(provenance: u32, parts: &[u8]) -> Option<Verdict> {
    let &[outcome, match_type] = parts else { return None };
    Some(Verdict { provenance, outcome, match_type, pad: 0 })
}
