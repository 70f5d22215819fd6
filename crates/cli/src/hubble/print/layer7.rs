// SPDX-License-Identifier: Apache-2.0
//! Flows of applications: requests of HTTP, and what other servers tell of DNS and Kafka.

use super::clean;
use hubble::proto::flow::layer7::Record;
use hubble::proto::flow::{Dns, Http, Kafka, L7FlowType, Layer7};

/// What kind of event it was.
pub(super) fn kind(l7: &Layer7) -> String {
    let kind = match l7.r#type() {
        L7FlowType::UnknownL7Type => "unknown_l7_type",
        L7FlowType::Request => "request",
        L7FlowType::Response => "response",
        L7FlowType::Sample => "sample",
    };
    match &l7.record {
        Some(Record::Http(_)) => format!("http-{kind}"),
        Some(Record::Dns(dns)) if dns.observation_source.is_empty() => format!("dns-{kind}"),
        Some(Record::Dns(dns)) => format!("dns-{kind} {}", clean(&dns.observation_source)),
        Some(Record::Kafka(_)) => format!("kafka-{kind}"),
        None => format!("l7-{kind}"),
    }
}

/// What a flow says in words if nobody else has said it.
pub(super) fn summary(l7: &Layer7) -> String {
    let answer = l7.r#type() == L7FlowType::Response;
    match &l7.record {
        Some(Record::Http(http)) => of_http(http, answer.then_some(l7.latency_ns)),
        Some(Record::Dns(dns)) => of_dns(dns, answer),
        Some(Record::Kafka(kafka)) => of_kafka(kafka, answer.then_some(l7.latency_ns)),
        None => String::new(),
    }
}

fn of_http(Http { protocol, method, url, code, .. }: &Http, latency: Option<u64>) -> String {
    match latency {
        None => format!("{protocol} {method} {url}"),
        Some(latency) => format!("{protocol} {code} {}ms ({method} {url})", latency / 1_000_000),
    }
}

fn of_dns(dns: &Dns, answer: bool) -> String {
    let question = format!("{} {}", dns.query, dns.qtypes.join(","));
    if !answer {
        return format!("DNS Query {}", question.trim_end());
    }
    let mut parts = Vec::new();
    if dns.rcode != 0 {
        parts.push(format!("RCode: {}", hubble::dns_rcode(dns.rcode)));
    }
    let named = [("IPs", dns.ips.join(",")), ("CNAMEs", dns.cnames.join(",")), ("TTL", dns.ttl.to_string())];
    let named = named.into_iter().filter(|(_, text)| !text.is_empty() && text != "0");
    parts.extend(named.map(|(name, text)| format!("{name}: {text}")));
    format!("DNS Answer {} ({})", parts.join(" "), question.trim_end())
}

fn of_kafka(kafka: &Kafka, latency: Option<u64>) -> String {
    let Kafka { api_key, correlation_id, topic, error_code, .. } = kafka;
    let request = format!("Kafka {api_key} correlation id {correlation_id} topic '{topic}'");
    match latency {
        None => request,
        Some(latency) => format!("{request} return code {error_code} {}ms", latency / 1_000_000),
    }
}
