// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The tunnel between nodes: VXLAN (RFC 7348), with the sender's identity in the VNI.
//!
//! A packet gets its outer headers here and leaves by the native device; the kernel's tunnel device takes what cannot go that way.

use crate::config;
use crate::fib;
use crate::headers::{Ipv4, Ipv6, sum};
use crate::hook::Hook;
use crate::maps;
use crate::packet::{From, Packet};
use crate::parse::{ETH_LEN, ETH_P_IP, ETH_P_IPV6, Frame, HEADERS, PLAIN, parse_at};
use crate::pkt::{Pkt, WHOLE};
use crate::redirect::redirected;
use crate::skb::Skb;
use crate::verdict::Verdict;
use abi::config::NodeConfig;
use abi::flow::{Half, half, origin, proto};
use abi::{Addr, DropReason};
use aya_ebpf::bindings::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key,
};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};

const TTL: u8 = 64;
const NO_WAY: Verdict = Verdict::Drop(DropReason::NoTunnelOrEncapsulationEndpoint);
const UDP: u8 = 17;
/// A router has been congested (RFC 3168).
const CONGESTED: u8 = 3;
/// UDP, VXLAN, and the inner Ethernet header.
const SHIM: usize = 8 + 8 + ETH_LEN;
/// What is put in front of a packet, over IPv4.
pub const OVER_IPV4: usize = 20 + SHIM;
/// What is put in front of a packet, over IPv6.
pub const OVER_IPV6: usize = 40 + SHIM;
/// VXLAN: the identifier is valid.
const HAS_VNI: u32 = 0x0800_0000u32.to_be();
/// Source ports of the tunnel: by the flow, so that networks and cards spread them (RFC 7348, 5).
const FIRST_PORT: u16 = 49152;

/// Where the tunnel to the node `way.hop` leads: out of a native device, or through the kernel's tunnel device.
#[inline(always)]
pub fn lead<P: Packet>(packet: P, node: &NodeConfig, inside: u32, way: &mut Half) {
    let peer = way.hop;
    let src = source(node, &peer);
    way.flags = 0;
    if config::on(&config::DIRECT_TUNNEL) && !src.is_none() {
        let out = fib::to_node(packet, inside, src, &peer, way);
        let next_hop = way.hop;
        way.hop = peer;
        // What is too big for a device that takes less than the tunnel's is not too big for the stack, which would send it on under the
        // node's identity. There the kernel cuts up what it makes.
        let as_much = way.mtu >= packet.mtu_of(node.overlay_ifindex) as u16;
        if out != 0 && out != node.overlay_ifindex && out != node.host_ifindex && as_much {
            let room = if peer.is_v4() { OVER_IPV4 } else { OVER_IPV6 };
            way.mtu = way.mtu.saturating_sub(room as u16);
            way.flags = if next_hop == peer { half::ON_LINK } else { 0 };
            return;
        }
    }
    way.out_ifindex = node.overlay_ifindex;
    way.mtu = packet.mtu_of(node.overlay_ifindex) as u16;
}

/// This node's own end of the way to a peer.
#[inline(always)]
pub fn source<'a>(node: &'a NodeConfig, peer: &Addr) -> &'a Addr {
    let (own, other) = if peer.is_v4() {
        (&node.tunnel_ipv4, &node.masquerade_ipv4)
    } else {
        (&node.tunnel_ipv6, &node.masquerade_ipv6)
    };
    if own.is_none() { other } else { own }
}

/// Whether packets to that port are taken for the tunnel's by a node.
#[inline(always)]
pub fn is_tunnel(protocol: u8, dport: u16) -> bool {
    config::on(&config::TUNNEL) && protocol == proto::UDP && dport == config::TUNNEL_PORT.load().to_be()
}

/// Sends the packet to the node `way.hop`.
#[inline(never)]
pub fn send<P: Hook>(packet: P, pkt: &Pkt, way: &Half, sender: u32) -> Verdict {
    // SAFETY: array values are never freed.
    let Some(node) = maps::NODE.get(0) else { return NO_WAY };
    if !config::on(&config::DIRECT_TUNNEL) || way.out_ifindex == node.overlay_ifindex {
        return packet.to_tunnel_device(node, &way.hop, sender);
    }
    match put_on(packet, pkt, way, source(node, &way.hop), sender) {
        Some(true) if way.flags & half::ON_LINK != 0 => packet.to_neighbour(way.out_ifindex, &way.hop),
        Some(true) => packet.to_neighbour(way.out_ifindex, &Addr::NONE),
        Some(false) => Verdict::Drop(DropReason::ErrorWritingToPacket),
        // The kernel makes no room in packets of this kind.
        None => packet.to_tunnel_device(node, &way.hop, sender),
    }
}

/// Puts the outer headers on. `None`: there is no room to be had. Otherwise whether they are written.
#[inline(never)]
fn put_on<P: Packet>(packet: P, pkt: &Pkt, way: &Half, src: &Addr, sender: u32) -> Option<bool> {
    let (Some(macs), Some(ethertype)) = (packet.read::<[u32; 3]>(0), packet.read::<u16>(ETH_LEN - 2)) else {
        return Some(false);
    };
    let outer = Outer {
        macs,
        ethertype,
        ecn: ecn(packet, pkt),
        vni: sender,
        id: way.packets as u16,
        port: FIRST_PORT | packet.hash(&pkt.tuple) as u16,
        len: pkt.len as u16,
        src: *src,
        summed: pkt.from == From::DEVICE,
    };
    if way.hop.is_v4() { outer.over_ipv4(packet, &way.hop) } else { outer.over_ipv6(packet, &way.hop) }
}

/// The two bits by which routers tell of congestion (RFC 6040: copied outwards).
#[inline(always)]
fn ecn<P: Packet>(packet: P, pkt: &Pkt) -> u8 {
    if pkt.family == 4 {
        packet.read::<u8>(ETH_LEN + 1).unwrap_or(0) & 3
    } else {
        packet.read::<u8>(ETH_LEN + 1).unwrap_or(0) >> 4 & 3
    }
}

/// What the outer headers say.
struct Outer {
    /// Of the packet, which become the inner ones.
    macs: [u32; 3],
    ethertype: u16,
    ecn: u8,
    vni: u32,
    id: u16,
    port: u16,
    /// Of the inner packet, from its network header on.
    len: u16,
    src: Addr,
    /// A card may have made a sum of the whole packet, which then has to cover the outer headers, too.
    summed: bool,
}

/// UDP, VXLAN and inner Ethernet header, as they lie in the packet.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Shim {
    sport: u16,
    dport: u16,
    len: u16,
    checksum: u16,
    vxlan: u32,
    vni: u32,
    macs: [u32; 3],
    ethertype: u16,
}

/// A shim, filled up to whole words.
#[repr(C, packed)]
struct Even {
    shim: Shim,
    end: u16,
}

const _: () = assert!(size_of::<Even>() % 4 == 0 && size_of::<Shim>() == SHIM);

/// `BPF_F_ADJ_ROOM_*`: segments keep their size, UDP outside and an Ethernet header inside.
const ENCAP: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | (ETH_LEN as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

impl Outer {
    #[inline(always)]
    fn over_ipv4<P: Packet>(&self, packet: P, dst: &Addr) -> Option<bool> {
        if !packet.adjust_room(OVER_IPV4 as i32, ENCAP | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64) {
            return None;
        }
        let mut header = Ipv4 {
            version: 0x45,
            tos: self.ecn,
            len: (self.len + OVER_IPV4 as u16).to_be(),
            id: self.id,
            fragment: 0,
            ttl: TTL,
            proto: UDP,
            checksum: 0,
            src: self.src.v4_be(),
            dst: dst.v4_be(),
        };
        header.checksum = header.sum();
        // A right IPv4 header sums up to nothing.
        Some(self.has_type(packet, ETH_P_IP) && packet.write(ETH_LEN, header) && self.write_shim(packet, ETH_LEN + 20))
    }

    /// The UDP checksum is zero, as RFC 6935 allows for tunnels: the inner packet has its own.
    #[inline(always)]
    fn over_ipv6<P: Packet>(&self, packet: P, dst: &Addr) -> Option<bool> {
        if !packet.adjust_room(OVER_IPV6 as i32, ENCAP | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64) {
            return None;
        }
        let header = Ipv6 {
            class: (0x6000_0000 | (self.ecn as u32) << 20).to_be(),
            len: (self.len + SHIM as u16).to_be(),
            next: UDP,
            ttl: TTL,
            src: self.src,
            dst: *dst,
        };
        if self.summed {
            packet.add_to_sum(sum(&header, 0) as u64);
        }
        Some(
            self.has_type(packet, ETH_P_IPV6) && packet.write(ETH_LEN, header) && self.write_shim(packet, ETH_LEN + 40),
        )
    }

    /// The outer Ethernet header is the inner one's, which may have had the other family's type.
    #[inline(always)]
    fn has_type<P: Packet>(&self, packet: P, ethertype: u16) -> bool {
        self.ethertype == ethertype || packet.write(ETH_LEN - 2, ethertype)
    }

    #[inline(always)]
    fn write_shim<P: Packet>(&self, packet: P, offset: usize) -> bool {
        let shim = self.shim();
        if self.summed {
            packet.add_to_sum(sum(&Even { shim, end: 0 }, 0) as u64);
        }
        packet.write(offset, shim)
    }

    #[inline(always)]
    fn shim(&self) -> Shim {
        Shim {
            sport: self.port.to_be(),
            dport: config::TUNNEL_PORT.load().to_be(),
            len: (self.len + SHIM as u16).to_be(),
            checksum: 0,
            vxlan: HAS_VNI,
            vni: (self.vni << 8).to_be(),
            macs: self.macs,
            ethertype: self.ethertype,
        }
    }
}

/// Hands the packet to the tunnel device, with the peer node and the sender's identity as metadata.
#[inline(never)]
pub fn by_device(packet: Skb, node: &NodeConfig, peer: &Addr, sender: u32) -> Verdict {
    // SAFETY: all-zero is a valid key.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    let mut flags = BPF_F_ZERO_CSUM_TX as u64;
    key.tunnel_id = sender;
    key.tunnel_ttl = TTL;
    if peer.is_v4() {
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(peer.v4_be());
    } else {
        flags |= BPF_F_TUNINFO_IPV6 as u64;
        key.__bindgen_anon_1.remote_ipv6 =
            [peer.hi as u32, (peer.hi >> 32) as u32, peer.lo as u32, (peer.lo >> 32) as u32];
    }
    // SAFETY: valid context and key.
    unsafe {
        if bpf_skb_set_tunnel_key(packet.context().cast(), &mut key, size_of::<bpf_tunnel_key>() as u32, flags) < 0 {
            return NO_WAY;
        }
        redirected(bpf_redirect(node.overlay_ifindex, 0))
    }
}

/// Notes identity and node that a packet came from, as the tunnel device tells. False when it does not.
#[inline(never)]
pub fn note_device_origin<P: Packet>(packet: P, pkt: &mut Pkt) -> bool {
    // SAFETY: all-zero is a valid key; valid context.
    unsafe {
        let size = size_of::<bpf_tunnel_key>() as u32;
        let mut key: bpf_tunnel_key = core::mem::zeroed();
        if bpf_skb_get_tunnel_key(packet.context().cast(), &mut key, size, 0) == 0 {
            pkt.vni = key.tunnel_id;
            pkt.node = Addr::from_v4_be(key.__bindgen_anon_1.remote_ipv4.to_be());
            return true;
        }
        // The kernel gives the one family or the other.
        if bpf_skb_get_tunnel_key(packet.context().cast(), &mut key, size, BPF_F_TUNINFO_IPV6 as u64) < 0 {
            return false;
        }
        let [a, b, c, d] = key.__bindgen_anon_1.remote_ipv6;
        pkt.vni = key.tunnel_id;
        pkt.node = Addr { hi: (b as u64) << 32 | a as u64, lo: (d as u64) << 32 | c as u64 };
        true
    }
}

/// A packet of the tunnel that arrives with its outer headers.
pub struct Arrival {
    /// Bytes of the outer headers and the inner Ethernet header.
    room: usize,
    vni: u32,
    node: Addr,
    origin: u32,
}

impl Arrival {
    /// What the outer headers say. `None` leaves the packet to the kernel's tunnel device: fragments, several packets in one, options,
    /// and whatever tells of congestion, which has to be carried inwards.
    #[inline(always)]
    pub fn of<P: Packet>(packet: P, pkt: &Pkt, node: &NodeConfig) -> Option<Self> {
        let room = if pkt.family == 4 { OVER_IPV4 } else { OVER_IPV6 };
        let own = source(node, &pkt.tuple.dst);
        let plain = pkt.fragment == WHOLE && packet.batch_size() == 0 && pkt.l4 as usize == ETH_LEN + room - SHIM;
        if !plain || node.overlay_ifindex == 0 || pkt.tuple.dst != *own || ecn(packet, pkt) == CONGESTED {
            return None;
        }
        // Pulling costs an allocation. Should the headers inside be longer, the tunnel's device understands them.
        if packet.linear() < room as u32 + PLAIN && packet.linear() < packet.len() && !packet.pull(HEADERS) {
            return None;
        }
        let vxlan = ETH_LEN + room - SHIM + 8;
        if packet.read::<u32>(vxlan)? & HAS_VNI == 0 {
            return None;
        }
        let vni = u32::from_be(packet.read::<u32>(vxlan + 4)?) >> 8;
        Some(Self { room, vni, node: pkt.tuple.src, origin: origin::TUNNEL | node.overlay_ifindex })
    }

    /// Where the network header of what is inside begins.
    #[inline(always)]
    pub fn network(&self) -> usize {
        ETH_LEN + self.room
    }

    /// Parses what is inside. False when it is not IP.
    #[inline(always)]
    pub fn look_inside<P: Packet>(&self, packet: P, pkt: &mut Pkt) -> bool {
        *pkt = Pkt::new(self.origin, From::TUNNEL);
        (pkt.vni, pkt.node) = (self.vni, self.node);
        let parsed = if self.room == OVER_IPV4 {
            parse_at(packet, pkt, ETH_LEN + OVER_IPV4)
        } else {
            parse_at(packet, pkt, ETH_LEN + OVER_IPV6)
        };
        matches!(parsed, Frame::Ip)
    }

    /// Takes the outer headers off. False when that fails.
    #[inline(always)]
    pub fn take_off<P: Packet>(&self, packet: P, pkt: &mut Pkt) -> bool {
        let (version, ethertype) = if pkt.family == 4 {
            (BPF_F_ADJ_ROOM_DECAP_L3_IPV4, ETH_P_IP)
        } else {
            (BPF_F_ADJ_ROOM_DECAP_L3_IPV6, ETH_P_IPV6)
        };
        pkt.l4 -= self.room as u16;
        // Before 6.3 the kernel cannot be told of another version, and goes by the one that it knows.
        let version = if (pkt.family == 4) == (self.room == OVER_IPV4) { 0 } else { version };
        packet.adjust_room(-(self.room as i32), BPF_F_ADJ_ROOM_FIXED_GSO as u64 | version as u64)
            && packet.write(ETH_LEN - 2, ethertype)
    }
}
