// SPDX-License-Identifier: Apache-2.0
//! A flow as a line of the table: no more of it than a reader is shown.

use super::verdicts::Rules;
use crate::name::text;
use abi::drop_reason::DropReason;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::layer7::Record;
use hubble::proto::flow::{Endpoint, Flow, Policy, TrafficDirection, Verdict};
use serde::Serialize;

/// A policy of Cilium or Kubernetes that is not in a namespace.
const CLUSTERWIDE: &str = "CiliumClusterwideNetworkPolicy";

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    Allowed,
    /// By a policy.
    Denied,
    /// For another reason.
    Dropped,
    /// Only looked at.
    Other,
}

/// One end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    /// The pod, or what names it otherwise.
    pub(crate) name: String,
    pub(crate) ip: String,
    pub(crate) port: Option<u32>,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) id: u64,
    /// Milliseconds since 1970.
    pub(crate) time: i64,
    pub(crate) class: Class,
    /// Why it was dropped.
    pub(crate) reason: String,
    pub(crate) source: Place,
    pub(crate) destination: Place,
    pub(crate) protocol: &'static str,
    /// The port or type that the opener asks for.
    pub(crate) service: Option<u32>,
    pub(crate) reply: bool,
    pub(crate) direction: &'static str,
    pub(crate) node: String,
    /// What the application asked.
    pub(crate) request: String,
    /// Rules that denied it.
    pub(crate) deny: Vec<String>,
    /// Rules that allowed it.
    pub(crate) allow: Vec<String>,
    /// It was denied because no rule allows it.
    pub(crate) by_default: bool,
    /// The number of a policy that would have allowed it.
    pub(crate) proposal: Option<u64>,
}

impl Event {
    /// Of a flow and the rules that decided it; times to come are taken for now.
    pub(crate) fn of(flow: &Flow, now: i64, rules: Rules) -> Self {
        let class = class(flow);
        let reply = flow.is_reply.unwrap_or_default();
        let (protocol, from, to) = ports(flow);
        let service = if reply && !protocol.starts_with("ICMP") { from } else { to };
        let icmp = protocol.starts_with("ICMP");
        let address = flow.ip.clone().unwrap_or_default();
        let time = flow.time.as_ref().map_or(now, |time| hubble::proto::nanos(time) / 1_000_000).min(now);
        let by_default = code(flow) == Some(DropReason::PolicyDenied);
        Self {
            id: 0,
            time,
            class,
            reason: if matches!(class, Class::Denied | Class::Dropped) { reason(flow) } else { String::new() },
            source: place(flow.source.as_ref(), &flow.source_names, &address.source, from.filter(|_| !icmp)),
            destination: place(
                flow.destination.as_ref(),
                &flow.destination_names,
                &address.destination,
                to.filter(|_| !icmp),
            ),
            protocol,
            service,
            reply,
            direction: match flow.traffic_direction() {
                TrafficDirection::Ingress => "ingress",
                TrafficDirection::Egress => "egress",
                TrafficDirection::Unknown => "",
            },
            node: text(&flow.node_name),
            request: request(flow),
            deny: rules.deny,
            allow: rules.allow,
            by_default,
            proposal: None,
        }
    }
}

/// What became of a flow.
fn class(flow: &Flow) -> Class {
    match flow.verdict() {
        Verdict::Forwarded | Verdict::Redirected => Class::Allowed,
        Verdict::Dropped => match code(flow) {
            Some(DropReason::PolicyDenied | DropReason::PolicyDeny) => Class::Denied,
            _ => Class::Dropped,
        },
        Verdict::Error => Class::Dropped,
        _ => Class::Other,
    }
}

fn code(flow: &Flow) -> Option<DropReason> {
    u8::try_from(flow.drop_reason_desc).ok().and_then(DropReason::from_code)
}

fn reason(flow: &Flow) -> String {
    code(flow).map_or_else(|| format!("reason {}", flow.drop_reason_desc), |reason| reason.text().to_owned())
}

/// The protocol, and what it has for ports on both sides.
pub(super) fn ports(flow: &Flow) -> (&'static str, Option<u32>, Option<u32>) {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => ("TCP", Some(tcp.source_port), Some(tcp.destination_port)),
        Some(Protocol::Udp(udp)) => ("UDP", Some(udp.source_port), Some(udp.destination_port)),
        Some(Protocol::Sctp(sctp)) => ("SCTP", Some(sctp.source_port), Some(sctp.destination_port)),
        Some(Protocol::IcmPv4(icmp)) => ("ICMPv4", None, Some(icmp.r#type)),
        Some(Protocol::IcmPv6(icmp)) => ("ICMPv6", None, Some(icmp.r#type)),
        Some(Protocol::Vrrp(_)) => ("VRRP", None, None),
        Some(Protocol::Igmp(_)) => ("IGMP", None, None),
        None => ("", None, None),
    }
}

fn place(endpoint: Option<&Endpoint>, names: &[String], ip: &str, port: Option<u32>) -> Place {
    let none = Endpoint::default();
    let endpoint = endpoint.unwrap_or(&none);
    let reserved = || endpoint.labels.iter().find_map(|label| label.strip_prefix("reserved:"));
    let name = Some(endpoint.pod_name.as_str()).filter(|name| !name.is_empty());
    let name = name.or_else(|| names.first().map(String::as_str)).or_else(reserved).unwrap_or_default();
    Place { namespace: text(&endpoint.namespace), name: text(name), ip: text(ip), port }
}

fn request(flow: &Flow) -> String {
    match flow.l7.as_ref().and_then(|l7| l7.record.as_ref()) {
        Some(Record::Http(http)) if http.code > 0 => text(&format!("{} {} {}", http.method, http.url, http.code)),
        Some(Record::Http(http)) => text(&format!("{} {}", http.method, http.url)),
        Some(Record::Dns(dns)) => text(&format!("DNS {} {}", dns.qtypes.join(","), dns.query)),
        _ => String::new(),
    }
}

/// A rule as people name it, such as `CiliumNetworkPolicy shop/web`.
pub(super) fn rules(policies: &[Policy]) -> Vec<String> {
    let named = policies.iter().take(super::rows::RULES).map(|policy| {
        let kind = if policy.kind.is_empty() { "Policy" } else { policy.kind.as_str() };
        let place = if policy.namespace.is_empty() || kind == CLUSTERWIDE {
            policy.name.clone()
        } else {
            format!("{}/{}", policy.namespace, policy.name)
        };
        text(&format!("{kind} {place}"))
    });
    named.collect()
}
