// SPDX-License-Identifier: Apache-2.0
//! Turns a kernel event into the flows that clients see: a verdict for each direction whose policy was consulted, and
//! the trace or drop itself.

mod l4;
mod socket;

#[cfg(test)]
mod tests;

use crate::application::Request;
use crate::names::{Names, Peer};
use crate::proto::flow::{
    CiliumEventType, Emitter, Endpoint, Ethernet, Flow, FlowType, Ip, IpVersion, NetworkInterface, Policy, Service,
    TraceObservationPoint, TraceReason, TrafficDirection, Verdict, Workload,
};
use crate::proto::timestamp;
use abi::drop_reason::DropReason;
use abi::event::{Event, kind, outcome, point, trace_reason};
use model::{Identity, LabelSource, Provenance};
use std::sync::Arc;

/// Message type of policy verdicts; the other ones are in `abi`.
pub const POLICY_VERDICT: i32 = 5;

const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CLUSTER: &str = "io.cilium.k8s.policy.cluster";

/// An event as the ring holds it: what the kernel or the proxy said, when, and the names of that moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Nanoseconds since 1970.
    pub(crate) time: i64,
    /// The kernel's record; of a request, its two ends.
    pub(crate) event: Event,
    /// The names.
    pub(crate) names: Names,
    /// The request that it is, if it is one.
    pub(crate) request: Option<Arc<Request>>,
}

impl Record {
    /// How many flows it stands for.
    pub(crate) fn flow_count(&self) -> usize {
        self.request.as_ref().map_or_else(|| flow_count(&self.event), |request| request.flow_count())
    }
}

/// What all flows of this node have in common.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Name of the node as flows carry it.
    pub(crate) node_name: String,
    /// Version of the agent.
    pub(crate) version: String,
    /// Whether verdicts name policies.
    pub(crate) correlate_policies: bool,
    /// Tells this run of the agent from all others.
    pub(crate) instance: u64,
}

impl Decoder {
    /// The flows of the event with this number in the ring.
    pub(crate) fn decode(&self, number: u64, record: &Record) -> Vec<Flow> {
        let mut flows = match (&record.request, record.event.socket()) {
            (Some(request), _) => request.flows(self, record),
            (None, Some(socket)) => self.socket(record, &socket),
            (None, None) => self.packet(record),
        };
        for (index, flow) in flows.iter_mut().enumerate() {
            flow.uuid = self.uuid(number, index);
        }
        flows
    }

    fn packet(&self, record: &Record) -> Vec<Flow> {
        let event = &record.event;
        let base = self.base(record);
        let mut flows = Vec::with_capacity(flow_count(event));
        for direction in [TrafficDirection::Egress, TrafficDirection::Ingress] {
            flows.extend(self.verdict(record, &base, direction));
        }
        flows.push(if event.kind == kind::DROP { drop(event, base) } else { trace(event, base) });
        flows
    }

    /// What the flows of an event have in common.
    pub(crate) fn base(&self, record: &Record) -> Flow {
        let (event, names) = (&record.event, &record.names);
        let (l4, summary) = l4::decode(event);
        Flow {
            time: Some(timestamp(record.time)),
            ethernet: ethernet(event),
            ip: Some(ip(event)),
            l4,
            source: Some(endpoint(event.src_endpoint, event.src_identity, &names.source)),
            destination: Some(endpoint(event.dst_endpoint, event.dst_identity, &names.destination)),
            r#type: FlowType::L3L4.into(),
            node_name: self.node_name.clone(),
            node_labels: names.node_labels.as_deref().map(<[_]>::to_vec).unwrap_or_default(),
            source_service: service(&names.source),
            destination_service: service(&names.destination),
            interface: interface(event, names),
            emitter: Some(Emitter { name: "Hubble".to_owned(), version: self.version.clone() }),
            summary,
            ..Flow::default()
        }
    }

    /// The policy verdict of one direction, if it was consulted.
    fn verdict(&self, record: &Record, base: &Flow, direction: TrafficDirection) -> Option<Flow> {
        let egress = direction == TrafficDirection::Egress;
        let (said, rule) = if egress {
            (record.event.egress, &record.names.egress)
        } else {
            (record.event.ingress, &record.names.ingress)
        };
        let mut flow = Flow {
            event_type: Some(CiliumEventType { r#type: POLICY_VERDICT, sub_type: 0 }),
            traffic_direction: direction.into(),
            policy_match_type: said.match_type.into(),
            is_reply: Some(false),
            ..base.clone()
        };
        let rule = rule.as_ref().filter(|_| self.correlate_policies);
        let policies: Vec<Policy> = rule.iter().map(|rule| policy(rule)).collect();
        flow.policy_log = rule.iter().filter_map(|rule| rule.log.clone()).collect();
        match said.outcome {
            outcome::ALLOW => {
                flow.verdict = Verdict::Forwarded.into();
                if egress {
                    flow.egress_allowed_by = policies;
                } else {
                    flow.ingress_allowed_by = policies;
                }
            }
            outcome::DENY => {
                let reason = if said.provenance == 0 { DropReason::PolicyDenied } else { DropReason::PolicyDeny };
                set_dropped(&mut flow, reason.code());
                if egress {
                    flow.egress_denied_by = policies;
                } else {
                    flow.ingress_denied_by = policies;
                }
            }
            _ => return None,
        }
        Some(flow)
    }

    /// The same each time the same flow is read: random by the run, and different by number and index.
    fn uuid(&self, number: u64, index: usize) -> String {
        let low = (number << 2) | (index as u64 & 3);
        let bytes = uuid::Uuid::from_u64_pair(self.instance, low).into_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// How many flows an event of the kernel stands for.
fn flow_count(event: &Event) -> usize {
    if event.kind == kind::TRACE_SOCK {
        return 2;
    }
    1 + usize::from(event.egress.outcome != outcome::NONE) + usize::from(event.ingress.outcome != outcome::NONE)
}

/// Labels with an identity's namespace and cluster.
pub(crate) fn namespace(identity: &Identity) -> Option<(String, String)> {
    label(identity, NAMESPACE).map(|namespace| (label(identity, CLUSTER).unwrap_or_default(), namespace))
}

fn drop(event: &Event, mut flow: Flow) -> Flow {
    set_dropped(&mut flow, event.reason);
    flow.event_type = Some(CiliumEventType { r#type: kind::DROP.into(), sub_type: event.reason.into() });
    flow.traffic_direction = drop_direction(event).into();
    flow
}

fn drop_direction(event: &Event) -> TrafficDirection {
    match event.direction {
        abi::policy::EGRESS => TrafficDirection::Egress,
        abi::policy::INGRESS => TrafficDirection::Ingress,
        _ if event.src_endpoint != 0 => TrafficDirection::Egress,
        _ => TrafficDirection::Ingress,
    }
}

fn set_dropped(flow: &mut Flow, reason: u8) {
    flow.verdict = Verdict::Dropped.into();
    flow.drop_reason = reason.into();
    // The enumeration uses the datapath's numbers; others are unknown to clients.
    flow.drop_reason_desc = DropReason::from_code(reason).map_or(0, |known| known.code().into());
}

fn trace(event: &Event, mut flow: Flow) -> Flow {
    let reply = event.reply != 0 || event.reason == trace_reason::REPLY;
    flow.verdict = Verdict::Forwarded.into();
    flow.event_type = Some(CiliumEventType { r#type: kind::TRACE.into(), sub_type: event.point.into() });
    flow.trace_observation_point = match event.point {
        point::TO_ENDPOINT => TraceObservationPoint::ToEndpoint.into(),
        other => other.into(),
    };
    let reason = match event.reason {
        trace_reason::NEW => TraceReason::New,
        trace_reason::ESTABLISHED => TraceReason::Established,
        trace_reason::REPLY => TraceReason::Reply,
        trace_reason::RELATED => TraceReason::Related,
        _ => TraceReason::Unknown,
    };
    flow.trace_reason = reason.into();
    if reason == TraceReason::Unknown {
        return flow;
    }
    // The program belongs to the packet's source, unless it was delivering to an endpoint.
    let from_source = event.src_endpoint != 0 && event.point != point::TO_ENDPOINT;
    let egress = from_source != reply || !event.src_xlated.is_none();
    let direction = if egress { TrafficDirection::Egress } else { TrafficDirection::Ingress };
    flow.traffic_direction = direction.into();
    flow.is_reply = Some(reply);
    flow.reply = reply;
    flow
}

fn endpoint(id: u16, identity: u32, peer: &Peer) -> Endpoint {
    let pod = peer.pod.as_ref();
    let labels = peer.identity.as_deref().map(|identity| identity.labels.to_strings()).unwrap_or_default();
    let label = |key| peer.identity.as_deref().and_then(|identity| label(identity, key)).unwrap_or_default();
    Endpoint {
        id: id.into(),
        identity,
        namespace: pod.map_or_else(|| label(NAMESPACE), |pod| pod.namespace.to_string()),
        labels,
        pod_name: pod.map(|pod| pod.name.to_string()).unwrap_or_default(),
        workloads: peer.workload.iter().map(|w| Workload { name: w.name.clone(), kind: w.kind.clone() }).collect(),
        cluster_name: label(CLUSTER),
        vni_id: 0,
    }
}

/// The value of an identity's Kubernetes label.
fn label(identity: &Identity, key: &str) -> Option<String> {
    identity.labels.get(LabelSource::K8s, key).map(|label| label.value.to_string())
}

fn service(peer: &Peer) -> Option<Service> {
    let name = peer.service.as_ref()?;
    Some(Service { name: name.name.to_string(), namespace: name.namespace.to_string() })
}

fn policy(rule: &Provenance) -> Policy {
    Policy {
        name: rule.name.clone(),
        namespace: rule.namespace.clone(),
        labels: rule.labels.clone(),
        revision: rule.revision,
        kind: rule.kind.to_string(),
    }
}

fn ethernet(event: &Event) -> Option<Ethernet> {
    let known = event.src_mac != [0; 6] || event.dst_mac != [0; 6];
    let text = |mac| model::Mac(mac).to_string();
    known.then(|| Ethernet { source: text(event.src_mac), destination: text(event.dst_mac) })
}

fn ip(event: &Event) -> Ip {
    let version = if event.src.is_v4() { IpVersion::IPv4 } else { IpVersion::IPv6 };
    Ip {
        source: event.src.to_string(),
        destination: event.dst.to_string(),
        ip_version: version.into(),
        encrypted: false,
        source_xlated: if event.src_xlated.is_none() { String::new() } else { event.src_xlated.to_string() },
    }
}

fn interface(event: &Event, names: &Names) -> Option<NetworkInterface> {
    (event.ifindex != 0).then(|| NetworkInterface { index: event.ifindex, name: names.interface.to_string() })
}
