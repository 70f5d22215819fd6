// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! The flow table's layout of version 2, which only migrations read: it has the fields of [`crate::flow`] and no space between them.

#![allow(missing_docs, reason = "the fields are those of `crate::flow`")]

use crate::{Addr, flow};

layout! {
    /// One direction of a flow.
    pub struct Half (56) {
        pub hop: Addr,
        pub bytes: u64,
        pub packets: u64,
        pub last_seen: u32,
        pub last_report: u32,
        pub origin: u32,
        pub out_ifindex: u32,
        pub mtu: u16,
        pub action: u8,
        pub tcp_seen: u8,
        pub tcp_reported: u8,
        pub flags: u8,
        pub pad: [u8; 2],
    }
}

layout! {
    /// A flow, or an alias of one.
    pub struct Flow (200) {
        pub tag: u32,
        pub topology_epoch: u32,
        pub src_epoch: u32,
        pub dst_epoch: u32,
        pub peers: u32,
        pub flags: u16,
        pub proxy_port: u16,
        pub src_endpoint: u16,
        pub dst_endpoint: u16,
        pub src_identity: u32,
        pub dst_identity: u32,
        pub provenance: u32,
        pub service: u32,
        pub backend: u32,
        pub created: u32,
        pub nat_sport: u16,
        pub nat_dport: u16,
        pub nat_src: Addr,
        pub nat_dst: Addr,
        pub forward: Half,
        pub reply: Half,
    }
}

impl From<Half> for flow::Half {
    fn from(half: Half) -> Self {
        Self {
            hop: half.hop,
            bytes: half.bytes,
            packets: half.packets,
            last_seen: half.last_seen,
            last_report: half.last_report,
            origin: half.origin,
            out_ifindex: half.out_ifindex,
            mtu: half.mtu,
            action: half.action,
            tcp_seen: half.tcp_seen,
            tcp_reported: half.tcp_reported,
            flags: half.flags,
            ..Self::default()
        }
    }
}

impl From<Flow> for flow::Flow {
    fn from(flow: Flow) -> Self {
        Self {
            tag: flow.tag,
            topology_epoch: flow.topology_epoch,
            src_epoch: flow.src_epoch,
            dst_epoch: flow.dst_epoch,
            peers: flow.peers,
            flags: flow.flags,
            proxy_port: flow.proxy_port,
            src_endpoint: flow.src_endpoint,
            dst_endpoint: flow.dst_endpoint,
            src_identity: flow.src_identity,
            dst_identity: flow.dst_identity,
            provenance: flow.provenance,
            service: flow.service,
            backend: flow.backend,
            created: flow.created,
            nat_sport: flow.nat_sport,
            nat_dport: flow.nat_dport,
            nat_src: flow.nat_src,
            nat_dst: flow.nat_dst,
            forward: flow.forward.into(),
            reply: flow.reply.into(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Debug;

    fn carried<T: Debug + Default + PartialEq>(field: &str, old: T, new: T) {
        assert_ne!(old, T::default(), "{field} proves nothing");
        assert_eq!(new, old, "{field}");
    }

    macro_rules! carried {
        ($old:expr => $new:expr, $($field:ident)+) => { $(carried(stringify!($field), $old.$field, $new.$field);)+ };
    }

    const fn half(number: u8) -> Half {
        Half {
            hop: Addr { hi: 1, lo: number as u64 },
            bytes: number as u64 + 1,
            packets: number as u64 + 2,
            last_seen: number as u32 + 3,
            last_report: number as u32 + 4,
            origin: number as u32 + 5,
            out_ifindex: number as u32 + 6,
            mtu: number as u16 + 7,
            action: number + 8,
            tcp_seen: number + 9,
            tcp_reported: number + 10,
            flags: number + 11,
            pad: [0; 2],
        }
    }

    fn is_carried(old: &Half, new: &flow::Half) {
        carried!(old => new, hop bytes packets last_seen last_report origin out_ifindex mtu action tcp_seen tcp_reported flags);
    }

    #[test]
    fn a_migrated_flow_keeps_everything() {
        let old = Flow {
            tag: 1,
            topology_epoch: 2,
            src_epoch: 3,
            dst_epoch: 4,
            peers: 5,
            flags: 6,
            proxy_port: 7,
            src_endpoint: 8,
            dst_endpoint: 9,
            src_identity: 10,
            dst_identity: 11,
            provenance: 12,
            service: 13,
            backend: 14,
            created: 15,
            nat_sport: 16,
            nat_dport: 17,
            nat_src: Addr { hi: 18, lo: 19 },
            nat_dst: Addr { hi: 20, lo: 21 },
            forward: half(30),
            reply: half(60),
        };
        let new = flow::Flow::from(old);
        carried!(old => new, tag topology_epoch src_epoch dst_epoch peers flags proxy_port src_endpoint dst_endpoint src_identity dst_identity);
        carried!(old => new, provenance service backend created nat_sport nat_dport nat_src nat_dst);
        is_carried(&old.forward, &new.forward);
        is_carried(&old.reply, &new.reply);
    }
}
