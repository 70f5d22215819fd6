// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! What is remembered of fragmented datagrams (RFC 791, RFC 8200 4.5). Each sender has places of its own, which its next datagrams take in
//! turn: whoever sends very many first fragments loses its own. Endpoints of this node have their places by interface. Others are divided by
//! address among those of the way that they come by, where who has many addresses can be a burden to whoever shares it.

use crate::Addr;
use crate::endpoint::{SHARES, share};
use crate::flow::origin;
use crate::lb::spread;

layout! {
    /// A datagram, and what its first fragment says of its transport, which later ones lack.
    pub struct Fragmented (48) {
        /// Source address.
        pub src: Addr,
        /// Destination address.
        pub dst: Addr,
        /// Identification field.
        pub id: u32,
        /// Where it came from (`flow::origin`): fragments of one sender do not serve another.
        pub origin: u32,
        /// Source port in network order, as in `tuple::Tuple`.
        pub sport: u16,
        /// Destination port in network order.
        pub dport: u16,
        /// What comes next, as every fragment says it.
        pub next: u8,
        /// IP protocol number of the transport.
        pub proto: u8,
        /// ICMP: the type.
        pub kind: u8,
        /// ICMP: the code.
        pub code: u8,
    }
}

/// Datagrams that are remembered of each sender.
pub const PLACES: u32 = 64;
/// Senders by each of the ways that lead to this node, up to those that share their places.
pub const OTHERS: u32 = 64;
/// Through the tunnel, by the host's stack, and by a native device.
const WAYS: u32 = 3;
/// All places.
pub const ALL: u32 = (SHARES + WAYS * OTHERS) * PLACES;

impl Fragmented {
    /// Its place, the next one for the next identification. A pod's own packets come from its interface.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self, from_pod: bool) -> u32 {
        self.sender(from_pod) * PLACES + self.id.wrapping_add(spread(self.dst)) % PLACES
    }

    #[inline(always)]
    const fn sender(&self, from_pod: bool) -> u32 {
        if from_pod {
            return share(self.origin & origin::IFINDEX);
        }
        let way = if self.origin & origin::STACK != 0 {
            0
        } else if self.origin & origin::TUNNEL != 0 {
            1
        } else {
            2
        };
        SHARES + way * OTHERS + spread(self.src) % OTHERS
    }

    /// Whether both are of one datagram, and came the same way.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (self.src, self.dst, self.id) == (other.src, other.dst, other.id)
            && (self.origin, self.next) == (other.origin, other.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn of(origin: u32, src: u32, id: u32) -> Fragmented {
        Fragmented { origin, src: Addr::from_v4_be(src.to_be()), id, ..Fragmented::default() }
    }

    #[test]
    fn endpoints_share_no_places_with_each_other_nor_with_what_comes_from_elsewhere() {
        let places = |origin, from_pod| {
            (0..1000).map(|n| of(origin, if from_pod { 7 } else { n }, n).place(from_pod)).collect::<BTreeSet<_>>()
        };
        let pods: Vec<_> = (10..10 + 2 * SHARES).step_by(2).map(|ifindex| places(ifindex, true)).collect();
        let ways = [2, origin::STACK, origin::STACK | 10, origin::TUNNEL | 3].map(|origin| places(origin, false));
        assert!(pods.iter().all(|pod| pod.len() == PLACES as usize));
        assert!(ways.iter().all(|way| way.len() > 800), "a thousand datagrams of as many senders");
        assert_eq!(ways[1], ways[2], "whoever hands it to the stack");
        let all: BTreeSet<u32> = pods.iter().chain(&ways).flatten().copied().collect();
        let distinct = [&ways[0], &ways[1], &ways[3]].map(BTreeSet::len).iter().sum::<usize>();
        assert_eq!(all.len(), pods.len() * PLACES as usize + distinct);
        assert!(all.iter().all(|place| *place < ALL));
    }

    #[test]
    fn a_sender_s_datagrams_take_its_places_in_turn() {
        let places: BTreeSet<u32> = (40..40 + PLACES).map(|id| of(9, 1, id).place(true)).collect();
        assert_eq!(places.len() as u32, PLACES);
        assert_eq!(of(9, 1, 3).place(true), of(9, 1, 3 + PLACES).place(true));
    }

    #[test]
    fn each_field_that_tells_datagrams_apart_does() {
        let one = of(9, 1, 3);
        let others = [
            of(10, 1, 3),
            of(9, 2, 3),
            of(9, 1, 4),
            Fragmented { dst: Addr::from_v4_be(1), ..one },
            Fragmented { next: 17, ..one },
        ];
        assert!(others.iter().all(|other| !one.is_of(other)));
        assert!(one.is_of(&Fragmented { sport: 1, dport: 2, proto: 17, kind: 8, code: 1, ..one }));
    }
}
