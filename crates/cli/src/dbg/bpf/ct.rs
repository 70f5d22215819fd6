// SPDX-License-Identifier: Apache-2.0
//! Connections: the flow table, with one record each, shown from the side of whoever opened it.

use super::{Output, flags, protocol, socket};
use abi::flow::flags::{DIRECT, MASQUERADE, NAT_DST, NAT_SRC, REFUSED};
use abi::flow::{Flow, FlowKey, Half, State, TICK_NS, action};
use abi::maps::Flows;
use anyhow::{Context, Result};
use datapath::Kernel;
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Connection {
    protocol: String,
    direction: &'static str,
    source: String,
    destination: String,
    state: &'static str,
    flags: String,
    source_identity: u32,
    destination_identity: u32,
    source_endpoint: u16,
    destination_endpoint: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    translated_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    translated_destination: Option<String>,
    service: u32,
    #[serde(flatten)]
    forward: Traffic,
    reply: Traffic,
    idle_seconds: u64,
    expires_seconds: u64,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Traffic {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<String>,
    packets: u64,
    bytes: u64,
}

pub(super) fn show<K: Kernel>(maps: &K, whose: &str, output: &Output) -> Result<()> {
    let endpoint = match whose {
        "global" => None,
        id => Some(id.parse::<u16>().with_context(|| format!("{id:?} is neither \"global\" nor an endpoint"))?),
    };
    let connections = list(maps, endpoint, datapath::flows::now())?;
    output.format().print(&connections, || connections.iter().map(line).collect())
}

fn list<K: Kernel>(maps: &K, endpoint: Option<u16>, now: u32) -> Result<Vec<Connection>> {
    let mut flows = Vec::new();
    maps.map::<Flows>()?.visit(|key, flow| {
        if key.alias == 0 && endpoint.is_none_or(|id| flow.src_endpoint == id || flow.dst_endpoint == id) {
            flows.push((*key, *flow));
        }
        Ok(())
    })?;
    flows.sort_by_key(|(key, flow)| {
        let opening = flow.opening(key);
        let [source, destination] = [(opening.src, opening.sport), (opening.dst, opening.dport)]
            .map(|(ip, port)| (IpAddr::from(ip), u16::from_be(port)));
        (key.proto, source, destination)
    });
    Ok(flows.iter().map(|(key, flow)| connection(key, flow, now)).collect())
}

fn connection(key: &FlowKey, flow: &Flow, now: u32) -> Connection {
    let names = [(NAT_SRC, "nat-src"), (NAT_DST, "nat-dst"), (MASQUERADE, "masquerade"), (DIRECT, "direct")]
        .map(|(flag, name)| (u32::from(flag), name));
    let opening = flow.opening(key);
    let heard = flow.forward.last_seen.max(flow.reply.last_seen);
    let idle = seconds(now.saturating_sub(heard));
    let translated = |flag, ip, port| flow.has(flag).then(|| socket(ip, port));
    Connection {
        protocol: protocol(key.proto),
        direction: if flow.src_endpoint == 0 { "IN" } else { "OUT" },
        source: socket(opening.src, opening.sport),
        destination: socket(opening.dst, opening.dport),
        state: state(key, flow),
        flags: flags(flow.flags.into(), &names),
        source_identity: flow.src_identity,
        destination_identity: flow.dst_identity,
        source_endpoint: flow.src_endpoint,
        destination_endpoint: flow.dst_endpoint,
        translated_source: translated(NAT_SRC, flow.nat_src, flow.nat_sport),
        translated_destination: translated(NAT_DST, flow.nat_dst, flow.nat_dport),
        service: flow.service,
        forward: traffic(&flow.forward),
        reply: traffic(&flow.reply),
        idle_seconds: idle,
        expires_seconds: seconds(flow.state(key.proto).lifetime(key.proto)).saturating_sub(idle),
    }
}

fn seconds(ticks: u32) -> u64 {
    Duration::from_nanos(u64::from(ticks).saturating_mul(TICK_NS)).as_secs()
}

fn state(key: &FlowKey, flow: &Flow) -> &'static str {
    match flow.state(key.proto) {
        _ if flow.has(REFUSED) => "refused",
        State::Opening => "opening",
        State::Established => "established",
        State::Closed => "closed",
    }
}

fn traffic(half: &Half) -> Traffic {
    Traffic {
        action: match half.action {
            action::STACK => "stack",
            action::LOCAL => "local",
            action::TUNNEL => "tunnel",
            action::NEIGH => "neighbour",
            _ => "unknown",
        },
        tunnel: (half.action == action::TUNNEL).then(|| half.hop.to_string()),
        packets: half.packets,
        bytes: half.bytes,
    }
}

fn line(c: &Connection) -> String {
    let optional =
        |name: &str, value: &Option<String>| value.as_ref().map_or_else(String::new, |v| format!(" {name}={v}"));
    format!(
        "{} {} {} -> {} expires={}s State={} Action={}{} ReplyAction={}{} Flags={} SourceSecurityID={} DestinationSecurityID={}{}{} \
         Packets={} Bytes={} ReplyPackets={} ReplyBytes={}\n",
        c.protocol,
        c.direction,
        c.source,
        c.destination,
        c.expires_seconds,
        c.state,
        c.forward.action,
        optional("Tunnel", &c.forward.tunnel),
        c.reply.action,
        optional("ReplyTunnel", &c.reply.tunnel),
        c.flags,
        c.source_identity,
        c.destination_identity,
        optional("Source", &c.translated_source),
        optional("Destination", &c.translated_destination),
        c.forward.packets,
        c.forward.bytes,
        c.reply.packets,
        c.reply.bytes
    )
}

#[cfg(test)]
mod tests;
