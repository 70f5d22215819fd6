// SPDX-License-Identifier: Apache-2.0
//! Connections: the flow table, in which each direction of a connection, at each hook it passes, has an entry.

use super::{Output, flags, protocol, socket};
use abi::flow::flags::{CLOSING, ESTABLISHED, MASQUERADE, NAT_DST, NAT_SRC, REPLY};
use abi::flow::{FROM_POD, FlowEntry, FlowKey, TICK_NS, action, lifetime};
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
    hook: &'static str,
    source: String,
    destination: String,
    action: &'static str,
    flags: String,
    source_identity: u32,
    destination_identity: u32,
    source_endpoint: u16,
    destination_endpoint: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    translated_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    translated_destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<String>,
    service: u32,
    packets: u64,
    bytes: u64,
    idle_seconds: u64,
    expires_seconds: u64,
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
    let mut entries = maps.map::<Flows>()?.entries()?;
    entries.retain(|(_, e)| endpoint.is_none_or(|id| e.src_endpoint == id || e.dst_endpoint == id));
    entries.sort_by_key(|(key, _)| {
        (
            key.proto,
            IpAddr::from(key.src),
            u16::from_be(key.sport),
            IpAddr::from(key.dst),
            u16::from_be(key.dport),
            key.hook,
        )
    });
    Ok(entries.iter().map(|(key, entry)| connection(key, entry, now)).collect())
}

fn connection(key: &FlowKey, entry: &FlowEntry, now: u32) -> Connection {
    let names = [
        (u32::from(NAT_SRC), "nat-src"),
        (u32::from(NAT_DST), "nat-dst"),
        (u32::from(REPLY), "reply"),
        (u32::from(MASQUERADE), "masquerade"),
        (u32::from(CLOSING), "closing"),
        (u32::from(ESTABLISHED), "established"),
    ];
    let idle = Duration::from_nanos(u64::from(now.wrapping_sub(entry.last_seen)).saturating_mul(TICK_NS)).as_secs();
    let translated = |flag, ip, port| (entry.flags & flag != 0).then(|| socket(ip, port));
    Connection {
        protocol: protocol(key.proto),
        hook: if key.hook == FROM_POD { "OUT" } else { "IN" },
        source: socket(key.src, key.sport),
        destination: socket(key.dst, key.dport),
        action: match entry.action {
            action::STACK => "stack",
            action::LOCAL => "local",
            action::TUNNEL => "tunnel",
            action::NEIGH => "neighbour",
            _ => "unknown",
        },
        flags: flags(entry.flags.into(), &names),
        source_identity: entry.src_identity,
        destination_identity: entry.dst_identity,
        source_endpoint: entry.src_endpoint,
        destination_endpoint: entry.dst_endpoint,
        translated_source: translated(NAT_SRC, entry.nat_src, entry.nat_sport),
        translated_destination: translated(NAT_DST, entry.nat_dst, entry.nat_dport),
        tunnel: (entry.action == action::TUNNEL).then(|| entry.tunnel.to_string()),
        service: entry.service,
        packets: entry.packets,
        bytes: entry.bytes,
        idle_seconds: idle,
        expires_seconds: u64::from(lifetime(key.proto, entry.flags)).saturating_sub(idle),
    }
}

fn line(c: &Connection) -> String {
    let optional =
        |name: &str, value: &Option<String>| value.as_ref().map_or_else(String::new, |v| format!(" {name}={v}"));
    format!(
        "{} {} {} -> {} expires={}s Action={}{} Flags={} SourceSecurityID={} DestinationSecurityID={}{}{} Packets={} Bytes={}\n",
        c.protocol,
        c.hook,
        c.source,
        c.destination,
        c.expires_seconds,
        c.action,
        optional("Tunnel", &c.tunnel),
        c.flags,
        c.source_identity,
        c.destination_identity,
        optional("Source", &c.translated_source),
        optional("Destination", &c.translated_destination),
        c.packets,
        c.bytes
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_connection_is_one_line_and_can_be_chosen_by_endpoint() {
        let kernel = datapath::fake::Kernel::new();
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let key = FlowKey {
            src: addr("10.0.0.10"),
            dst: addr("10.96.0.5"),
            sport: 41000_u16.to_be(),
            dport: 80_u16.to_be(),
            proto: 6,
            hook: FROM_POD,
            pad: 0,
        };
        let entry = FlowEntry {
            src_endpoint: 10,
            src_identity: 300,
            dst_identity: 301,
            action: action::TUNNEL,
            tunnel: addr("192.168.0.2"),
            flags: NAT_DST | ESTABLISHED,
            nat_dst: addr("10.0.1.20"),
            nat_dport: 8080_u16.to_be(),
            last_seen: 100,
            packets: 5,
            bytes: 300,
            ..FlowEntry::default()
        };
        kernel.map::<Flows>().unwrap().insert(&key, &entry).unwrap();
        let all = list(&kernel, None, 100).unwrap();
        assert_eq!(
            all.iter().map(line).collect::<String>(),
            "TCP OUT 10.0.0.10:41000 -> 10.96.0.5:80 expires=8000s Action=tunnel Tunnel=192.168.0.2 Flags=nat-dst,established \
             SourceSecurityID=300 DestinationSecurityID=301 Destination=10.0.1.20:8080 Packets=5 Bytes=300\n"
        );
        assert_eq!(list(&kernel, Some(10), 100).unwrap().len(), 1);
        assert!(list(&kernel, Some(11), 100).unwrap().is_empty());
        assert!(list(&kernel, None, 200).unwrap().first().unwrap().expires_seconds < 8000);
    }
}
