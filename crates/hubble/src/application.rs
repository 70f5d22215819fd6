// SPDX-License-Identifier: Apache-2.0
//! Requests that the node's proxy has served, as flows: one of the request, and one of its answer.
//!
//! The proxy stands for whoever sends to the backend: it reports as the client's side does.

use crate::decode::{Decoder, Record};
use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::layer7;
use crate::proto::flow::{
    CiliumEventType, Flow, FlowType, Http, HttpHeader, Ip, L7FlowType, Layer4, Layer7, Tcp, TraceContext, TraceParent,
    TrafficDirection, Verdict,
};
use crate::proto::timestamp;
use crate::redact::Redaction;
use abi::event::Event;
use abi::flow::proto;
use l7::{Exchange, Outcome};
use std::net::SocketAddr;

#[cfg(test)]
mod tests;

/// Message type of application flows; the other ones are in `abi`.
pub(crate) const ACCESS_LOG: u8 = 129;

/// What is known of a request beyond its two ends, as the ring and files of history have it: numbers of fields never change their meaning.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    /// Nanoseconds until it was answered.
    #[prost(uint64, tag = "1")]
    latency: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    url: String,
    #[prost(string, tag = "4")]
    protocol: String,
    #[prost(message, repeated, tag = "5")]
    headers: Vec<HttpHeader>,
    /// 0: there was no answer.
    #[prost(uint32, tag = "6")]
    status: u32,
    #[prost(enumeration = "Verdict", tag = "7")]
    verdict: i32,
    #[prost(string, tag = "8")]
    trace_id: String,
}

impl Request {
    pub(crate) fn new(exchange: Exchange, redaction: &Redaction) -> Self {
        let trace_id = exchange.headers.iter().find(|(name, _)| name == "traceparent");
        let trace_id = trace_id.and_then(|(_, value)| trace_id_of(value)).unwrap_or_default().to_owned();
        let verdict = match exchange.outcome {
            Outcome::Answered | Outcome::Forwarded => Verdict::Forwarded,
            Outcome::Refused => Verdict::Error,
        };
        let headers = exchange.headers.into_iter().map(|(key, value)| redaction.header(key, value));
        Self {
            latency: exchange.latency,
            method: exchange.method,
            url: redaction.url(exchange.url),
            protocol: exchange.protocol,
            headers: headers.collect(),
            status: exchange.status.into(),
            verdict: verdict.into(),
            trace_id,
        }
    }

    /// Bytes that it takes, about.
    pub(crate) fn size(&self) -> usize {
        let header = |header: &HttpHeader| size_of::<HttpHeader>() + header.key.len() + header.value.len();
        let texts = [&self.method, &self.url, &self.protocol, &self.trace_id];
        size_of::<Self>()
            + texts.map(String::len).iter().sum::<usize>()
            + self.headers.iter().map(header).sum::<usize>()
    }

    /// How many flows it is.
    pub(crate) fn flow_count(&self) -> usize {
        1 + usize::from(self.status != 0)
    }

    /// Its flows.
    pub(crate) fn flows(&self, decoder: &Decoder, record: &Record) -> Vec<Flow> {
        let begun = record.time.saturating_sub(i64::try_from(self.latency).unwrap_or(i64::MAX));
        let base = decoder.base(record);
        let request = Flow {
            time: Some(timestamp(begun)),
            l4: Some(ports(record.event.sport, record.event.dport)),
            l7: Some(self.layer7(L7FlowType::Request)),
            summary: format!("{} {} {}", self.protocol, self.method, self.url),
            ..self.common(base.clone(), false)
        };
        let millis = self.latency / 1_000_000;
        let summary = format!("{} {} {millis}ms ({} {})", self.protocol, self.status, self.method, self.url);
        let answer = (self.status != 0).then(|| Flow {
            ip: base.ip.clone().map(turned),
            l4: Some(ports(record.event.dport, record.event.sport)),
            l7: Some(self.layer7(L7FlowType::Response)),
            summary,
            source: base.destination.clone(),
            destination: base.source.clone(),
            source_service: base.destination_service.clone(),
            destination_service: base.source_service.clone(),
            ..self.common(base, true)
        });
        std::iter::once(request).chain(answer).collect()
    }

    fn common(&self, base: Flow, reply: bool) -> Flow {
        let direction = if reply { TrafficDirection::Ingress } else { TrafficDirection::Egress };
        let parent = TraceParent { trace_id: self.trace_id.clone() };
        Flow {
            r#type: FlowType::L7.into(),
            verdict: self.verdict,
            event_type: Some(CiliumEventType { r#type: ACCESS_LOG.into(), sub_type: 0 }),
            traffic_direction: direction.into(),
            is_reply: Some(reply),
            reply,
            trace_context: (!self.trace_id.is_empty()).then_some(TraceContext { parent: Some(parent) }),
            ..base
        }
    }

    fn layer7(&self, kind: L7FlowType) -> Layer7 {
        let answer = kind == L7FlowType::Response;
        let http = Http {
            code: if answer { self.status } else { 0 },
            method: self.method.clone(),
            url: self.url.clone(),
            protocol: self.protocol.clone(),
            // They are the request's.
            headers: if answer { Vec::new() } else { self.headers.clone() },
        };
        let latency_ns = if answer { self.latency } else { 0 };
        Layer7 { r#type: kind.into(), latency_ns, record: Some(layer7::Record::Http(http)) }
    }
}

/// The event that a request is, but for who its ends are.
pub(crate) fn event(client: SocketAddr, server: SocketAddr) -> Event {
    Event {
        src: client.ip().into(),
        dst: server.ip().into(),
        sport: client.port().to_be(),
        dport: server.port().to_be(),
        kind: ACCESS_LOG,
        proto: proto::TCP,
        ..Event::default()
    }
}

/// In network order.
fn ports(source: u16, destination: u16) -> Layer4 {
    let (source_port, destination_port) = (u16::from_be(source).into(), u16::from_be(destination).into());
    Layer4 { protocol: Some(Protocol::Tcp(Tcp { source_port, destination_port, flags: None })) }
}

fn turned(ip: Ip) -> Ip {
    Ip { source: ip.destination, destination: ip.source, ..ip }
}

/// The trace that a `traceparent` header names (W3C Trace Context, 3.2.2).
fn trace_id_of(header: &str) -> Option<&str> {
    let id = header.split('-').nth(1)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0')).then_some(id)
}
