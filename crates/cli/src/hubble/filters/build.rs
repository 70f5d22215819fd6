// SPDX-License-Identifier: Apache-2.0
//! Flags become filters.

use anyhow::{Context, Result, bail};
use hubble::proto::flow::flow_filter::Experimental;
use hubble::proto::flow::{
    AgentEventType, DropReason, EventTypeFilter, FlowFilter, HttpHeader, IpVersion, NetworkInterface, TcpFlags,
    TrafficDirection, Verdict, Workload,
};

/// Message types whose subtypes have names.
const TRACE: i32 = 4;
const AGENT: i32 = 130;

/// Which side of a flow a value is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
    /// Either.
    Both,
}

/// The filters for both sides of a flow; the same when no flag was about "either side".
#[derive(Default)]
pub(super) struct Builder {
    left: Half,
    right: Half,
}

/// A filter, and the namespaces that were given apart from the names of pods and services.
#[derive(Default)]
struct Half {
    filter: FlowFilter,
    source_namespaces: Vec<String>,
    destination_namespaces: Vec<String>,
}

impl Builder {
    /// The filters: none, one, or one for each side.
    pub(super) fn finish(self) -> Result<Vec<FlowFilter>> {
        let (left, right) = (self.left.finish()?, self.right.finish()?);
        if left == FlowFilter::default() && right == left {
            return Ok(Vec::new());
        }
        Ok(if left == right { vec![left] } else { vec![left, right] })
    }

    fn both(&mut self, set: impl Fn(&mut FlowFilter)) {
        set(&mut self.left.filter);
        set(&mut self.right.filter);
    }

    /// Sets a field of one side, in both filters; or of the source in one and of the destination in the other.
    fn side(&mut self, side: Side, source: impl Fn(&mut Half), destination: impl Fn(&mut Half)) {
        match side {
            Side::Source => [&mut self.left, &mut self.right].into_iter().for_each(source),
            Side::Destination => [&mut self.left, &mut self.right].into_iter().for_each(destination),
            Side::Both => {
                source(&mut self.left);
                destination(&mut self.right);
            }
        }
    }

    /// Takes in a namespace; the empty one stands for any.
    fn namespace(&mut self, side: Side, name: &str) {
        let name = || name.to_owned();
        self.side(side, |h| h.source_namespaces.push(name()), |h| h.destination_namespaces.push(name()));
    }

    /// Takes in a flag.
    pub(super) fn apply(&mut self, flag: &str, value: &str) -> Result<()> {
        let (side, name) = match flag.split_once('-') {
            Some(("from", name)) => (Side::Source, name),
            Some(("to", name)) => (Side::Destination, name),
            _ => (Side::Both, flag),
        };
        let text = || value.to_owned();
        match name {
            "pod" => self.side(side, |h| h.filter.source_pod.push(text()), |h| h.filter.destination_pod.push(text())),
            "namespace" => self.namespace(side, value),
            "all-namespaces" => self.namespace(side, ""),
            "ip" => self.side(side, |h| h.filter.source_ip.push(text()), |h| h.filter.destination_ip.push(text())),
            "fqdn" => {
                self.side(side, |h| h.filter.source_fqdn.push(text()), |h| h.filter.destination_fqdn.push(text()))
            }
            "label" => {
                self.side(side, |h| h.filter.source_label.push(text()), |h| h.filter.destination_label.push(text()));
            }
            "service" => {
                self.side(
                    side,
                    |h| h.filter.source_service.push(text()),
                    |h| h.filter.destination_service.push(text()),
                );
            }
            "port" => {
                self.side(side, |h| h.filter.source_port.push(text()), |h| h.filter.destination_port.push(text()))
            }
            "cluster" => self.side(
                side,
                |h| h.filter.source_cluster_name.push(text()),
                |h| h.filter.destination_cluster_name.push(text()),
            ),
            "workload" => {
                let workload = || workload(value);
                self.side(
                    side,
                    |h| h.filter.source_workload.push(workload()),
                    |h| h.filter.destination_workload.push(workload()),
                );
            }
            "identity" => {
                let id = identity(value)?;
                self.side(side, |h| h.filter.source_identity.push(id), |h| h.filter.destination_identity.push(id));
            }
            _ => self.apply_common(flag, value)?,
        }
        Ok(())
    }

    /// Flags that are not about a side.
    fn apply_common(&mut self, flag: &str, value: &str) -> Result<()> {
        let text = || value.to_owned();
        match flag {
            "uuid" => self.both(|f| f.uuid.push(text())),
            "node-name" => self.both(|f| f.node_name.push(text())),
            "node-label" => self.both(|f| f.node_labels.push(text())),
            "protocol" => self.both(|f| f.protocol.push(text())),
            "http-status" => self.both(|f| f.http_status_code.push(text())),
            "http-method" => self.both(|f| f.http_method.push(text())),
            "http-path" => self.both(|f| f.http_path.push(text())),
            "http-url" => self.both(|f| f.http_url.push(text())),
            "dns-query" => self.both(|f| f.dns_query.push(text())),
            "trace-id" => self.both(|f| f.trace_id.push(text())),
            "snat-ip" => self.both(|f| f.source_ip_xlated.push(text())),
            "interface" => self.both(|f| f.interface.push(NetworkInterface { name: text(), index: 0 })),
            "cel-expression" => self.both(|f| {
                f.experimental.get_or_insert_with(Experimental::default).cel_expression.push(text());
            }),
            "http-header" => {
                let (key, value) = value.split_once(':').context("want key:value")?;
                let header = || HttpHeader { key: key.to_owned(), value: value.to_owned() };
                self.both(|f| f.http_header.push(header()));
            }
            _ => return self.apply_parsed(flag, value),
        }
        Ok(())
    }

    fn apply_parsed(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "tcp-flags" => {
                let flags = tcp_flags(value)?;
                self.both(|f| f.tcp_flags.push(flags));
            }
            "type" => {
                let event = event_type(value)?;
                self.both(|f| f.event_type.push(event));
            }
            "verdict" => {
                let verdict = Verdict::from_str_name(&value.to_uppercase()).context("is not a verdict")?;
                self.both(|f| f.verdict.push(verdict.into()));
            }
            "drop-reason-desc" => {
                let reason = DropReason::from_str_name(&value.to_uppercase()).context("is not a drop reason")?;
                self.both(|f| f.drop_reason_desc.push(reason.into()));
            }
            "traffic-direction" => {
                let direction = TrafficDirection::from_str_name(&value.to_uppercase());
                let direction = direction.context("want ingress or egress")?;
                self.both(|f| f.traffic_direction.push(direction.into()));
            }
            "ipv4" => self.both(|f| f.ip_version.push(IpVersion::IPv4.into())),
            "ipv6" => self.both(|f| f.ip_version.push(IpVersion::IPv6.into())),
            "ip-version" => {
                let version = match value.to_lowercase().as_str() {
                    "none" => IpVersion::IpNotUsed,
                    "v4" | "ipv4" | "ip4" | "4" => IpVersion::IPv4,
                    "v6" | "ipv6" | "ip6" | "6" => IpVersion::IPv6,
                    _ => bail!("want none, v4 or v6"),
                };
                self.both(|f| f.ip_version.push(version.into()));
            }
            "ip-trace-id" => {
                let id = value.parse().ok().filter(|id| *id > 0).context("want a number greater than 0")?;
                self.both(|f| f.ip_trace_id.push(id));
            }
            "reply" => {
                let reply = value.parse().context("want true or false")?;
                self.both(|f| f.reply.push(reply));
            }
            other => bail!("--{other} is not known"),
        }
        Ok(())
    }
}

impl Half {
    fn finish(self) -> Result<FlowFilter> {
        let mut filter = self.filter;
        qualify(&self.source_namespaces, &mut filter.source_pod, &mut filter.source_service)?;
        qualify(&self.destination_namespaces, &mut filter.destination_pod, &mut filter.destination_service)?;
        Ok(filter)
    }
}

/// Puts the pods and services of one side into the namespaces that were given apart; without any of them, all pods of these namespaces are
/// meant.
fn qualify(namespaces: &[String], pods: &mut Vec<String>, services: &mut Vec<String>) -> Result<()> {
    let of = |name: &String| name.split_once('/').map(|(namespace, _)| namespace.to_owned());
    for pod in pods.iter() {
        let strange = |service: &&String| of(pod).is_some() && of(service) != of(pod);
        if let Some(service) = services.iter().find(strange) {
            bail!("the pod {pod:?} and the service {service:?} are not in the same namespace");
        }
    }
    for namespace in namespaces {
        let strange = |name: &&String| of(name).is_some_and(|other| other != *namespace);
        if let Some(name) = pods.iter().chain(services.iter()).find(strange) {
            bail!("{name:?} is not in the namespace {namespace:?}, which another flag names");
        }
    }
    if !namespaces.is_empty() && pods.is_empty() && services.is_empty() {
        pods.push(String::new());
    }
    for names in [pods, services].into_iter().filter(|_| !namespaces.is_empty()) {
        let (whole, bare): (Vec<_>, Vec<_>) = names.drain(..).partition(|name| name.contains('/'));
        let put = |name: String| namespaces.iter().map(move |namespace| format!("{namespace}/{name}"));
        names.extend(whole.into_iter().chain(bare.into_iter().flat_map(put)));
    }
    Ok(())
}

fn workload(text: &str) -> Workload {
    let (kind, name) = text.split_once('/').unwrap_or(("", text));
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

fn identity(text: &str) -> Result<u32> {
    let named = || {
        let all = model::reserved::all();
        let name = text.strip_prefix("reserved:").unwrap_or(text);
        all.into_iter().find(|i| model::reserved::name(i.id) == Some(name)).map(|i| i.id.0)
    };
    text.parse().ok().or_else(named).context("want a number or the name of a reserved identity")
}

/// `SYN,ACK`: all of these.
fn tcp_flags(text: &str) -> Result<TcpFlags> {
    let mut flags = TcpFlags::default();
    for name in text.split(',') {
        let flag = match name.to_lowercase().as_str() {
            "fin" => &mut flags.fin,
            "syn" => &mut flags.syn,
            "rst" => &mut flags.rst,
            "psh" => &mut flags.psh,
            "ack" => &mut flags.ack,
            "urg" => &mut flags.urg,
            "ece" => &mut flags.ece,
            "cwr" => &mut flags.cwr,
            "ns" => &mut flags.ns,
            _ => bail!("{name:?} is not a TCP flag"),
        };
        *flag = true;
    }
    Ok(flags)
}

/// `TYPE[:SUBTYPE]`, each a name or a number; only traces and messages of agents have subtypes with names.
fn event_type(text: &str) -> Result<EventTypeFilter> {
    let (kind, sub) = text.split_once(':').map_or((text, None), |(kind, sub)| (kind, Some(sub)));
    let number = match kind {
        "drop" => 1,
        "debug" => 2,
        "capture" => 3,
        "trace" => TRACE,
        "policy-verdict" => 5,
        "recorder" => 6,
        "trace-sock" => 7,
        "l7" => 129,
        "agent" => AGENT,
        other => other.parse().context("want drop, capture, trace, policy-verdict, trace-sock or l7")?,
    };
    let named = |sub: &str| match number {
        TRACE => super::super::names::observation_point_number(sub),
        AGENT => AgentEventType::from_str_name(&sub.to_uppercase().replace('-', "_")).map(Into::into),
        _ => None,
    };
    let sub = sub.map(|sub| named(sub).or_else(|| sub.parse().ok()).context("is not a subtype")).transpose()?;
    Ok(EventTypeFilter { r#type: number, match_sub_type: sub.is_some(), sub_type: sub.unwrap_or_default() })
}
