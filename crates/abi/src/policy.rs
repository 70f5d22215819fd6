// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//! Compiled policy: the keys, the entries, and the one function that decides between two of them.

layout! {
    /// Data of a key in [`crate::maps::Policies`], a longest-prefix trie: everything up to `direction` always counts,
    /// then the protocol, then the bits of the port. The prefix length says how far.
    pub struct PolicyKey (12) {
        /// Which compiled policy (`Endpoint::policy`).
        pub policy: u32,
        /// Identity of the peer; 0 stands for any.
        pub identity: u32,
        /// [`INGRESS`] or [`EGRESS`].
        pub direction: u8,
        /// IP protocol number.
        pub proto: u8,
        /// Destination port in network order; for ICMP its type.
        pub port: u16,
    }
}

/// Bits of the key that always count: policy, identity, direction.
pub const PREFIX_L3: u32 = 72;
/// Bits up to and including the protocol.
pub const PREFIX_PROTO: u32 = PREFIX_L3 + 8;
/// All bits, with the whole port.
pub const PREFIX_PORT: u32 = PREFIX_PROTO + 16;

/// Traffic into the endpoint.
pub const INGRESS: u8 = 1;
/// Traffic out of the endpoint.
pub const EGRESS: u8 = 2;

layout! {
    /// What a key decides.
    pub struct PolicyEntry (16) {
        /// Higher wins. A deny has [`DENY_PRECEDENCE`].
        pub precedence: u32,
        /// Names the rule that made the entry.
        pub provenance: u32,
        /// Proxy port to redirect to in network order, or 0.
        pub proxy_port: u16,
        /// 1 when the entry denies.
        pub deny: u8,
        /// Prefix length of the key the entry was stored under, which the kernel's lookup does not return.
        pub prefix_len: u8,
        /// Zero.
        pub pad: u32,
    }
}

/// No allow entry reaches it: a deny wins over every allow.
pub const DENY_PRECEDENCE: u32 = u32::MAX;

/// How specific the deciding entry was.
pub mod match_type {
    /// Nothing matched.
    pub const NONE: u8 = 0;
    /// Peer only.
    pub const L3_ONLY: u8 = 1;
    /// Peer and port.
    pub const L3_L4: u8 = 2;
    /// Port only.
    pub const L4_ONLY: u8 = 3;
    /// Everything.
    pub const ALL: u8 = 4;
    /// Peer and protocol.
    pub const L3_PROTO: u8 = 5;
    /// Protocol only.
    pub const PROTO_ONLY: u8 = 6;
}

/// Which of the two lookups decides: the one for the peer, or the one for any peer.
///
/// Returns the entry and its match type. `None` means that nothing matched: denied by default.
#[inline(always)]
#[must_use]
pub fn decide<'a>(peer: Option<&'a PolicyEntry>, any: Option<&'a PolicyEntry>) -> Option<(&'a PolicyEntry, u8)> {
    match (peer, any) {
        (Some(p), Some(a)) if a.precedence > p.precedence => Some((a, any_match_type(a))),
        (Some(p), _) => Some((p, peer_match_type(p))),
        (None, Some(a)) => Some((a, any_match_type(a))),
        (None, None) => None,
    }
}

#[inline(always)]
const fn peer_match_type(entry: &PolicyEntry) -> u8 {
    if entry.prefix_len as u32 > PREFIX_PROTO {
        match_type::L3_L4
    } else if entry.prefix_len as u32 == PREFIX_PROTO {
        match_type::L3_PROTO
    } else {
        match_type::L3_ONLY
    }
}

#[inline(always)]
const fn any_match_type(entry: &PolicyEntry) -> u8 {
    if entry.prefix_len as u32 > PREFIX_PROTO {
        match_type::L4_ONLY
    } else if entry.prefix_len as u32 == PREFIX_PROTO {
        match_type::PROTO_ONLY
    } else {
        match_type::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: PolicyEntry =
        PolicyEntry { precedence: 1, provenance: 7, proxy_port: 0, deny: 0, prefix_len: PREFIX_L3 as u8, pad: 0 };
    const DENY: PolicyEntry =
        PolicyEntry { precedence: DENY_PRECEDENCE, deny: 1, prefix_len: PREFIX_PORT as u8, ..ALLOW };

    #[test]
    fn a_deny_beats_an_allow_from_whichever_lookup_it_comes() {
        assert_eq!(decide(Some(&ALLOW), Some(&DENY)), Some((&DENY, match_type::L4_ONLY)));
        assert_eq!(decide(Some(&DENY), Some(&ALLOW)), Some((&DENY, match_type::L3_L4)));
    }

    #[test]
    fn the_peer_decides_a_tie_and_nothing_matches_nothing() {
        assert_eq!(decide(Some(&ALLOW), Some(&ALLOW)), Some((&ALLOW, match_type::L3_ONLY)));
        assert_eq!(decide(None, None), None);
    }

    #[test]
    fn the_match_type_says_how_much_of_the_key_counted() {
        use match_type as m;
        let types = [PREFIX_L3, PREFIX_PROTO, PREFIX_PROTO + 1, PREFIX_PORT].map(|prefix| {
            let entry = PolicyEntry { prefix_len: prefix as u8, ..ALLOW };
            (decide(Some(&entry), None).map(|found| found.1), decide(None, Some(&entry)).map(|found| found.1))
        });
        let expected =
            [(m::L3_ONLY, m::ALL), (m::L3_PROTO, m::PROTO_ONLY), (m::L3_L4, m::L4_ONLY), (m::L3_L4, m::L4_ONLY)];
        assert_eq!(types, expected.map(|(peer, any)| (Some(peer), Some(any))));
    }
}
