// SPDX-License-Identifier: Apache-2.0
//! On what: ports, ICMP types and what the application protocol may do.

use super::{FieldPath, Flags, Report, count, selectors};
use crate::cilium::{ICMPRule, L7Rules, PortProtocol, PortRule};
use regex::Regex;

const MAX_PORTS: usize = 40;
const MAX_ICMP_FIELDS: usize = 40;

pub(super) fn icmps(report: &mut Report, at: &FieldPath, rules: Option<&[ICMPRule]>, has_ports: bool) {
    let rules = rules.unwrap_or_default();
    if has_ports && !rules.is_empty() {
        report.add(&at.field("icmps"), "cannot be combined with toPorts in one rule, write two");
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.item("icmps", i);
        let fields = rule.fields.as_deref().unwrap_or_default();
        if fields.len() > MAX_ICMP_FIELDS {
            report.add(&at.field("fields"), format!("has {} entries, at most {MAX_ICMP_FIELDS}", fields.len()));
        }
        for (i, field) in fields.iter().enumerate() {
            if let Some(family) = field.family.as_deref().filter(|f| !matches!(*f, "IPv4" | "IPv6" | "")) {
                report.add(&at.item("fields", i).field("family"), format!("{family:?} is none of IPv4, IPv6"));
            }
        }
    }
}

pub(super) fn port_rules(report: &mut Report, at: &FieldPath, rules: Option<&[PortRule]>, flags: Flags) {
    for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
        port_rule(report, &at.item("toPorts", i), rule, flags);
    }
}

fn port_rule(report: &mut Report, at: &FieldPath, rule: &PortRule, flags: Flags) {
    let ports = rule.ports.as_deref().unwrap_or_default();
    if ports.len() > MAX_PORTS {
        report.add(&at.field("ports"), format!("has {} entries, at most {MAX_PORTS}", ports.len()));
    }
    let l7 = rule.rules.as_ref().filter(|l7| !is_empty(l7));
    for (i, port) in ports.iter().enumerate() {
        port_protocol(report, &at.item("ports", i), port, l7);
    }
    if let Some(l7) = l7 {
        l7_rules(report, &at.field("rules"), l7, flags);
        if l7.dns.is_some() && ports.is_empty() {
            report.add(&at.field("ports"), "DNS rules need a port");
        }
        if rule.listener.is_some() {
            report.add(&at.field("listener"), "cannot be combined with rules");
        }
        if count(rule.server_names.as_deref()) > 0 && rule.terminating_tls.is_none() {
            report.add(&at.field("serverNames"), "cannot be combined with rules unless TLS is terminated");
        }
    }
    if flags.deny && (rule.rules.is_some() || rule.listener.is_some() || rule.server_names.is_some()) {
        report.add(at, "a deny rule has ports only");
    }
    if flags.ingress && rule.listener.is_some() {
        report.add(&at.field("listener"), "is possible on egress only");
    }
    for (i, name) in rule.server_names.iter().flatten().enumerate() {
        if name.is_empty() {
            report.add(&at.item("serverNames", i), "is empty");
        }
    }
}

fn is_empty(l7: &L7Rules) -> bool {
    l7.http.is_none() && l7.kafka.is_none() && l7.dns.is_none() && l7.l7.is_none() && l7.l7proto.is_none()
}

fn port_protocol(report: &mut Report, at: &FieldPath, port: &PortProtocol, l7: Option<&L7Rules>) {
    let protocol = port.protocol.as_deref().unwrap_or("ANY");
    if !matches!(protocol, "TCP" | "UDP" | "SCTP" | "VRRP" | "IGMP" | "ANY" | "") {
        report.add(&at.field("protocol"), format!("{protocol:?} is none of TCP, UDP, SCTP, VRRP, IGMP, ANY"));
    }
    let has_dns = l7.is_some_and(|l7| l7.dns.is_some());
    if l7.is_some() && !has_dns && protocol != "TCP" {
        report.add(&at.field("protocol"), format!("rules other than dns need TCP, not {protocol}"));
    }
    let text = port.port.as_deref().unwrap_or_default();
    let end = port.end_port.unwrap_or_default();
    if !(0..=65535).contains(&end) {
        report.add(&at.field("endPort"), format!("{end} is not a port number"));
    }
    let portless = matches!(protocol, "VRRP" | "IGMP");
    match text.parse::<u16>() {
        Ok(0) if portless => {}
        Err(_) if portless && text.is_empty() => {}
        _ if portless => report.add(&at.field("port"), format!("{protocol} has no ports: leave it out or say 0")),
        Ok(0) if l7.is_some() => report.add(&at.field("port"), "rules need a port other than 0"),
        Ok(number) if end != 0 && end < i32::from(number) => {
            report.add(&at.field("endPort"), format!("{end} is less than port {number}"));
        }
        Ok(number) if has_dns && end > i32::from(number) => {
            report.add(&at.field("endPort"), "DNS rules do not take a range");
        }
        Ok(_) => {}
        Err(_) if text.is_empty() => report.add(&at.field("port"), "is required"),
        Err(_) if !is_service_name(text) => {
            report.add(&at.field("port"), format!("{text:?} is neither a port number nor a port name"));
        }
        Err(_) if end != 0 => report.add(&at.field("endPort"), "a range begins with a number"),
        Err(_) => {}
    }
}

/// IANA service name (RFC 6335): at most 15 letters, digits and single inner hyphens, at least one letter.
fn is_service_name(text: &str) -> bool {
    text.len() <= 15
        && text.split('-').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric()))
        && text.chars().any(|c| c.is_ascii_alphabetic())
}

fn l7_rules(report: &mut Report, at: &FieldPath, l7: &L7Rules, flags: Flags) {
    let kinds = [l7.http.is_some(), l7.kafka.is_some(), l7.dns.is_some(), l7.l7proto.is_some()].map(usize::from);
    if kinds.iter().sum::<usize>() > 1 {
        report.add(at, "only one of http, kafka, dns and l7proto is possible");
    }
    if l7.l7.is_some() && l7.l7proto.is_none() {
        report.add(&at.field("l7"), "needs l7proto");
    }
    if flags.node_policy {
        report.add(at, "a policy for nodes cannot have them");
    }
    if flags.ingress && l7.dns.is_some() {
        report.add(&at.field("dns"), "is possible on egress only");
    }
    selectors::fqdns(report, at, "dns", l7.dns.as_deref());
    for (i, http) in l7.http.iter().flatten().enumerate() {
        let at = at.item("http", i);
        for (name, expression) in [("method", &http.method), ("path", &http.path), ("host", &http.host)] {
            if let Some(Err(error)) = expression.as_deref().map(Regex::new) {
                let reason = error.to_string();
                let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                report.add(&at.field(name), format!("is not a regular expression: {last}"));
            }
        }
        for (i, header) in http.header_matches.iter().flatten().enumerate() {
            if header.name.is_empty() {
                report.add(&at.item("headerMatches", i).field("name"), "is required");
            }
        }
    }
    for (i, kafka) in l7.kafka.iter().flatten().enumerate() {
        let at = at.item("kafka", i);
        if kafka.role.is_some() && kafka.api_key.is_some() {
            report.add(&at, "role and apiKey exclude each other");
        }
        if let Some(role) = kafka.role.as_deref().filter(|r| !matches!(*r, "produce" | "consume")) {
            report.add(&at.field("role"), format!("{role:?} is none of produce, consume"));
        }
    }
}
