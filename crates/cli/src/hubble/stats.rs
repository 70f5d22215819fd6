// SPDX-License-Identifier: Apache-2.0
//! `hubble stats`: who talks most, and what is dropped, why, and between whom.
//!
//! A packet counts once, as what became of it; verdicts of policies tell which rule dropped it.

use super::connect::Connection;
use super::filters;
use super::flows::Flows;
use super::names::{POLICY_VERDICT, drop_reason};
use super::print::{clean, path};
use crate::table::Table;
use anyhow::Result;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::{Endpoint, Flow, FlowType, Policy, Verdict};
use hubble::proto::observer::GetFlowsResponse;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use serde::Serialize;
use std::collections::HashMap;
use std::hash::Hash;

/// How many names a list tells apart; what comes under others then is counted together.
const MOST: usize = 100_000;
/// What stands for a drop that no rule asked for.
const NO_RULE: &str = "no rule allows it";

#[derive(Args, Clone, Debug)]
pub(super) struct Stats {
    #[command(flatten)]
    flows: Flows,
    /// Lines of each list.
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// How to show it.
    #[arg(long, short, value_enum, default_value = "table", ignore_case = true)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the command.
pub(super) async fn run(connection: &Connection, matches: &ArgMatches) -> Result<()> {
    let options = Stats::from_arg_matches(matches)?;
    let mut counts = Counts::default();
    let take = |response: &_| {
        counts.take(response);
        Ok(())
    };
    options.flows.each(connection, filters::compile(matches)?, take).await?;
    let report = counts.report(options.top);
    match options.output {
        Output::Table => print!("{}", report.render()),
        Output::Json => println!("{}", serde_json::to_string(&report)?),
    }
    Ok(())
}

/// Who asked whom, for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
struct Pair {
    source: String,
    destination: String,
    /// Such as `5432/TCP`; empty where there are no ports.
    port: String,
}

#[derive(Default)]
struct Counts {
    flows: u64,
    dropped: u64,
    lost: u64,
    talkers: Tally<String>,
    pairs: Tally<Pair>,
    reasons: Tally<String>,
    rules: Tally<String>,
    dropped_pairs: Tally<Pair>,
}

impl Counts {
    fn take(&mut self, response: &GetFlowsResponse) {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => self.flow(flow),
            Some(ResponseTypes::LostEvents(lost)) => self.lost += lost.num_events_lost,
            _ => {}
        }
    }

    fn flow(&mut self, flow: &Flow) {
        let dropped = flow.verdict() == Verdict::Dropped;
        if flow.event_type.is_some_and(|event| event.r#type == POLICY_VERDICT) {
            if dropped {
                self.rules.add(rule(flow));
            }
            return;
        }
        // Their packets are counted themselves.
        if matches!(flow.r#type(), FlowType::L7 | FlowType::Sock) {
            return;
        }
        self.flows += 1;
        let pair = pair(flow);
        self.talkers.add(pair.source.clone());
        if dropped {
            self.dropped += 1;
            self.reasons.add(drop_reason(flow.drop_reason_desc));
            self.dropped_pairs.add(pair.clone());
        }
        self.pairs.add(pair);
    }

    fn report(self, top: usize) -> Report {
        Report {
            flows: self.flows,
            dropped: self.dropped,
            lost_events: self.lost,
            talkers: self.talkers.top(top),
            pairs: self.pairs.top(top),
            drops: Drops {
                reasons: self.reasons.top(top),
                rules: self.rules.top(top),
                pairs: self.dropped_pairs.top(top),
            },
        }
    }
}

/// How often each of many things was seen.
struct Tally<K> {
    counts: HashMap<K, u64>,
    others: u64,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), others: 0 }
    }
}

impl<K: Hash + Ord> Tally<K> {
    fn add(&mut self, key: K) {
        if self.counts.len() >= MOST && !self.counts.contains_key(&key) {
            self.others += 1;
        } else {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    fn top(self, top: usize) -> List<K> {
        let mut counts: Vec<_> = self.counts.into_iter().map(|(what, count)| Line { what, count }).collect();
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.what.cmp(&b.what)));
        let others = self.others + counts.iter().skip(top).map(|line| line.count).sum::<u64>();
        counts.truncate(top);
        List { top: counts, others }
    }
}

/// What is shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    flows: u64,
    dropped: u64,
    lost_events: u64,
    talkers: List<String>,
    pairs: List<Pair>,
    drops: Drops,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Drops {
    reasons: List<String>,
    rules: List<String>,
    pairs: List<Pair>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct List<K> {
    top: Vec<Line<K>>,
    /// How many are under other names.
    others: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line<K> {
    what: K,
    count: u64,
}

impl Report {
    fn render(&self) -> String {
        let mut text = format!("Flows: {} ({} dropped)\n", self.flows, self.dropped);
        if self.lost_events > 0 {
            text += &format!("EVENTS LOST: {}\n", self.lost_events);
        }
        text += &section("TALKER", &self.talkers, |name| vec![name.clone()]);
        text += &section("FROM|TO|PORT", &self.pairs, Pair::cells);
        text += &section("DROPPED FOR", &self.drops.reasons, |name| vec![name.clone()]);
        text += &section("DROPPED BY", &self.drops.rules, |name| vec![name.clone()]);
        text + &section("DROPPED FROM|TO|PORT", &self.drops.pairs, Pair::cells)
    }
}

impl Pair {
    fn cells(&self) -> Vec<String> {
        vec![self.source.clone(), self.destination.clone(), self.port.clone()]
    }
}

fn section<K>(title: &str, list: &List<K>, cells: impl Fn(&K) -> Vec<String>) -> String {
    if list.top.is_empty() {
        return String::new();
    }
    let mut table = Table::new(title.split('|').chain(["COUNT"]));
    for line in &list.top {
        table.row(cells(&line.what).iter().map(|cell| clean(cell)).chain([line.count.to_string()]));
    }
    if list.others > 0 {
        let blank = title.split('|').skip(1).map(|_| String::new());
        table.row(["(others)".to_owned()].into_iter().chain(blank).chain([list.others.to_string()]));
    }
    format!("\n{table}")
}

/// The sides as they are in the forward direction.
fn pair(flow: &Flow) -> Pair {
    let ip = flow.ip.as_ref();
    let source = name(flow.source.as_ref(), ip.map_or("", |ip| &ip.source), &flow.source_names);
    let destination = name(flow.destination.as_ref(), ip.map_or("", |ip| &ip.destination), &flow.destination_names);
    let (source_port, destination_port, protocol) = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => (tcp.source_port, tcp.destination_port, "TCP"),
        Some(Protocol::Udp(udp)) => (udp.source_port, udp.destination_port, "UDP"),
        Some(Protocol::Sctp(sctp)) => (sctp.source_port, sctp.destination_port, "SCTP"),
        Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_)) => (0, 0, "ICMP"),
        _ => (0, 0, ""),
    };
    let port = |port: u32| if port == 0 { protocol.to_owned() } else { format!("{port}/{protocol}") };
    if flow.is_reply == Some(true) {
        Pair { source: destination, destination: source, port: port(source_port) }
    } else {
        Pair { source, destination, port: port(destination_port) }
    }
}

/// The pod, or the name or address with what the identity says of it.
fn name(endpoint: Option<&Endpoint>, ip: &str, names: &[String]) -> String {
    if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.pod_name.is_empty()) {
        return path(&endpoint.namespace, &endpoint.pod_name);
    }
    let shown = names.first().map_or(ip, String::as_str);
    let reserved = endpoint.and_then(|endpoint| model::reserved::name(model::IdentityId(endpoint.identity)));
    reserved.map_or_else(|| shown.to_owned(), |reserved| format!("{shown} ({reserved})"))
}

/// The rules that a verdict names.
fn rule(flow: &Flow) -> String {
    let rules = flow.egress_denied_by.iter().chain(&flow.ingress_denied_by);
    let names: Vec<_> =
        rules.map(|Policy { kind, namespace, name, .. }| format!("{kind} {}", path(namespace, name))).collect();
    if names.is_empty() { NO_RULE.to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::flow::{CiliumEventType, Ip, Layer4, LostEvent, Tcp};

    fn flow(source: &str, destination: &str, ports: (u32, u32)) -> Flow {
        let pod = |name: &str| Endpoint { namespace: "shop".into(), pod_name: name.into(), ..Endpoint::default() };
        let tcp = Tcp { source_port: ports.0, destination_port: ports.1, flags: None };
        Flow {
            verdict: Verdict::Forwarded.into(),
            source: Some(pod(source)),
            destination: Some(pod(destination)),
            l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
            ip: Some(Ip::default()),
            ..Flow::default()
        }
    }

    fn report(flows: impl IntoIterator<Item = Flow>, top: usize) -> Report {
        let mut counts = Counts::default();
        flows.into_iter().for_each(|flow| counts.flow(&flow));
        counts.report(top)
    }

    fn pair(source: &str, destination: &str, port: &str) -> Pair {
        Pair { source: source.into(), destination: destination.into(), port: port.into() }
    }

    fn dropped(flow: Flow) -> Flow {
        Flow { verdict: Verdict::Dropped.into(), drop_reason_desc: 133, ..flow }
    }

    #[test]
    fn both_directions_of_a_connection_are_one_pair_of_who_opened_it() {
        let there = flow("web", "db", (40_000, 5432));
        let back = Flow { is_reply: Some(true), ..flow("db", "web", (5432, 40_000)) };
        let report = report([there, back], 10);
        assert_eq!(report.pairs.top, [Line { what: pair("shop/web", "shop/db", "5432/TCP"), count: 2 }]);
        assert_eq!(report.talkers.top, [Line { what: "shop/web".to_owned(), count: 2 }]);
    }

    #[test]
    fn a_request_and_a_translation_of_a_socket_are_no_packet_more() {
        let other = |of: FlowType| Flow { r#type: of.into(), ..flow("web", "db", (40_000, 5432)) };
        let flows = [other(FlowType::L7), other(FlowType::Sock), flow("web", "db", (40_000, 5432))];
        assert_eq!(report(flows, 10).flows, 1);
    }

    #[test]
    fn drops_are_counted_once_by_reason_and_pair_and_named_by_their_rules() {
        let verdict = |policies: &[&str]| Flow {
            event_type: Some(CiliumEventType { r#type: POLICY_VERDICT, sub_type: 0 }),
            ingress_denied_by: policies
                .iter()
                .map(|name| Policy {
                    kind: "CiliumNetworkPolicy".into(),
                    namespace: "shop".into(),
                    name: (*name).into(),
                    ..Policy::default()
                })
                .collect(),
            ..dropped(flow("web", "db", (40_000, 80)))
        };
        let report = report(
            [
                verdict(&["wall"]),
                dropped(flow("web", "db", (40_000, 80))),
                verdict(&[]),
                dropped(flow("web", "db", (40_001, 80))),
            ],
            10,
        );
        assert_eq!((report.flows, report.dropped), (2, 2));
        assert_eq!(report.drops.reasons.top, [Line { what: "Policy denied".to_owned(), count: 2 }]);
        assert_eq!(report.drops.pairs.top, [Line { what: pair("shop/web", "shop/db", "80/TCP"), count: 2 }]);
        let rules = ["CiliumNetworkPolicy shop/wall", NO_RULE].map(|what| Line { what: what.to_owned(), count: 1 });
        assert_eq!(report.drops.rules.top, rules);
    }

    #[test]
    fn what_is_beyond_the_top_is_counted_together() {
        let flows = (1..=4_u32).flat_map(|n| std::iter::repeat_n(flow(&format!("web-{n}"), "db", (1, 80)), n as usize));
        let report = report(flows, 2);
        assert_eq!(report.talkers.top.iter().map(|line| line.count).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(report.talkers.others, 3);
        let text = report.render();
        assert!(text.contains("FROM") && text.contains("shop/web-4") && text.contains("(others)"), "{text}");
    }

    #[test]
    fn names_cannot_write_to_the_terminal_and_losses_are_told() {
        let mut counts = Counts::default();
        counts.flow(&flow("web\x1b[2J", "db", (1, 80)));
        let lost = LostEvent { num_events_lost: 7, ..LostEvent::default() };
        counts.take(&GetFlowsResponse {
            response_types: Some(ResponseTypes::LostEvents(lost)),
            ..GetFlowsResponse::default()
        });
        let text = counts.report(10).render();
        assert!(!text.contains('\x1b') && text.contains("EVENTS LOST: 7"), "{text}");
    }
}
