// SPDX-License-Identifier: Apache-2.0
//! From the flow table of version 1, with an entry for each direction at the hook that sees it, to one record for both.

use abi::Addr;
use abi::endpoint::Endpoint;
use abi::flow::{Flow, FlowKey, Half, action, flags, half, origin, proto};
use abi::spine::{self, FlowEntry};
use abi::tuple::Tuple;

/// The record of a flow, of which `forward` stood under `key` and `reply` is the other direction.
///
/// `None` for what the old key does not name: of ICMP it knows nothing but the identifier of an echo.
pub(super) fn convert(key: &spine::FlowKey, forward: &FlowEntry, reply: &FlowEntry) -> Option<(FlowKey, Flow)> {
    let (new_key, opened_by_b) = opening(key)?.key();
    let (mut there, mut back) = (half_of(forward), half_of(reply));
    (there.origin, back.origin) = origins(key, forward, reply);
    if (forward.flags | reply.flags) & spine::flags::ESTABLISHED != 0 {
        back.packets = back.packets.max(1);
        there.flags |= if key.proto == proto::TCP { half::CONFIRMED } else { 0 };
    }
    let flow = Flow {
        tag: new_key.tag(),
        topology_epoch: forward.topology_epoch,
        src_epoch: forward.src_epoch,
        dst_epoch: forward.dst_epoch,
        peers: forward.peer_slot,
        flags: flags_of(forward, opened_by_b),
        src_endpoint: forward.src_endpoint,
        dst_endpoint: forward.dst_endpoint,
        src_identity: forward.src_identity,
        dst_identity: forward.dst_identity,
        provenance: forward.provenance,
        service: forward.service,
        backend: forward.backend,
        created: forward.created,
        nat_sport: forward.nat_sport,
        nat_dport: forward.nat_dport,
        nat_src: forward.nat_src,
        nat_dst: forward.nat_dst,
        forward: there,
        reply: back,
        ..Flow::default()
    };
    Some((new_key, flow))
}

/// What the reply of a flow must look like whose own entry has been evicted. `pod` is the one behind `forward.in_ifindex`.
///
/// `None` when that is not known: the pod has gone, or the flow came from outside and nothing says by which way. Its next packet
/// is decided anew, which costs such a flow its counters only: it is not translated.
pub(super) fn reply_of(key: &spine::FlowKey, forward: &FlowEntry, pod: Option<&Endpoint>) -> Option<FlowEntry> {
    let pod = pod.filter(|pod| key.hook == spine::FROM_POD && pod.id == forward.src_endpoint)?;
    Some(FlowEntry {
        in_ifindex: if forward.action == action::LOCAL { forward.out_ifindex } else { 0 },
        out_ifindex: pod.ifindex,
        action: action::LOCAL,
        flags: spine::flags::REPLY,
        dst_mac: pod.mac,
        src_mac: pod.host_mac,
        ..FlowEntry::default()
    })
}

/// The forward direction as its opener sends it.
fn opening(key: &spine::FlowKey) -> Option<Tuple> {
    let class = match key.proto {
        proto::ICMP => 8,
        proto::ICMPV6 => 128,
        _ => 0,
    };
    if class != 0 && (key.sport == 0 || key.dport != 0) {
        return None;
    }
    let spine::FlowKey { src, dst, sport, dport, proto, .. } = *key;
    Some(Tuple { src, dst, sport, dport, proto, class, asks: true })
}

fn flags_of(forward: &FlowEntry, opened_by_b: bool) -> u16 {
    let same = [
        (spine::flags::NAT_SRC, flags::NAT_SRC),
        (spine::flags::NAT_DST, flags::NAT_DST),
        (spine::flags::MASQUERADE, flags::MASQUERADE),
    ];
    let set = same.into_iter().filter(|(old, _)| forward.flags & old != 0);
    let opened = if opened_by_b { flags::OPENED_BY_B } else { 0 };
    set.fold(opened, |all, (_, new)| all | new)
}

fn half_of(entry: &FlowEntry) -> Half {
    Half {
        hop: match entry.action {
            action::LOCAL => hardware_addresses(entry),
            action::TUNNEL => entry.tunnel,
            _ => Addr::NONE,
        },
        bytes: entry.bytes,
        packets: entry.packets,
        last_seen: entry.last_seen,
        last_report: entry.last_report,
        out_ifindex: entry.out_ifindex,
        action: entry.action,
        tcp_seen: entry.tcp_seen,
        tcp_reported: entry.tcp_reported,
        ..Half::default()
    }
}

/// Destination, then source.
fn hardware_addresses(entry: &FlowEntry) -> Addr {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(entry.dst_mac.iter().chain(&entry.src_mac)).for_each(|(to, from)| *to = *from);
    Addr::from_v6(bytes)
}

/// Where packets of the forward direction come from, and those of the reply. What comes from a pod comes by its interface.
fn origins(key: &spine::FlowKey, forward: &FlowEntry, reply: &FlowEntry) -> (u32, u32) {
    if key.hook == spine::FROM_POD {
        (forward.in_ifindex, origin_of_answers(forward, forward.in_ifindex))
    } else {
        (origin_of_answers(reply, forward.out_ifindex), forward.out_ifindex)
    }
}

/// Where the answers to packets come from that a pod sends, by where these go.
fn origin_of_answers(sent: &FlowEntry, pod: u32) -> u32 {
    match sent.action {
        action::STACK => origin::STACK | pod,
        action::TUNNEL => origin::TUNNEL | sent.out_ifindex,
        // Another pod, or a device.
        _ => sent.out_ifindex,
    }
}

#[cfg(test)]
mod tests;
