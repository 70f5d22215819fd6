// SPDX-License-Identifier: Apache-2.0
//! What each plug-in counts.
//!
//! A packet produces a flow for each policy consulted and one for its outcome. Only the latter counts as traffic, so
//! that a packet counts once; the former are for `policy`.

use super::context::{Labels, direction};
use super::options::Plugin;
use crate::decode::POLICY_VERDICT;
use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::layer7::Record;
use crate::proto::flow::{Flow, FlowType, Http, IpVersion, L7FlowType, Tcp, Verdict};
use abi::drop_reason::DropReason;
use abi::event::kind;

/// A plug-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dns,
    Drop,
    Flow,
    FlowsToWorld,
    Http,
    HttpV2,
    Icmp,
    Policy,
    PortDistribution,
    Tcp,
}

const KINDS: [(&str, Kind); 10] = [
    ("dns", Kind::Dns),
    ("drop", Kind::Drop),
    ("flow", Kind::Flow),
    ("flows-to-world", Kind::FlowsToWorld),
    ("http", Kind::Http),
    ("httpV2", Kind::HttpV2),
    ("icmp", Kind::Icmp),
    ("policy", Kind::Policy),
    ("port-distribution", Kind::PortDistribution),
    ("tcp", Kind::Tcp),
];

/// Increments a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) metric: &'static str,
    pub(super) labels: Labels,
    /// Adds to a histogram, in seconds.
    pub(super) seconds: Option<f64>,
    /// The trace that is an example of it.
    pub(super) trace: Option<String>,
}

/// The counters, with what they count; `_total` is appended to their names.
pub(super) const COUNTERS: [(&str, &str); 12] = [
    ("dns_queries", "DNS questions, of which agents see none yet"),
    ("dns_responses", "DNS answers, of which agents see none yet"),
    ("dns_response_types", "Records of DNS answers, of which agents see none yet"),
    ("drop", "Packets dropped"),
    ("flows_processed", "Flows seen"),
    ("flows_to_world", "Flows to outside of the cluster"),
    ("http_requests", "HTTP requests"),
    ("http_responses", "HTTP responses"),
    ("icmp", "ICMP messages"),
    ("policy_verdicts", "Verdicts of policies"),
    ("port_distribution", "Packets by the port that they were for"),
    ("tcp_flags", "TCP packets by flag"),
];
pub(super) const DURATION: &str = "http_request_duration_seconds";

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub(super) fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    pub(super) fn names() -> String {
        KINDS.map(|(name, _)| name).join(", ")
    }

    /// Plug-ins with the same metric names are mutually exclusive.
    pub(super) fn family(self) -> Self {
        if self == Self::HttpV2 { Self::Http } else { self }
    }
}

impl Plugin {
    /// What a flow adds to the plug-in's metrics.
    pub(super) fn samples(&self, flow: &Flow) -> Vec<Sample> {
        let verdict = event_type(flow) == POLICY_VERDICT;
        let mut samples = match self.kind {
            Kind::Flow => processed(flow),
            Kind::Policy if verdict => policy(flow),
            _ if verdict => Vec::new(),
            Kind::Policy => Vec::new(),
            // Its packets are counted themselves.
            Kind::FlowsToWorld | Kind::Icmp | Kind::PortDistribution | Kind::Tcp if flow.r#type() == FlowType::L7 => {
                Vec::new()
            }
            Kind::Drop => dropped(flow),
            Kind::FlowsToWorld => self.to_world(flow),
            Kind::Icmp => icmp(flow),
            Kind::PortDistribution => port_distribution(flow),
            Kind::Tcp => tcp(flow),
            Kind::Dns => self.dns(flow),
            Kind::Http => http(flow),
            Kind::HttpV2 => self.http_v2(flow),
        };
        for sample in &mut samples {
            sample.labels.extend(self.contexts.labels(flow));
        }
        samples
    }

    fn to_world(&self, flow: &Flow) -> Vec<Sample> {
        let world = |label: &String| label == "reserved:world" || label.starts_with("reserved:world-");
        if !flow.destination.as_ref().is_some_and(|destination| destination.labels.iter().any(world)) {
            return Vec::new();
        }
        let dropped = flow.verdict() == Verdict::Dropped;
        let by_policy = [DropReason::PolicyDenied, DropReason::PolicyDeny].map(|reason| i32::from(reason.code()));
        let counted = if dropped {
            self.switches.any_drop || by_policy.contains(&flow.drop_reason_desc)
        } else {
            flow.is_reply == Some(false)
        };
        let first = tcp_of(flow).is_none_or(|tcp| tcp.flags.is_some_and(|flags| flags.syn && !flags.ack));
        if !counted || (self.switches.syn_only && !first) {
            return Vec::new();
        }
        let mut labels = vec![("protocol", protocol(flow).to_owned()), ("verdict", verdict(flow))];
        if self.switches.port {
            labels.push(("port", port(flow).unwrap_or_default()));
        }
        counter("flows_to_world", labels)
    }

    fn dns(&self, flow: &Flow) -> Vec<Sample> {
        let Some((l7, Record::Dns(dns))) = layer7(flow) else { return Vec::new() };
        if self.switches.ignore_aaaa && dns.qtypes.iter().any(|kind| kind == "AAAA") {
            return Vec::new();
        }
        let qtypes = || dns.qtypes.join(",");
        let query = || self.switches.query.then(|| ("query", dns.query.clone()));
        let rcode = if l7 == L7FlowType::Response { rcode(dns.rcode) } else { String::new() };
        let count = |metric| {
            let labels = [("rcode", rcode.clone()), ("qtypes", qtypes()), ("ips_returned", dns.ips.len().to_string())];
            counter(metric, labels.into_iter().chain(query()).collect())
        };
        match l7 {
            L7FlowType::Request => count("dns_queries"),
            L7FlowType::Response => {
                let kind = |kind: &String| {
                    let labels = [("type", kind.clone()), ("qtypes", qtypes())];
                    counter("dns_response_types", labels.into_iter().chain(query()).collect())
                };
                count("dns_responses").into_iter().chain(dns.rrtypes.iter().flat_map(kind)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn http_v2(&self, flow: &Flow) -> Vec<Sample> {
        let Some((L7FlowType::Response, Record::Http(http))) = layer7(flow) else { return Vec::new() };
        let method = ("method", method(http));
        // The client is meant, and a response goes the other way.
        let reporter = ("reporter", reporter(flow).to_owned());
        let protocol = ("protocol", http.protocol.clone());
        let labels = vec![method.clone(), protocol, ("status", http.code.to_string()), reporter.clone()];
        let mut samples = counter("http_requests", labels);
        let trace = trace(flow).filter(|_| self.switches.exemplars);
        samples.push(Sample { trace, ..duration(flow, vec![method, reporter]) });
        samples
    }
}

/// The identifier of a flow's trace, if it is one (W3C Trace Context, section 3.2.2.3).
fn trace(flow: &Flow) -> Option<String> {
    let id = &flow.trace_context.as_ref()?.parent.as_ref()?.trace_id;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.clone())
}

fn counter(metric: &'static str, labels: Labels) -> Vec<Sample> {
    vec![Sample { metric, labels, seconds: None, trace: None }]
}

fn processed(flow: &Flow) -> Vec<Sample> {
    const TRACE: i32 = kind::TRACE as i32;
    const DROP: i32 = kind::DROP as i32;
    let (kind, sub) = match event_type(flow) {
        _ if flow.r#type() == FlowType::L7 => {
            ("L7", layer7(flow).map_or("", |(_, record)| application(record)).to_owned())
        }
        POLICY_VERDICT => ("PolicyVerdict", String::new()),
        DROP => ("Drop", String::new()),
        TRACE => ("Trace", point(flow)),
        _ => ("Unknown", String::new()),
    };
    counter("flows_processed", vec![("type", kind.to_owned()), ("subtype", sub), ("verdict", verdict(flow))])
}

fn dropped(flow: &Flow) -> Vec<Sample> {
    if flow.verdict() != Verdict::Dropped {
        return Vec::new();
    }
    let reason = u8::try_from(flow.drop_reason_desc).ok().and_then(DropReason::from_code);
    let reason = reason.map_or_else(|| flow.drop_reason_desc.to_string(), |reason| reason.text().to_owned());
    counter("drop", vec![("reason", reason), ("protocol", protocol(flow).to_owned())])
}

fn policy(flow: &Flow) -> Vec<Sample> {
    let matched = match flow.policy_match_type {
        0 => "none",
        1 => "l3-only",
        2 => "l3-l4",
        3 => "l4-only",
        4 => "all",
        5 => "l3-proto",
        6 => "proto-only",
        _ => "unknown",
    };
    let labels = vec![
        ("direction", direction(flow).to_owned()),
        ("match", matched.to_owned()),
        ("action", verdict(flow).to_lowercase()),
    ];
    counter("policy_verdicts", labels)
}

fn icmp(flow: &Flow) -> Vec<Sample> {
    let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
    if !matches!(l4, Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_))) || !forwarded(flow) {
        return Vec::new();
    }
    let kind = flow.summary.split_once(' ').map(|(_, kind)| kind.to_owned()).unwrap_or_default();
    counter("icmp", vec![("family", family(flow).to_owned()), ("type", kind)])
}

fn port_distribution(flow: &Flow) -> Vec<Sample> {
    // It is not always known whether it is a reply, and then the port may be the client's.
    if !forwarded(flow) || flow.is_reply != Some(false) {
        return Vec::new();
    }
    let port = port(flow).unwrap_or_else(|| "0".to_owned());
    counter("port_distribution", vec![("protocol", protocol(flow).to_owned()), ("port", port)])
}

fn tcp(flow: &Flow) -> Vec<Sample> {
    let Some(flags) = tcp_of(flow).and_then(|tcp| tcp.flags).filter(|_| forwarded(flow)) else { return Vec::new() };
    let opening = if flags.ack { "SYN-ACK" } else { "SYN" };
    let set = [(flags.fin, "FIN"), (flags.syn, opening), (flags.rst, "RST")].into_iter().filter(|(set, _)| *set);
    set.flat_map(|(_, flag)| counter("tcp_flags", vec![("flag", flag.to_owned()), ("family", family(flow).to_owned())]))
        .collect()
}

fn http(flow: &Flow) -> Vec<Sample> {
    let Some((l7, Record::Http(http))) = layer7(flow) else { return Vec::new() };
    let method = ("method", method(http));
    let reporter = ("reporter", reporter(flow).to_owned());
    if l7 == L7FlowType::Request {
        return counter("http_requests", vec![method, ("protocol", http.protocol.clone()), reporter]);
    }
    let responses = vec![method.clone(), ("status", http.code.to_string()), reporter.clone()];
    let mut samples = counter("http_responses", responses);
    samples.push(duration(flow, vec![method, reporter]));
    samples
}

#[expect(clippy::cast_precision_loss, reason = "a duration of 100 days is exact to the microsecond")]
fn duration(flow: &Flow, labels: Labels) -> Sample {
    let nanos = flow.l7.as_ref().map_or(0, |l7| l7.latency_ns);
    Sample { metric: DURATION, labels, seconds: Some(nanos as f64 / 1e9), trace: None }
}

/// Clients may name any method: those that nobody knows are one series.
fn method(http: &Http) -> String {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if KNOWN.contains(&http.method.as_str()) { http.method.clone() } else { "_OTHER".to_owned() }
}

/// Who reports a request: the client's or the server's node.
fn reporter(flow: &Flow) -> &'static str {
    match (direction(flow), flow.is_reply) {
        ("egress", Some(false)) | ("ingress", Some(true)) => "client",
        ("ingress", Some(false)) | ("egress", Some(true)) => "server",
        _ => "unknown",
    }
}

fn event_type(flow: &Flow) -> i32 {
    flow.event_type.as_ref().map_or(0, |event| event.r#type)
}

fn point(flow: &Flow) -> String {
    flow.trace_observation_point().as_str_name().to_lowercase().replace('_', "-")
}

fn verdict(flow: &Flow) -> String {
    flow.verdict().as_str_name().to_owned()
}

fn forwarded(flow: &Flow) -> bool {
    matches!(flow.verdict(), Verdict::Forwarded | Verdict::Redirected)
}

fn family(flow: &Flow) -> &'static str {
    match flow.ip.as_ref().map(|ip| ip.ip_version()) {
        Some(IpVersion::IPv4) => "IPv4",
        Some(IpVersion::IPv6) => "IPv6",
        _ => "Unknown",
    }
}

fn protocol(flow: &Flow) -> &'static str {
    if let Some((_, record)) = layer7(flow) {
        return application(record);
    }
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(_)) => "TCP",
        Some(Protocol::Udp(_)) => "UDP",
        Some(Protocol::Sctp(_)) => "SCTP",
        Some(Protocol::IcmPv4(_)) => "ICMPv4",
        Some(Protocol::IcmPv6(_)) => "ICMPv6",
        Some(Protocol::Vrrp(_)) => "VRRP",
        Some(Protocol::Igmp(_)) => "IGMP",
        None => "Unknown flow",
    }
}

fn application(record: &Record) -> &'static str {
    match record {
        Record::Dns(_) => "DNS",
        Record::Http(_) => "HTTP",
        Record::Kafka(_) => "Kafka",
    }
}

fn layer7(flow: &Flow) -> Option<(L7FlowType, &Record)> {
    let l7 = flow.l7.as_ref()?;
    Some((l7.r#type(), l7.record.as_ref()?))
}

fn tcp_of(flow: &Flow) -> Option<&Tcp> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => Some(tcp),
        _ => None,
    }
}

fn port(flow: &Flow) -> Option<String> {
    Some(match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(l4) => l4.destination_port.to_string(),
        Protocol::Udp(l4) => l4.destination_port.to_string(),
        Protocol::Sctp(l4) => l4.destination_port.to_string(),
        _ => return None,
    })
}

/// The name of an answer's code (RFC 1035, section 4.1.1); its number if it has none.
#[must_use]
pub fn rcode(code: u32) -> String {
    let names =
        ["No Error", "Format Error", "Server Failure", "Non-Existent Domain", "Not Implemented", "Query Refused"];
    usize::try_from(code)
        .ok()
        .and_then(|code| names.get(code))
        .map_or_else(|| code.to_string(), |name| (*name).to_owned())
}
