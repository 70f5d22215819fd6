// SPDX-License-Identifier: Apache-2.0
//! Events in, flows out.

mod recorded;
mod sockets;

use super::*;
use crate::fixture;
use crate::names::Resolver;
use crate::proto::{timestamp, to_json};

fn decode(event: Event) -> Vec<Flow> {
    fixture::decoder().decode(7, &fixture::record(event))
}

/// Without what differs from run to run.
fn json(flow: &Flow) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(&to_json(flow).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("uuid");
    value
}

#[test]
fn a_syn_denied_by_default_is_a_verdict_and_a_drop_with_both_pods_named() {
    let flows = decode(fixture::denied_syn());
    assert_eq!(flows.len(), 2);
    let verdict = &flows[0];
    assert_eq!(verdict.event_type, Some(CiliumEventType { r#type: 5, sub_type: 0 }));
    assert_eq!(verdict.traffic_direction(), TrafficDirection::Ingress);
    assert_eq!((verdict.is_reply, verdict.drop_reason), (Some(false), 133));
    let expected: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/drop.json")).unwrap();
    assert_eq!(json(&flows[1]), expected);
}

#[test]
fn a_forwarded_syn_names_service_workload_and_the_policies_that_allowed_it() {
    let flows = decode(fixture::allowed_syn());
    let [egress, ingress, trace] = flows.as_slice() else { panic!("{} flows", flows.len()) };
    assert_eq!(egress.egress_allowed_by[0].name, "let-web-out");
    assert_eq!(egress.policy_log, ["audited"]);
    assert_eq!(ingress.ingress_allowed_by[0].kind, "CiliumNetworkPolicy");
    assert_eq!(ingress.policy_match_type, 2);
    let expected: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/trace.json")).unwrap();
    assert_eq!(json(trace), expected);
}

#[test]
fn a_pod_of_another_cluster_is_not_the_one_here_that_has_its_name() {
    let mut writers = fixture::tables();
    let mut workloads_in = |cluster: &str| {
        let mut entry = fixture::ip_entry("10.0.1.20", 301, "web-1");
        entry.pod.as_mut().unwrap().cluster = cluster.into();
        writers.ipcache.insert(entry);
        writers.ipcache.commit();
        let event = fixture::denied_syn();
        let names = Resolver::new(writers.tables.clone(), fixture::node_name()).names(&event);
        let flow = fixture::decoder().decode(7, &Record { names, ..fixture::record(event) }).pop().unwrap();
        let source = flow.source.unwrap();
        (source.pod_name, source.workloads.len())
    };
    assert_eq!(workloads_in("blue"), ("web-1".to_owned(), 1));
    assert_eq!(workloads_in("red"), ("web-1".to_owned(), 0));
}

#[test]
fn an_explicit_deny_is_told_apart_from_a_missing_allow() {
    let mut event = fixture::denied_syn();
    event.ingress.provenance = 2;
    let flows = decode(event);
    assert_eq!(flows[0].drop_reason_desc().as_str_name(), "POLICY_DENY");
    assert_eq!(flows[0].ingress_denied_by[0].name, "let-web-out");
}

#[test]
fn a_trace_knows_its_direction_from_where_it_was_seen() {
    let direction = |point, src_endpoint, reply| {
        let event =
            Event { point, src_endpoint, reply, reason: if reply == 1 { 2 } else { 0 }, ..fixture::allowed_syn() };
        decode(event).pop().unwrap().traffic_direction()
    };
    assert_eq!(direction(point::TO_OVERLAY, 10, 0), TrafficDirection::Egress);
    assert_eq!(direction(point::TO_ENDPOINT, 10, 0), TrafficDirection::Ingress);
    assert_eq!(direction(point::TO_ENDPOINT, 0, 0), TrafficDirection::Ingress);
    assert_eq!(direction(point::TO_OVERLAY, 10, 1), TrafficDirection::Ingress);
    assert_eq!(direction(point::TO_ENDPOINT, 0, 1), TrafficDirection::Egress);
}

#[test]
fn the_pre_translation_source_is_shown_beside_the_translated_one() {
    let event = Event { src_xlated: fixture::addr("192.168.0.1"), point: point::TO_NETWORK, ..fixture::allowed_syn() };
    let flow = decode(event).pop().unwrap();
    let ip = flow.ip.clone().unwrap();
    assert_eq!((ip.source.as_str(), ip.source_xlated.as_str()), ("10.0.0.10", "192.168.0.1"));
    assert_eq!(flow.traffic_direction(), TrafficDirection::Egress);
}

#[test]
fn the_same_flow_has_the_same_identifier_each_time_it_is_read() {
    let decoder = fixture::decoder();
    let record = fixture::record(fixture::allowed_syn());
    let ids = |number| decoder.decode(number, &record).into_iter().map(|f| f.uuid).collect::<Vec<_>>();
    assert_eq!(ids(7), ids(7));
    let mut all = [ids(7), ids(8)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6);
}

#[test]
fn protocols_are_summarised_in_words() {
    let summary = |event: Event| decode(event).pop().unwrap().summary;
    let icmp = |proto, kind, code| Event { proto, tcp_flags: kind, icmp_code: code, ..fixture::allowed_syn() };
    assert_eq!(summary(Event { tcp_flags: 0x18, ..fixture::allowed_syn() }), "TCP Flags: ACK, PSH");
    assert_eq!(summary(Event { proto: 17, ..fixture::allowed_syn() }), "UDP");
    assert_eq!(summary(icmp(1, 8, 0)), "ICMPv4 EchoRequest");
    assert_eq!(summary(icmp(1, 3, 3)), "ICMPv4 DestinationUnreachable(Port)");
    assert_eq!(summary(icmp(58, 135, 0)), "ICMPv6 NeighborSolicitation");
    assert_eq!(summary(icmp(1, 77, 1)), "ICMPv4 77(1)");
    assert_eq!([2, 112, 132, 47].map(|proto| summary(icmp(proto, 0, 0))), ["IGMP", "VRRP", "SCTP", "IP protocol 47"]);
    let known = |proto| decode(icmp(proto, 0, 0)).pop().unwrap().l4.is_some();
    assert_eq!([2, 112, 132, 47].map(known), [true, true, true, false]);
}

#[test]
fn every_drop_reason_has_the_name_that_the_protocol_gives_it() {
    for &reason in DropReason::ALL {
        let flow = decode(Event { reason: reason.code(), ..fixture::denied_syn() }).pop().unwrap();
        assert_eq!(flow.drop_reason_desc().as_str_name(), reason.proto_name());
        assert_eq!(flow.drop_reason, u32::from(reason.code()));
    }
    let unknown = decode(Event { reason: 250, ..fixture::denied_syn() }).pop().unwrap();
    assert_eq!((unknown.drop_reason, unknown.drop_reason_desc), (250, 0));
}

#[test]
fn an_address_without_a_name_is_still_a_flow() {
    let event = Event {
        src: fixture::addr("fd00::99"),
        dst: fixture::addr("fd00::1"),
        src_endpoint: 999,
        src_identity: 4711,
        dst_identity: 0,
        ifindex: 0,
        src_mac: [0; 6],
        dst_mac: [0; 6],
        ..fixture::allowed_syn()
    };
    let flow = decode(event).pop().unwrap();
    let source = flow.source.clone().unwrap();
    assert_eq!((source.id, source.identity, source.pod_name.as_str()), (999, 4711, ""));
    assert_eq!(flow.ip.clone().unwrap().ip_version(), IpVersion::IPv6);
    assert_eq!((flow.ethernet.clone(), flow.interface.clone()), (None, None));
}

#[test]
fn nanoseconds_before_1970_do_not_break_timestamps() {
    assert_eq!(timestamp(-1), prost_types::Timestamp { seconds: -1, nanos: 999_999_999 });
}

#[test]
fn a_drop_has_the_direction_that_the_programs_tell_and_else_the_source_s_if_that_is_local() {
    let direction = |direction, src_endpoint| {
        let ingress = abi::event::Verdict::default();
        let event = Event { direction, src_endpoint, ingress, ..fixture::denied_syn() };
        decode(event).pop().unwrap().traffic_direction()
    };
    assert_eq!(direction(abi::policy::EGRESS, 0), TrafficDirection::Egress);
    assert_eq!(direction(abi::policy::INGRESS, 10), TrafficDirection::Ingress);
    assert_eq!(direction(u8::MAX, 10), TrafficDirection::Egress);
    assert_eq!(direction(u8::MAX, 0), TrafficDirection::Ingress);
}

#[test]
fn a_trace_says_what_the_connection_table_knew() {
    let trace = |reason, reply| decode(Event { reason, reply, ..fixture::allowed_syn() }).pop().unwrap();
    for (reason, name, reply) in [
        (trace_reason::NEW, TraceReason::New, Some(false)),
        (trace_reason::ESTABLISHED, TraceReason::Established, Some(false)),
        (trace_reason::REPLY, TraceReason::Reply, Some(true)),
        (trace_reason::RELATED, TraceReason::Related, Some(false)),
        (5, TraceReason::Unknown, None),
    ] {
        let flow = trace(reason, 0);
        assert_eq!((flow.trace_reason(), flow.is_reply), (name, reply));
        assert_eq!(flow.traffic_direction() == TrafficDirection::Unknown, reply.is_none());
    }
    assert_eq!(trace(trace_reason::ESTABLISHED, 1).is_reply, Some(true));
}

#[test]
fn services_are_named_on_the_side_that_has_their_address() {
    let to = decode(fixture::allowed_syn()).pop().unwrap();
    assert_eq!((to.source_service, to.destination_service.unwrap().name.as_str()), (None, "db"));
    let (service, none) = (fixture::addr("10.96.0.5"), abi::Addr::default());
    let from = Event { src: service, sport: 5432_u16.to_be(), dst_orig: none, ..fixture::allowed_syn() };
    let from = decode(from).pop().unwrap();
    assert_eq!((from.source_service.unwrap().name.as_str(), from.destination_service), ("db", None));
    let untranslated = Event { dst: service, dst_orig: none, ..fixture::allowed_syn() };
    assert_eq!(decode(untranslated).pop().unwrap().destination_service.unwrap().name, "db");
    let other = Event { proto: 17, ..fixture::allowed_syn() };
    assert_eq!(decode(other).pop().unwrap().destination_service, None);
}

#[test]
fn reserved_identities_have_their_labels() {
    let event = Event { src_identity: 1, dst_identity: 7, src_endpoint: 0, ..fixture::allowed_syn() };
    let flow = decode(event).pop().unwrap();
    assert_eq!(flow.source.unwrap().labels, ["reserved:host"]);
    assert_eq!(flow.destination.unwrap().labels, ["reserved:kube-apiserver", "reserved:remote-node"]);
}

#[test]
fn one_hardware_address_is_enough_to_show_both() {
    for (src_mac, dst_mac) in [([0; 6], [2; 6]), ([2; 6], [0; 6])] {
        let flow = decode(Event { src_mac, dst_mac, ..fixture::allowed_syn() }).pop().unwrap();
        let ethernet = flow.ethernet.unwrap();
        assert_eq!(
            (ethernet.source, ethernet.destination),
            (model::Mac(src_mac).to_string(), model::Mac(dst_mac).to_string())
        );
    }
}

#[test]
fn as_many_flows_are_announced_as_are_made() {
    let nothing = Event { kind: kind::TRACE, ..Event::default() };
    for event in [fixture::allowed_syn(), fixture::denied_syn(), nothing, fixture::connected().into()] {
        assert_eq!(flow_count(&event), decode(event).len());
    }
}

#[test]
fn messages_of_icmp_have_their_published_names() {
    let name = |proto, kind, code| {
        let event = Event { proto, tcp_flags: kind, icmp_code: code, ..fixture::allowed_syn() };
        let summary = decode(event).pop().unwrap().summary;
        summary.split_once(' ').unwrap().1.to_owned()
    };
    for (kind, code, want) in [
        (0, 0, "EchoReply"),
        (3, 0, "DestinationUnreachable(Net)"),
        (3, 4, "DestinationUnreachable(FragmentationNeeded)"),
        (3, 13, "DestinationUnreachable(13)"),
        (4, 0, "SourceQuench"),
        (5, 1, "Redirect(Host)"),
        (9, 0, "RouterAdvertisement"),
        (10, 0, "RouterSolicitation"),
        (11, 0, "TimeExceeded(TTLExceeded)"),
        (12, 0, "ParameterProblem"),
        (12, 2, "ParameterProblem(2)"),
        (13, 0, "TimestampRequest"),
        (14, 0, "TimestampReply"),
    ] {
        assert_eq!(name(1, kind, code), want);
    }
    for (kind, code, want) in [
        (1, 4, "DestinationUnreachable(Port)"),
        (2, 0, "PacketTooBig"),
        (3, 0, "TimeExceeded(HopLimitExceeded)"),
        (4, 0, "ParameterProblem"),
        (128, 0, "EchoRequest"),
        (129, 0, "EchoReply"),
        (130, 0, "MLDv1MulticastListenerQueryMessage"),
        (131, 0, "MLDv1MulticastListenerReportMessage"),
        (132, 0, "MLDv1MulticastListenerDoneMessage"),
        (133, 0, "RouterSolicitation"),
        (134, 0, "RouterAdvertisement"),
        (136, 0, "NeighborAdvertisement"),
        (137, 0, "Redirect"),
        (143, 0, "MLDv2MulticastListenerReportMessageV2"),
    ] {
        assert_eq!(name(58, kind, code), want);
    }
}
