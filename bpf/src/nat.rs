// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Rewriting addresses and ports, and masquerading: traffic that leaves the cluster takes the node's address.

use crate::config;
use crate::ctx::Skb;
use crate::maps;
use crate::parse::{ETH_LEN, LATER, Pkt};
use crate::scratch::Scratch;
use abi::flow::{ARRIVING, FlowEntry, FlowKey, action, flags, proto};
use abi::{Addr, DropReason, identity};
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_NOEXIST, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_get_prandom_u32, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
};

const WRITE_FAILED: i32 = -(DropReason::ErrorWritingToPacket as u8 as i32);
/// Ports tried before a connection is refused its translation.
const PORT_TRIES: u32 = 16;
/// Masquerading ports start here, above the NodePort range's end (30000-32767).
const FIRST_PORT: u32 = 32768;
const PORTS: u32 = 65536 - FIRST_PORT;

/// Rewrites source and destination as the entry says. 0, or minus a drop reason.
#[inline(never)]
pub fn rewrite(skb: Skb, pkt: &Pkt, entry: &FlowEntry) -> i32 {
    if entry.flags & flags::NAT_SRC != 0 {
        let change = Change {
            from: pkt.key.src,
            to: entry.nat_src,
            from_port: pkt.key.sport,
            to_port: entry.nat_sport,
            side: 0,
        };
        if !change.apply(skb, pkt) {
            return WRITE_FAILED;
        }
    }
    if entry.flags & flags::NAT_DST != 0 {
        let change = Change {
            from: pkt.key.dst,
            to: entry.nat_dst,
            from_port: pkt.key.dport,
            to_port: entry.nat_dport,
            side: 1,
        };
        if !change.apply(skb, pkt) {
            return WRITE_FAILED;
        }
    }
    0
}

/// One side's rewrite.
struct Change {
    from: Addr,
    to: Addr,
    from_port: u16,
    to_port: u16,
    /// 0 source, 1 destination.
    side: u32,
}

impl Change {
    #[inline(always)]
    fn apply(&self, skb: Skb, pkt: &Pkt) -> bool {
        let (port_offset, checksum_offset, checksum_flags) = match pkt.key.proto {
            proto::TCP => (self.side * 2, 16, 0),
            proto::UDP => (self.side * 2, 6, BPF_F_MARK_MANGLED_0 as u64),
            proto::ICMP | proto::ICMPV6 => (4, 2, 0),
            _ => return self.address(skb, pkt, None),
        };
        if pkt.fragment == LATER {
            return self.address(skb, pkt, None);
        }
        let l4 = pkt.l4 as u32;
        let checksum = l4 + checksum_offset;
        // ICMP has no pseudo header (RFC 792); ICMPv6 has (RFC 4443, 2.3).
        let pseudo = if pkt.key.proto == proto::ICMP { None } else { Some((checksum, checksum_flags)) };
        if !self.address(skb, pkt, pseudo) {
            return false;
        }
        if self.from_port == self.to_port {
            return true;
        }
        skb.fix_l4_checksum(checksum, self.from_port as u64, self.to_port as u64, checksum_flags | 2)
            && skb.store(l4 + port_offset, &self.to_port)
    }

    /// Rewrites the address; `pseudo` is the transport checksum that covers it.
    #[inline(always)]
    fn address(&self, skb: Skb, pkt: &Pkt, pseudo: Option<(u32, u64)>) -> bool {
        if pkt.family == 4 {
            let (from, to) = (self.from.v4_be(), self.to.v4_be());
            if let Some((offset, flags)) = pseudo
                && !skb.fix_l4_checksum(offset, from as u64, to as u64, flags | BPF_F_PSEUDO_HDR as u64 | 4)
            {
                return false;
            }
            let network = ETH_LEN as u32;
            return skb.fix_l3_checksum(network + 10, from, to) && skb.store(network + 12 + self.side * 4, &to);
        }
        if let Some((offset, flags)) = pseudo {
            let (mut from, mut to) = (self.from, self.to);
            // SAFETY: both are sixteen readable bytes.
            let difference = unsafe {
                bpf_csum_diff(core::ptr::from_mut(&mut from).cast(), 16, core::ptr::from_mut(&mut to).cast(), 16, 0)
            };
            if !skb.fix_l4_checksum(offset, 0, difference as u64, flags | BPF_F_PSEUDO_HDR as u64) {
                return false;
            }
        }
        skb.store(ETH_LEN as u32 + 8 + self.side * 16, &self.to)
    }
}

/// Decides whether the flow is masqueraded, and under which port. 0, or minus a drop reason.
#[inline(never)]
pub fn masquerade(skb: Skb, pkt: &Pkt, scratch: &mut Scratch) -> i32 {
    let Some(source) = masquerade_address(pkt, scratch) else { return 0 };
    let known = &scratch.known;
    let kept = if known.flags & flags::MASQUERADE != 0 && known.nat_src == source { known.nat_sport } else { 0 };
    let mut key = FlowKey {
        src: scratch.dst,
        dst: source,
        sport: scratch.dport,
        dport: if kept != 0 { kept } else { pkt.key.sport },
        proto: pkt.key.proto,
        hook: ARRIVING,
        pad: 0,
    };
    if pkt.key.proto == proto::ICMP || pkt.key.proto == proto::ICMPV6 {
        key.sport = 0;
    }
    if kept == 0 && !reserve_port(skb, &mut key, &scratch.reply) {
        return -(DropReason::NoMappingForNatMasquerade.code() as i32);
    }
    scratch.reply_key = key;
    scratch.forward.flags |= flags::NAT_SRC | flags::MASQUERADE;
    scratch.forward.nat_src = source;
    scratch.forward.nat_sport = key.dport;
    scratch.reply.flags |= flags::NAT_DST;
    scratch.reply.nat_dst = pkt.key.src;
    scratch.reply.nat_dport = pkt.key.sport;
    0
}

/// The address to take, if the flow leaves the cluster over a native device.
#[inline(always)]
fn masquerade_address(pkt: &Pkt, scratch: &Scratch) -> Option<Addr> {
    if scratch.forward.action != action::NEIGH || scratch.no_masquerade != 0 {
        return None;
    }
    let on = if pkt.family == 4 { &config::MASQUERADE_IPV4 } else { &config::MASQUERADE_IPV6 };
    if !config::on(on) {
        return None;
    }
    let peer = scratch.forward.dst_identity;
    // With a tunnel, the network between nodes does not know pods' addresses; without, it routes them.
    if matches!(peer, identity::REMOTE_NODE | identity::KUBE_APISERVER) && !config::on(&config::TUNNEL) {
        return None;
    }
    let node = maps::NODE.get(0)?;
    let source = if pkt.family == 4 { node.masquerade_ipv4 } else { node.masquerade_ipv6 };
    if source.is_none() { None } else { Some(source) }
}

/// Finds a free port for the reply's key, the flow's own first, and takes it by inserting a placeholder.
#[inline(always)]
fn reserve_port(skb: Skb, key: &mut FlowKey, placeholder: &FlowEntry) -> bool {
    for _ in 0..PORT_TRIES {
        if !host_uses(skb, key) && maps::FLOWS.insert(&*key, placeholder, BPF_NOEXIST as u64).is_ok() {
            return true;
        }
        // SAFETY: no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        key.dport = ((FIRST_PORT + random % PORTS) as u16).to_be();
    }
    false
}

/// Whether a socket of the node would take the replies.
#[inline(never)]
fn host_uses(skb: Skb, key: &FlowKey) -> bool {
    // SAFETY: all-zero is a valid tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if key.dst.is_v4() {
        // SAFETY: the union's IPv4 member.
        let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        v4.saddr = key.src.v4_be();
        v4.daddr = key.dst.v4_be();
        v4.sport = key.sport;
        v4.dport = key.dport;
        12
    } else {
        // SAFETY: the union's IPv6 member; sixteen bytes of address each.
        unsafe {
            let v6 = &mut tuple.__bindgen_anon_1.ipv6;
            core::ptr::from_mut(&mut v6.saddr).cast::<[u64; 2]>().write_unaligned([key.src.hi, key.src.lo]);
            core::ptr::from_mut(&mut v6.daddr).cast::<[u64; 2]>().write_unaligned([key.dst.hi, key.dst.lo]);
            v6.sport = key.sport;
            v6.dport = key.dport;
        }
        36
    };
    // SAFETY: valid context and tuple; a socket that is found is released.
    unsafe {
        let socket: *mut bpf_sock = match key.proto {
            proto::TCP => bpf_sk_lookup_tcp(skb.0.cast(), &mut tuple, size, u64::MAX, 0),
            proto::UDP => bpf_sk_lookup_udp(skb.0.cast(), &mut tuple, size, u64::MAX, 0),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast());
        true
    }
}
