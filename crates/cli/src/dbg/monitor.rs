// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg monitor`: live events. They come from Hubble, which any client may follow.

use anyhow::{Context, Result, bail};
use clap::Args;
use hubble::client::{SOCKET, Server};
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::{EventTypeFilter, Flow, FlowFilter, TraceReason, TrafficDirection, Verdict};
use hubble::proto::observer::GetFlowsRequest;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::to_json;

#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only events of these types: drop, trace, policy-verdict.
    #[arg(long = "type", short = 't', value_delimiter = ',')]
    types: Vec<String>,
    /// Only events whose source is this endpoint.
    #[arg(long, value_delimiter = ',')]
    from: Vec<u32>,
    /// Only events whose destination is this endpoint.
    #[arg(long, value_delimiter = ',')]
    to: Vec<u32>,
    /// Only events whose source or destination is this endpoint.
    #[arg(long, value_delimiter = ',')]
    related_to: Vec<u32>,
    /// Show flows as JSON.
    #[arg(long, short)]
    json: bool,
    /// Where Hubble listens.
    #[arg(long, default_value = SOCKET)]
    hubble_socket: String,
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let server = Server { address: format!("unix://{}", options.hubble_socket), ..Server::default() };
    let channel = server.connect().await.context("is Hubble enabled?")?;
    let whitelist = if options.types.is_empty() {
        Vec::new()
    } else {
        let event_type = options.types.iter().map(|name| event_type(name)).collect::<Result<_>>()?;
        vec![FlowFilter { event_type, ..FlowFilter::default() }]
    };
    let request = GetFlowsRequest { follow: true, whitelist, ..GetFlowsRequest::default() };
    let mut stream = ObserverClient::new(channel).get_flows(request).await?.into_inner();
    println!("Listening for events...");
    println!("Press Ctrl-C to quit");
    loop {
        let response = tokio::select! {
            response = stream.message() => response?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(response) = response else { return Ok(()) };
        match response.response_types {
            Some(ResponseTypes::Flow(flow)) if options.wants(&flow) => {
                println!("{}", if options.json { to_json(&flow)? } else { line(&flow) });
            }
            Some(ResponseTypes::LostEvents(lost)) => println!("Lost {} events", lost.num_events_lost),
            _ => {}
        }
    }
}

impl Options {
    fn wants(&self, flow: &Flow) -> bool {
        let (source, destination) = endpoints(flow);
        (self.from.is_empty() || self.from.contains(&source))
            && (self.to.is_empty() || self.to.contains(&destination))
            && (self.related_to.is_empty()
                || self.related_to.contains(&source)
                || self.related_to.contains(&destination))
    }
}

fn event_type(name: &str) -> Result<EventTypeFilter> {
    let number = match name {
        "drop" => 1,
        "trace" => 4,
        "policy-verdict" => 5,
        other => bail!("--type {other:?}: want drop, trace or policy-verdict"),
    };
    Ok(EventTypeFilter { r#type: number, ..EventTypeFilter::default() })
}

fn endpoints(flow: &Flow) -> (u32, u32) {
    let id = |e: &Option<hubble::proto::flow::Endpoint>| e.as_ref().map_or(0, |e| e.id);
    (id(&flow.source), id(&flow.destination))
}

/// Formats an event.
fn line(flow: &Flow) -> String {
    let identity = |e: &Option<hubble::proto::flow::Endpoint>| e.as_ref().map_or(0, |e| e.identity);
    let (from, to) = (identity(&flow.source), identity(&flow.destination));
    let packet = packet(flow);
    let interface = flow.interface.as_ref().map_or_else(String::new, |interface| {
        if interface.name.is_empty() {
            format!(" ifindex {}", interface.index)
        } else {
            format!(" ifindex {}", interface.name)
        }
    });
    let event = flow.event_type.unwrap_or_default();
    let (source, destination) = endpoints(flow);
    match event.r#type {
        1 => {
            let at = if destination == 0 { String::new() } else { format!(" to endpoint {destination}") };
            let reason = crate::hubble::drop_reason(event.sub_type);
            format!("xx drop ({reason}){at},{interface}, identity {from}->{to}: {packet}")
        }
        5 => {
            let ingress = flow.traffic_direction() == TrafficDirection::Ingress;
            let (local, remote) = if ingress { (destination, from) } else { (source, to) };
            let direction = if ingress { "ingress" } else { "egress" };
            let action = if flow.verdict() == Verdict::Dropped { "deny" } else { "allow" };
            let how = crate::hubble::policy_match(flow.policy_match_type);
            format!(
                "Policy verdict log: local EP ID {local}, remote ID {remote}, {direction}, action {action}, match {how}, {packet}"
            )
        }
        _ => {
            let point = crate::hubble::observation_point(event.sub_type);
            let point = point
                .strip_prefix("to-")
                .map_or_else(|| format!("<- {}", point.trim_start_matches("from-")), |to| format!("-> {to}"));
            let endpoint = match event.sub_type {
                0 => format!(" {destination}"),
                5 => format!(" {source}"),
                _ => String::new(),
            };
            let state = match flow.trace_reason() {
                TraceReason::Unknown => "unknown",
                TraceReason::New => "new",
                TraceReason::Established => "established",
                TraceReason::Reply => "reply",
                TraceReason::Related => "related",
                other => other.as_str_name(),
            };
            format!("{point}{endpoint}, identity {from}->{to} state {state}{interface}: {packet}")
        }
    }
}

fn packet(flow: &Flow) -> String {
    let ip = flow.ip.clone().unwrap_or_default();
    let host = |ip: &str, port: u32| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let ports = |s, d| format!("{} -> {}", host(&ip.source, s), host(&ip.destination, d));
    let words = flow.summary.trim_start_matches("TCP Flags: ");
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(p)) => format!("{} tcp {words}", ports(p.source_port, p.destination_port)),
        Some(Protocol::Udp(p)) => format!("{} udp", ports(p.source_port, p.destination_port)),
        Some(Protocol::Sctp(p)) => format!("{} sctp", ports(p.source_port, p.destination_port)),
        _ => format!("{} -> {} {words}", ip.source, ip.destination),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::flow::{CiliumEventType, Endpoint, Ip, Layer4, NetworkInterface, Tcp};

    fn flow(r#type: i32, sub_type: i32) -> Flow {
        let tcp = Tcp { source_port: 50000, destination_port: 80, flags: None };
        let endpoint = |id, identity| Some(Endpoint { id, identity, ..Endpoint::default() });
        Flow {
            ip: Some(Ip { source: "10.0.1.20".to_owned(), destination: "10.0.0.10".to_owned(), ..Ip::default() }),
            l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
            source: endpoint(0, 301),
            destination: endpoint(10, 300),
            event_type: Some(CiliumEventType { r#type, sub_type }),
            interface: Some(NetworkInterface { index: 9, name: String::new() }),
            summary: "TCP Flags: SYN".to_owned(),
            ..Flow::default()
        }
    }

    #[test]
    fn each_kind_of_event_has_its_line() {
        assert_eq!(
            line(&flow(1, 133)),
            "xx drop (Policy denied) to endpoint 10, ifindex 9, identity 301->300: 10.0.1.20:50000 -> 10.0.0.10:80 tcp SYN"
        );
        let trace = Flow { trace_reason: TraceReason::New.into(), ..flow(4, 0) };
        assert_eq!(
            line(&trace),
            "-> endpoint 10, identity 301->300 state new ifindex 9: 10.0.1.20:50000 -> 10.0.0.10:80 tcp SYN"
        );
        let denied = Flow {
            traffic_direction: TrafficDirection::Ingress.into(),
            verdict: Verdict::Dropped.into(),
            ..flow(5, 0)
        };
        assert!(line(&denied).starts_with(
            "Policy verdict log: local EP ID 10, remote ID 301, ingress, action deny, match none, 10.0.1.20:50000 ->"
        ));
    }

    #[test]
    fn endpoints_choose_what_is_shown() {
        let options = |from: &[u32], to: &[u32], related: &[u32]| Options {
            types: Vec::new(),
            from: from.to_vec(),
            to: to.to_vec(),
            related_to: related.to_vec(),
            json: false,
            hubble_socket: String::new(),
        };
        assert!(options(&[], &[], &[]).wants(&flow(1, 133)));
        assert!(options(&[], &[10], &[10, 11]).wants(&flow(1, 133)));
        assert!(!options(&[10], &[], &[]).wants(&flow(1, 133)) && !options(&[], &[], &[11]).wants(&flow(1, 133)));
    }
}
