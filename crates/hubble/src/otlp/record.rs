// SPDX-License-Identifier: Apache-2.0
//! A flow as a log record of OpenTelemetry: its attributes have the names of the semantic conventions where there are any and begin with
//! `hubble.` where there are none, and its body is the flow as it is in Hubble's API.

use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::layer7::Record;
use crate::proto::flow::{Endpoint, Flow, IpVersion, LostEvent, Policy, TrafficDirection, Verdict};
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::opentelemetry::any_value::Value as Is;
use crate::proto::opentelemetry::{AnyValue, ArrayValue, KeyValue, KeyValueList, LogRecord, SeverityNumber};
use crate::proto::{nanos, to_value};
use serde_json::Value;

/// What a response stands for; what is about nodes is none.
pub(super) fn record(response: &GetFlowsResponse, observed: i64) -> Option<LogRecord> {
    let record = match response.response_types.as_ref()? {
        ResponseTypes::Flow(flow) => of_flow(flow),
        ResponseTypes::LostEvents(lost) => of_loss(lost),
        ResponseTypes::NodeStatus(_) => return None,
    };
    let time = response.time.as_ref().map(nanos).unwrap_or_default();
    Some(LogRecord { time_unix_nano: unsigned(time), observed_time_unix_nano: unsigned(observed), ..record })
}

/// A log record of one attribute; an empty text is none.
pub(super) fn text(key: &str, text: &str) -> Option<KeyValue> {
    (!text.is_empty()).then(|| attribute(key, Is::StringValue(text.to_owned())))
}

fn of_flow(flow: &Flow) -> LogRecord {
    let severity = match flow.verdict() {
        Verdict::Dropped => SeverityNumber::Warn,
        Verdict::Error => SeverityNumber::Error,
        _ => SeverityNumber::Info,
    };
    let body = to_value(flow).ok().and_then(any);
    let trace = flow.trace_context.as_ref().and_then(|trace| trace.parent.as_ref()).map(|parent| &*parent.trace_id);
    LogRecord {
        severity_number: severity.into(),
        severity_text: flow.verdict().as_str_name().to_owned(),
        body,
        attributes: attributes(flow),
        trace_id: trace.and_then(hexadecimal).unwrap_or_default(),
        event_name: "hubble.flow".to_owned(),
        ..LogRecord::default()
    }
}

fn of_loss(lost: &LostEvent) -> LogRecord {
    let (count, source) = (lost.num_events_lost, lost.source().as_str_name());
    LogRecord {
        severity_number: SeverityNumber::Warn.into(),
        severity_text: "EVENTS LOST".to_owned(),
        body: Some(AnyValue { value: Some(Is::StringValue(format!("{count} events were lost"))) }),
        attributes: [number("hubble.lost_events.count", count), text("hubble.lost_events.source", source)]
            .into_iter()
            .flatten()
            .collect(),
        event_name: "hubble.lost_events".to_owned(),
        ..LogRecord::default()
    }
}

fn attributes(flow: &Flow) -> Vec<KeyValue> {
    let ip = flow.ip.as_ref();
    let version = match ip.map(|ip| ip.ip_version()) {
        Some(IpVersion::IPv4) => "ipv4",
        Some(IpVersion::IPv6) => "ipv6",
        _ => "",
    };
    let (protocol, ports) = protocol(flow);
    let port = |key, port: Option<u32>| port.and_then(|port| number(key, port.into()));
    let direction = match flow.traffic_direction() {
        TrafficDirection::Unknown => "",
        known => known.as_str_name(),
    };
    let reason = if flow.drop_reason_desc == 0 { "" } else { flow.drop_reason_desc().as_str_name() };
    let mut all: Vec<_> = [
        ip.and_then(|ip| text("source.address", &ip.source)),
        port("source.port", ports.map(|(from, _)| from)),
        ip.and_then(|ip| text("destination.address", &ip.destination)),
        port("destination.port", ports.map(|(_, to)| to)),
        text("network.type", version),
        text("network.transport", protocol),
        text("hubble.verdict", flow.verdict().as_str_name()),
        text("hubble.drop_reason", reason),
        text("hubble.traffic_direction", direction),
        flow.is_reply.map(|reply| attribute("hubble.is_reply", Is::BoolValue(reply))),
        text("hubble.node.name", &flow.node_name),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.extend(end("source", flow.source.as_ref()));
    all.extend(end("destination", flow.destination.as_ref()));
    all.extend(flow.destination_service.as_ref().and_then(|of| text("hubble.destination.service.name", &of.name)));
    let refused = [&flow.egress_denied_by, &flow.ingress_denied_by].into_iter().flatten();
    all.extend(list("hubble.denied_by", refused.map(policy)));
    all.extend(request(flow));
    all
}

/// The protocol as the conventions write it, and the ports of both ends if it has any.
fn protocol(flow: &Flow) -> (&'static str, Option<(u32, u32)>) {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => ("tcp", Some((tcp.source_port, tcp.destination_port))),
        Some(Protocol::Udp(udp)) => ("udp", Some((udp.source_port, udp.destination_port))),
        Some(Protocol::Sctp(sctp)) => ("sctp", Some((sctp.source_port, sctp.destination_port))),
        Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_)) => ("icmp", None),
        Some(Protocol::Vrrp(_)) => ("vrrp", None),
        Some(Protocol::Igmp(_)) => ("igmp", None),
        None => ("", None),
    }
}

/// Who it is, under names that begin with the side.
fn end(side: &str, endpoint: Option<&Endpoint>) -> Vec<KeyValue> {
    let Some(endpoint) = endpoint else { return Vec::new() };
    let workload = endpoint.workloads.first();
    let named = |name: &str, value: &str| text(&format!("hubble.{side}.{name}"), value);
    let all = [
        named("cluster.name", &endpoint.cluster_name),
        named("namespace.name", &endpoint.namespace),
        named("pod.name", &endpoint.pod_name),
        workload.and_then(|workload| named("workload.kind", &workload.kind)),
        workload.and_then(|workload| named("workload.name", &workload.name)),
        number(&format!("hubble.{side}.identity"), endpoint.identity.into()),
        list(&format!("hubble.{side}.labels"), endpoint.labels.iter().cloned()),
    ];
    all.into_iter().flatten().collect()
}

fn request(flow: &Flow) -> Vec<KeyValue> {
    let Some(Record::Http(http)) = flow.l7.as_ref().and_then(|l7| l7.record.as_ref()) else { return Vec::new() };
    let (name, version) = http.protocol.split_once('/').unwrap_or((&http.protocol, ""));
    let all = [
        text("network.protocol.name", &name.to_lowercase()),
        text("network.protocol.version", version),
        text("http.request.method", &http.method),
        text("url.full", &http.url),
        number("http.response.status_code", http.code.into()).filter(|_| http.code > 0),
    ];
    all.into_iter().flatten().collect()
}

fn policy(policy: &Policy) -> String {
    let Policy { kind, namespace, name, .. } = policy;
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

fn attribute(key: &str, value: Is) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn number(key: &str, number: u64) -> Option<KeyValue> {
    Some(attribute(key, Is::IntValue(i64::try_from(number).unwrap_or(i64::MAX))))
}

/// A list of texts; an empty one is none.
fn list(key: &str, texts: impl Iterator<Item = String>) -> Option<KeyValue> {
    let values: Vec<_> = texts.map(|text| AnyValue { value: Some(Is::StringValue(text)) }).collect();
    (!values.is_empty()).then(|| attribute(key, Is::ArrayValue(ArrayValue { values })))
}

/// A value of JSON; null is none.
fn any(value: Value) -> Option<AnyValue> {
    let value = match value {
        Value::Null => return None,
        Value::Bool(flag) => Is::BoolValue(flag),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Is::IntValue(whole),
            None => Is::DoubleValue(number.as_f64()?),
        },
        Value::String(text) => Is::StringValue(text),
        Value::Array(values) => Is::ArrayValue(ArrayValue { values: values.into_iter().filter_map(any).collect() }),
        Value::Object(fields) => {
            let values = fields.into_iter().map(|(key, value)| KeyValue { key, value: any(value) });
            Is::KvlistValue(KeyValueList { values: values.collect() })
        }
    };
    Some(AnyValue { value: Some(value) })
}

/// The 16 bytes of a trace's identifier.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes().to_vec())
}

fn unsigned(time: i64) -> u64 {
    u64::try_from(time).unwrap_or_default()
}
