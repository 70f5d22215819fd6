// SPDX-License-Identifier: Apache-2.0
//! Flags become filters.

use anyhow::{Context, Result, anyhow, bail};
use hubble::proto::flow::flow_filter::Experimental;
use hubble::proto::flow::{
    DropReason, EventTypeFilter, FlowFilter, HttpHeader, IpVersion, NetworkInterface, TcpFlags, TrafficDirection,
    Verdict, Workload,
};

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

#[derive(Default)]
struct Half {
    filter: FlowFilter,
    pods: Names,
    peers: Names,
}

/// Names of one side, of which pods may stand in the namespaces that were given apart.
#[derive(Default)]
struct Names {
    namespaces: Vec<String>,
    pods: Vec<String>,
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

    /// Takes in a flag.
    pub(super) fn apply(&mut self, flag: &str, value: &str) -> Result<()> {
        let (side, name) = match flag.split_once('-') {
            Some(("from", name)) => (Side::Source, name),
            Some(("to", name)) => (Side::Destination, name),
            _ => (Side::Both, flag),
        };
        let text = || value.to_owned();
        match name {
            "pod" => self.side(side, |h| h.pods.pods.push(text()), |h| h.peers.pods.push(text())),
            "namespace" => self.side(side, |h| h.pods.namespaces.push(text()), |h| h.peers.namespaces.push(text())),
            "all-namespaces" => {
                let any = || "/".to_owned();
                self.side(side, |h| h.filter.source_pod.push(any()), |h| h.filter.destination_pod.push(any()));
            }
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
                    "v4" | "ipv4" | "4" => IpVersion::IPv4,
                    "v6" | "ipv6" | "6" => IpVersion::IPv6,
                    _ => bail!("want none, v4 or v6"),
                };
                self.both(|f| f.ip_version.push(version.into()));
            }
            "ip-trace-id" => {
                let id = value.parse().context("want a number")?;
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
        filter.source_pod.append(&mut self.pods.qualified()?);
        filter.destination_pod.append(&mut self.peers.qualified()?);
        Ok(filter)
    }
}

impl Names {
    fn qualified(self) -> Result<Vec<String>> {
        if self.pods.is_empty() {
            return Ok(self.namespaces.into_iter().map(|namespace| namespace + "/").collect());
        }
        if self.namespaces.is_empty() {
            return Ok(self.pods);
        }
        if let Some(pod) = self.pods.iter().find(|pod| pod.contains('/')) {
            return Err(anyhow!("{pod:?} names a namespace, and so does another flag: give it only once"));
        }
        let pods = &self.pods;
        Ok(self.namespaces.iter().flat_map(|n| pods.iter().map(move |p| format!("{n}/{p}"))).collect())
    }
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

fn tcp_flags(text: &str) -> Result<TcpFlags> {
    let mut flags = TcpFlags::default();
    let flag = match text.to_lowercase().as_str() {
        "fin" => &mut flags.fin,
        "syn" => &mut flags.syn,
        "rst" => &mut flags.rst,
        "psh" => &mut flags.psh,
        "ack" => &mut flags.ack,
        "urg" => &mut flags.urg,
        "ece" => &mut flags.ece,
        "cwr" => &mut flags.cwr,
        "ns" => &mut flags.ns,
        _ => bail!("is not a TCP flag"),
    };
    *flag = true;
    Ok(flags)
}

fn event_type(text: &str) -> Result<EventTypeFilter> {
    let (kind, sub) = text.split_once(':').map_or((text, None), |(kind, sub)| (kind, Some(sub)));
    let number = match kind {
        "drop" => 1,
        "debug" => 2,
        "capture" => 3,
        "trace" => 4,
        "policy-verdict" => 5,
        "trace-sock" => 7,
        "l7" => 129,
        "agent" => 130,
        other => other.parse().context("want drop, capture, trace, policy-verdict, trace-sock or l7")?,
    };
    let sub = sub.map(|sub| super::super::names::observation_point_number(sub).or_else(|| sub.parse().ok()));
    let sub_type = sub.map(|sub| sub.context("is not a subtype")).transpose()?;
    Ok(EventTypeFilter { r#type: number, match_sub_type: sub_type.is_some(), sub_type: sub_type.unwrap_or_default() })
}
