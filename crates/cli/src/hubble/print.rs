// SPDX-License-Identifier: Apache-2.0
//! Flows as people read them.

mod layer7;

use super::names;
use super::times::TimeFormat;
use crate::table::Table;
use anyhow::Result;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::{
    AuthType, DebugCapturePoint, Endpoint, Flow, LostEvent, Service, SocketTranslationPoint, Verdict,
};
use hubble::proto::observer::GetFlowsResponse;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::relay::{NodeState, NodeStatusEvent};
use hubble::proto::to_json;
use std::fmt::Display;
use std::io::Write;

/// How flows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// One line each.
    Compact,
    /// A block each.
    Dict,
    /// As the API has them, one JSON object a line.
    #[value(alias = "JSON")]
    Json,
    /// As json.
    Jsonpb,
    /// A table.
    #[value(alias = "tab")]
    Table,
}

/// Shows flows.
pub(super) struct Printer<W> {
    pub(super) out: W,
    pub(super) output: Output,
    pub(super) time: TimeFormat,
    pub(super) node_name: bool,
    /// Names instead of addresses.
    pub(super) translate: bool,
    pub(super) color: bool,
    pub(super) debug: bool,
    pub(super) rows: Option<Table>,
    pub(super) lines: usize,
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BLUE: &str = "34";
const MAGENTA: &str = "35";
const CYAN: &str = "36";

impl Printer<std::io::Stderr> {
    /// For what has no place in what a command writes.
    pub(super) fn aside() -> Self {
        let (out, output, time) = (std::io::stderr(), Output::Compact, TimeFormat::StampMilli);
        let (node_name, translate, color, debug) = (false, false, false, false);
        Self { out, output, time, node_name, translate, color, debug, rows: None, lines: 0 }
    }
}

impl<W: Write> Printer<W> {
    /// Shows a response; what is about nodes goes to standard error.
    pub(super) fn print(&mut self, response: &GetFlowsResponse) -> Result<()> {
        match &response.response_types {
            Some(ResponseTypes::NodeStatus(status)) => self.node_status(response, status)?,
            Some(_) if matches!(self.output, Output::Json | Output::Jsonpb) => match shown(to_json(response)) {
                Some(text) => writeln!(self.out, "{text}")?,
                None => return Ok(()),
            },
            Some(ResponseTypes::Flow(flow)) => self.flow(flow)?,
            Some(ResponseTypes::LostEvents(lost)) => self.lost(lost)?,
            None => return Ok(()),
        }
        self.lines += 1;
        Ok(self.out.flush()?)
    }

    /// Shows what was held back: a table is laid out when all of it is there.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let Some(table) = self.rows.take() {
            write!(self.out, "{table}")?;
        }
        Ok(())
    }

    fn flow(&mut self, flow: &Flow) -> Result<()> {
        let time = self.time.format(flow.time.as_ref());
        let (source, destination) = self.hosts(flow);
        let (kind, verdict, summary) = (flow_type(flow), self.verdict(flow), self.summary(flow));
        match self.output {
            Output::Table => {
                let columns = [time, source, destination, kind, verdict, summary];
                self.row(clean(&flow.node_name), columns);
            }
            Output::Dict => {
                if self.lines > 0 {
                    writeln!(self.out, "------------")?;
                }
                writeln!(self.out, "  TIMESTAMP: {time}")?;
                if self.node_name {
                    writeln!(self.out, "       NODE: {}", clean(&flow.node_name))?;
                }
                writeln!(self.out, "     SOURCE: {source}\nDESTINATION: {destination}\n       TYPE: {kind}")?;
                writeln!(self.out, "    VERDICT: {verdict}\n    SUMMARY: {summary}")?;
            }
            _ => {
                let node = if self.node_name { format!(" [{}]", clean(&flow.node_name)) } else { String::new() };
                let left = format!("{source} {}", self.identity(flow.source.as_ref()));
                let right = format!("{destination} {}", self.identity(flow.destination.as_ref()));
                let (left, arrow, right) = match flow.is_reply {
                    None => (left, "<>", right),
                    Some(false) => (left, "->", right),
                    Some(true) => (right, "<-", left),
                };
                writeln!(self.out, "{time}{node}: {left} {arrow} {right} {kind} {verdict} ({summary})")?;
            }
        }
        Ok(())
    }

    fn lost(&mut self, lost: &LostEvent) -> Result<()> {
        let (source, cpu) = (lost.source().as_str_name(), lost.cpu.unwrap_or_default());
        let count = lost.num_events_lost;
        match self.output {
            Output::Table => {
                let summary = format!("CPU({cpu}) - {count}");
                let columns = ["", source, "", "EVENTS LOST", "", summary.as_str()].map(str::to_owned);
                self.row(String::new(), columns);
            }
            Output::Dict => {
                if self.lines > 0 {
                    writeln!(self.out, "------------")?;
                }
                writeln!(self.out, "  TIMESTAMP: \n     SOURCE: {source}\n       TYPE: EVENTS LOST")?;
                writeln!(self.out, "    VERDICT: \n    SUMMARY: CPU({cpu}) - {count}")?;
            }
            _ => writeln!(self.out, "EVENTS LOST: {source} CPU({cpu}) {count}")?,
        }
        Ok(())
    }

    fn row(&mut self, node: String, columns: [String; 6]) {
        let with_node = self.node_name;
        let expand = |columns: [String; 6], node: String| {
            let mut columns = columns.to_vec();
            if with_node {
                columns.insert(1, node);
            }
            columns
        };
        let table = self.rows.get_or_insert_with(|| {
            let header = ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"].map(str::to_owned);
            Table::new(expand(header, "NODE".to_owned()))
        });
        table.row(expand(columns, node));
    }

    fn node_status(&self, response: &GetFlowsResponse, status: &NodeStatusEvent) -> Result<()> {
        let state = status.state_change();
        if !self.debug && !matches!(state, NodeState::NodeError | NodeState::NodeUnavailable) {
            return Ok(());
        }
        let prefix = format!("{} [{}]", self.time.format(response.time.as_ref()), clean(&response.node_name));
        let (count, names) = (status.node_names.len(), clean(&join_names(&status.node_names)));
        let mut err = std::io::stderr().lock();
        match state {
            NodeState::NodeConnected => writeln!(err, "{prefix}: Receiving flows from {count} nodes: {names}")?,
            NodeState::NodeUnavailable => writeln!(err, "{prefix}: {count} nodes are unavailable: {names}")?,
            NodeState::NodeGone => writeln!(err, "{prefix}: {count} nodes removed from cluster: {names}")?,
            NodeState::NodeError => writeln!(err, "{prefix}: Error {:?} on {count} nodes: {names}", status.message)?,
            NodeState::UnknownNodeState => writeln!(err, "{prefix}: unknown node status event: {names}")?,
        }
        Ok(())
    }

    fn hosts(&self, flow: &Flow) -> (String, String) {
        let Some(ip) = &flow.ip else {
            let macs = flow.ethernet.clone().unwrap_or_default();
            return (self.paint(CYAN, &clean(&macs.source)), self.paint(CYAN, &clean(&macs.destination)));
        };
        let (source_port, destination_port) = ports(flow);
        let host = |peer: &Peer<'_>| self.paint(CYAN, &self.host(peer));
        (
            host(&Peer {
                ip: &ip.source,
                port: source_port,
                endpoint: flow.source.as_ref(),
                service: flow.source_service.as_ref(),
                names: &flow.source_names,
            }),
            host(&Peer {
                ip: &ip.destination,
                port: destination_port,
                endpoint: flow.destination.as_ref(),
                service: flow.destination_service.as_ref(),
                names: &flow.destination_names,
            }),
        )
    }

    fn host(&self, peer: &Peer<'_>) -> String {
        let pod = peer.endpoint.filter(|e| !e.pod_name.is_empty()).map(|e| path(&e.namespace, &e.pod_name));
        let service = || peer.service.filter(|s| !s.name.is_empty()).map(|s| path(&s.namespace, &s.name));
        let names = || (!peer.names.is_empty()).then(|| peer.names.join(","));
        let name = if self.translate { pod.or_else(service).or_else(names) } else { None };
        let host = clean(&name.unwrap_or_else(|| peer.ip.to_owned()));
        match peer.port.filter(|port| *port != 0) {
            Some(port) => {
                let port = self.paint(YELLOW, &port.to_string());
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
            }
            None => host,
        }
    }

    fn identity(&self, endpoint: Option<&Endpoint>) -> String {
        let id = endpoint.map_or(0, |e| e.identity);
        let reserved = model::reserved::name(model::IdentityId(id)).or((id == 0).then_some("unknown"));
        let text = reserved.map_or_else(|| format!("(ID:{id})"), |name| format!("({name})"));
        self.paint(MAGENTA, &text)
    }

    fn verdict(&self, flow: &Flow) -> String {
        let policy = flow.event_type.is_some_and(|e| e.r#type == names::POLICY_VERDICT);
        let verdict = flow.verdict();
        let (color, text) = match verdict {
            Verdict::Forwarded | Verdict::Redirected if policy => (GREEN, "ALLOWED"),
            Verdict::Dropped | Verdict::Error if policy => (RED, "DENIED"),
            Verdict::Audit if policy => (YELLOW, "AUDITED"),
            Verdict::Forwarded | Verdict::Redirected => (GREEN, verdict.as_str_name()),
            Verdict::Dropped | Verdict::Error => (RED, verdict.as_str_name()),
            Verdict::Audit | Verdict::Traced => (YELLOW, verdict.as_str_name()),
            Verdict::Translated => (BLUE, verdict.as_str_name()),
            Verdict::Unknown => return verdict.as_str_name().to_owned(),
        };
        self.paint(color, text)
    }

    fn summary(&self, flow: &Flow) -> String {
        let trace = flow.ip_trace_id.filter(|id| id.trace_id > 0);
        let trace = trace.map_or_else(String::new, |id| format!("IP Trace ID: {}; ", id.trace_id));
        let auth = match flow.auth_type() {
            AuthType::Disabled => String::new(),
            AuthType::TestAlwaysFail => format!("; {}", self.paint(RED, AuthType::TestAlwaysFail.as_str_name())),
            other => format!("; {}", self.paint(GREEN, other.as_str_name())),
        };
        let said = match &flow.l7 {
            // A server may leave it to clients, and a mask may leave it out.
            Some(l7) if flow.summary.is_empty() => layer7::summary(l7),
            _ => flow.summary.clone(),
        };
        format!("{trace}{}{auth}", clean(&said))
    }

    fn paint(&self, color: &str, text: &str) -> String {
        let plain = !self.color || text.is_empty() || self.output == Output::Table;
        if plain { text.to_owned() } else { format!("\x1b[{color}m{text}\x1b[0m") }
    }
}

struct Peer<'a> {
    ip: &'a str,
    port: Option<u32>,
    endpoint: Option<&'a Endpoint>,
    service: Option<&'a Service>,
    names: &'a [String],
}

pub(super) fn path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Of both ends, where the protocol has any.
pub(super) fn ports(flow: &Flow) -> (Option<u32>, Option<u32>) {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(p)) => (Some(p.source_port), Some(p.destination_port)),
        Some(Protocol::Udp(p)) => (Some(p.source_port), Some(p.destination_port)),
        Some(Protocol::Sctp(p)) => (Some(p.source_port), Some(p.destination_port)),
        _ => (None, None),
    }
}

/// What kind of event the flow was.
pub(super) fn flow_type(flow: &Flow) -> String {
    if let Some(l7) = &flow.l7 {
        return layer7::kind(l7);
    }
    let event = flow.event_type.unwrap_or_default();
    match event.r#type {
        1 => names::drop_reason(event.sub_type),
        4 => names::observation_point(event.sub_type),
        names::POLICY_VERDICT => {
            let how = names::policy_match(flow.policy_match_type);
            format!("policy-verdict:{how} {}", flow.traffic_direction().as_str_name())
        }
        3 => DebugCapturePoint::try_from(flow.debug_capture_point).unwrap_or_default().as_str_name().to_owned(),
        7 => match flow.sock_xlate_point() {
            SocketTranslationPoint::SockXlatePointPreDirectionFwd => "pre-xlate-fwd".to_owned(),
            SocketTranslationPoint::SockXlatePointPostDirectionFwd => "post-xlate-fwd".to_owned(),
            SocketTranslationPoint::SockXlatePointPreDirectionRev => "pre-xlate-rev".to_owned(),
            SocketTranslationPoint::SockXlatePointPostDirectionRev => "post-xlate-rev".to_owned(),
            other => other.as_str_name().to_owned(),
        },
        _ => "UNKNOWN".to_owned(),
    }
}

/// Names until the line gets long, and how many are not shown.
fn join_names(names: &[String]) -> String {
    let mut shown = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 && shown.len() + name.len() > 50 {
            return format!("{shown} (and {} more)", names.len() - index);
        }
        if index > 0 {
            shown.push_str(", ");
        }
        shown.push_str(name);
    }
    shown
}

/// What is to be shown. Of what cannot be, such as JSON of a time that no calendar has, standard error says why: whoever made it up does not
/// end a command.
pub(super) fn shown<E: Display>(text: Result<String, E>) -> Option<String> {
    text.inspect_err(|error| eprintln!("hubble: an answer is left out: {}", clean(&error.to_string()))).ok()
}

/// Text from the network without what a terminal would take for a command, or for the end of a line or the other direction of writing.
pub(super) fn clean(text: &str) -> String {
    let commands = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if commands(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests;
