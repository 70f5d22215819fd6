// SPDX-License-Identifier: Apache-2.0
//! What of a flow is in which column of a table. A column has no value where the flow has none: an empty name is none.

use super::super::print::{path, ports};
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::layer7::Record;
use hubble::proto::flow::{Dns, Endpoint, Flow, Http, Kafka, L7FlowType, Policy, Service, Workload};
use hubble::proto::nanos;

/// How a column's value is read from a flow.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Nanoseconds since 1970.
    Time(fn(&Flow) -> Option<i64>),
    Number(fn(&Flow) -> Option<u32>),
    Long(fn(&Flow) -> Option<u64>),
    Flag(fn(&Flow) -> Option<bool>),
    Text(fn(&Flow) -> Option<String>),
    Texts(fn(&Flow) -> Vec<String>),
}

use Column::{Flag, Long, Number, Text, Texts, Time};

/// All columns, in the order of the file. Names are not taken back: readers ask by them.
pub(super) const COLUMNS: &[(&str, Column)] = &[
    ("time", Time(|flow| flow.time.as_ref().map(nanos))),
    ("uuid", Text(|flow| text(&flow.uuid))),
    ("node_name", Text(|flow| text(&flow.node_name))),
    ("type", Text(|flow| text(flow.r#type().as_str_name()))),
    ("verdict", Text(|flow| text(flow.verdict().as_str_name()))),
    ("drop_reason", Text(drop_reason)),
    ("drop_reason_code", Number(|flow| Some(flow.drop_reason).filter(|code| *code != 0))),
    ("event_type", Number(|flow| flow.event_type.map(|event| event.r#type.cast_unsigned()))),
    ("event_sub_type", Number(|flow| flow.event_type.map(|event| event.sub_type.cast_unsigned()))),
    ("traffic_direction", Text(|flow| text(flow.traffic_direction().as_str_name()))),
    ("is_reply", Flag(|flow| flow.is_reply)),
    ("summary", Text(|flow| text(&flow.summary))),
    ("protocol", Text(protocol)),
    ("tcp_flags", Texts(tcp_flags)),
    ("icmp_type", Number(|flow| icmp(flow).map(|(kind, _)| kind))),
    ("icmp_code", Number(|flow| icmp(flow).map(|(_, code)| code))),
    ("source_ip", Text(|flow| flow.ip.as_ref().and_then(|ip| text(&ip.source)))),
    ("source_ip_translated", Text(|flow| flow.ip.as_ref().and_then(|ip| text(&ip.source_xlated)))),
    ("source_port", Number(|flow| ports(flow).0)),
    ("source_identity", Number(|flow| flow.source.as_ref().map(|end| end.identity))),
    ("source_cluster", Text(|flow| end(&flow.source, |end| &end.cluster_name))),
    ("source_namespace", Text(|flow| end(&flow.source, |end| &end.namespace))),
    ("source_pod", Text(|flow| end(&flow.source, |end| &end.pod_name))),
    ("source_workload", Text(|flow| workload(&flow.source))),
    ("source_service", Text(|flow| service(flow.source_service.as_ref()))),
    ("source_names", Texts(|flow| flow.source_names.clone())),
    ("source_labels", Texts(|flow| labels(&flow.source))),
    ("destination_ip", Text(|flow| flow.ip.as_ref().and_then(|ip| text(&ip.destination)))),
    ("destination_port", Number(|flow| ports(flow).1)),
    ("destination_identity", Number(|flow| flow.destination.as_ref().map(|end| end.identity))),
    ("destination_cluster", Text(|flow| end(&flow.destination, |end| &end.cluster_name))),
    ("destination_namespace", Text(|flow| end(&flow.destination, |end| &end.namespace))),
    ("destination_pod", Text(|flow| end(&flow.destination, |end| &end.pod_name))),
    ("destination_workload", Text(|flow| workload(&flow.destination))),
    ("destination_service", Text(|flow| service(flow.destination_service.as_ref()))),
    ("destination_names", Texts(|flow| flow.destination_names.clone())),
    ("destination_labels", Texts(|flow| labels(&flow.destination))),
    ("interface", Text(|flow| flow.interface.as_ref().and_then(|interface| text(&interface.name)))),
    ("policy_match_type", Number(|flow| Some(flow.policy_match_type).filter(|kind| *kind != 0))),
    ("egress_allowed_by", Texts(|flow| policies(&flow.egress_allowed_by))),
    ("ingress_allowed_by", Texts(|flow| policies(&flow.ingress_allowed_by))),
    ("egress_denied_by", Texts(|flow| policies(&flow.egress_denied_by))),
    ("ingress_denied_by", Texts(|flow| policies(&flow.ingress_denied_by))),
    ("policy_log", Texts(|flow| flow.policy_log.clone())),
    ("l7_type", Text(|flow| flow.l7.as_ref().and_then(|l7| text(l7.r#type().as_str_name())))),
    ("latency_ns", Long(|flow| flow.l7.as_ref().map(|l7| l7.latency_ns).filter(|latency| *latency > 0))),
    ("http_method", Text(|flow| http(flow).and_then(|http| text(&http.method)))),
    ("http_url", Text(|flow| http(flow).and_then(|http| text(&http.url)))),
    ("http_protocol", Text(|flow| http(flow).and_then(|http| text(&http.protocol)))),
    ("http_code", Number(|flow| http(flow).map(|http| http.code).filter(|code| *code > 0))),
    ("http_headers", Texts(headers)),
    ("dns_query", Text(|flow| dns(flow).and_then(|dns| text(&dns.query)))),
    ("dns_query_types", Texts(|flow| dns(flow).map(|dns| dns.qtypes.clone()).unwrap_or_default())),
    ("dns_rcode", Number(|flow| dns(flow).filter(|_| answers(flow)).map(|dns| dns.rcode))),
    ("dns_ips", Texts(|flow| dns(flow).map(|dns| dns.ips.clone()).unwrap_or_default())),
    ("kafka_api_key", Text(|flow| kafka(flow).and_then(|kafka| text(&kafka.api_key)))),
    ("kafka_topic", Text(|flow| kafka(flow).and_then(|kafka| text(&kafka.topic)))),
    ("trace_id", Text(|flow| flow.trace_context.as_ref()?.parent.as_ref().and_then(|parent| text(&parent.trace_id)))),
];

fn text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn drop_reason(flow: &Flow) -> Option<String> {
    (flow.drop_reason_desc != 0).then(|| flow.drop_reason_desc().as_str_name().to_owned())
}

fn protocol(flow: &Flow) -> Option<String> {
    let name = match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(_) => "TCP",
        Protocol::Udp(_) => "UDP",
        Protocol::Sctp(_) => "SCTP",
        Protocol::IcmPv4(_) => "ICMPv4",
        Protocol::IcmPv6(_) => "ICMPv6",
        Protocol::Vrrp(_) => "VRRP",
        Protocol::Igmp(_) => "IGMP",
    };
    Some(name.to_owned())
}

fn tcp_flags(flow: &Flow) -> Vec<String> {
    let Some(Protocol::Tcp(tcp)) = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) else { return Vec::new() };
    let flags = tcp.flags.unwrap_or_default();
    let all = [
        (flags.fin, "FIN"),
        (flags.syn, "SYN"),
        (flags.rst, "RST"),
        (flags.psh, "PSH"),
        (flags.ack, "ACK"),
        (flags.urg, "URG"),
        (flags.ece, "ECE"),
        (flags.cwr, "CWR"),
        (flags.ns, "NS"),
    ];
    all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()).collect()
}

/// Type and code.
fn icmp(flow: &Flow) -> Option<(u32, u32)> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::IcmPv4(icmp) => Some((icmp.r#type, icmp.code)),
        Protocol::IcmPv6(icmp) => Some((icmp.r#type, icmp.code)),
        _ => None,
    }
}

fn end(end: &Option<Endpoint>, field: fn(&Endpoint) -> &String) -> Option<String> {
    end.as_ref().and_then(|end| text(field(end)))
}

fn labels(end: &Option<Endpoint>) -> Vec<String> {
    end.as_ref().map(|end| end.labels.clone()).unwrap_or_default()
}

/// Such as `Deployment/web`; a pod has one.
fn workload(end: &Option<Endpoint>) -> Option<String> {
    end.as_ref()?.workloads.first().map(|Workload { kind, name }| path(kind, name))
}

fn service(service: Option<&Service>) -> Option<String> {
    service.map(|service| path(&service.namespace, &service.name))
}

fn policies(policies: &[Policy]) -> Vec<String> {
    policies.iter().map(|Policy { kind, namespace, name, .. }| format!("{kind} {}", path(namespace, name))).collect()
}

fn http(flow: &Flow) -> Option<&Http> {
    match flow.l7.as_ref()?.record.as_ref()? {
        Record::Http(http) => Some(http),
        _ => None,
    }
}

fn dns(flow: &Flow) -> Option<&Dns> {
    match flow.l7.as_ref()?.record.as_ref()? {
        Record::Dns(dns) => Some(dns),
        _ => None,
    }
}

fn kafka(flow: &Flow) -> Option<&Kafka> {
    match flow.l7.as_ref()?.record.as_ref()? {
        Record::Kafka(kafka) => Some(kafka),
        _ => None,
    }
}

fn answers(flow: &Flow) -> bool {
    flow.l7.as_ref().is_some_and(|l7| l7.r#type() == L7FlowType::Response)
}

fn headers(flow: &Flow) -> Vec<String> {
    let headers = http(flow).map(|http| http.headers.as_slice()).unwrap_or_default();
    headers.iter().map(|header| format!("{}: {}", header.key, header.value)).collect()
}
