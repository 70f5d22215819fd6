// SPDX-License-Identifier: Apache-2.0
//! The entries of a compiled policy, and how statements about one peer become entries.
//!
//! The kernel looks up a packet twice, for its peer and for any peer, each time by the longest prefix over protocol and
//! port, and of the two results the one with higher precedence wins. So within one peer the longest prefix must be the
//! one that decides: an entry covered by one of higher precedence is left out.

use super::Statement;
use crate::rules::{Direction, Effect, L4};
use crate::selectors::SelectorCache;
use abi::policy::{DENY_PRECEDENCE, PREFIX_L3, PREFIX_PORT, PREFIX_PROTO, PolicyEntry, PolicyKey};
use datapath::LpmKey;
use model::{IdentityId, PolicyId, ProvenanceId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Stands for any peer.
pub(crate) const ANY: IdentityId = IdentityId(0);

const ALLOW_PRECEDENCE: u32 = 1;

/// Key of an entry, without the policy's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    pub direction: Direction,
    /// Peer; 0 for any.
    pub peer: IdentityId,
    /// How many bits of the kernel's key count.
    pub prefix_len: u8,
    /// IP protocol number, or 0.
    pub proto: u8,
    /// First port of the range, or 0.
    pub port: u16,
}

impl EntryKey {
    /// In the kernel's form.
    #[must_use]
    pub fn of_policy(&self, policy: PolicyId) -> LpmKey<PolicyKey> {
        let key = PolicyKey {
            policy: policy.0,
            identity: self.peer.0,
            direction: self.direction.number(),
            proto: self.proto,
            port: self.port.to_be(),
        };
        LpmKey::new(u32::from(self.prefix_len), key)
    }

    /// The policy and the entry's key, if it is a key of ours.
    #[must_use]
    pub fn from_kernel(key: &LpmKey<PolicyKey>) -> Option<(PolicyId, Self)> {
        let (prefix_len, data) = (key.prefix_len, key.data);
        let direction = Direction::ALL.into_iter().find(|d| d.number() == data.direction)?;
        let prefix_len = u8::try_from(prefix_len).ok()?;
        let port = u16::from_be(data.port);
        let key = Self { direction, peer: IdentityId(data.identity), prefix_len, proto: data.proto, port };
        Some((PolicyId(data.policy), key))
    }

    /// Last port of the range.
    #[must_use]
    pub const fn last_port(&self) -> u16 {
        self.port | host_bits(self.prefix_len)
    }

    /// All keys of a peer.
    #[must_use]
    pub fn range(direction: Direction, peer: IdentityId) -> std::ops::RangeInclusive<Self> {
        let first = Self { direction, peer, prefix_len: 0, proto: 0, port: 0 };
        first..=Self { prefix_len: u8::MAX, ..first }
    }
}

/// The don't-care bits of a port.
const fn host_bits(prefix_len: u8) -> u16 {
    let counted = (prefix_len as u32).saturating_sub(PREFIX_PROTO);
    if counted >= 16 { 0 } else { u16::MAX >> counted }
}

/// Entries of a compiled policy. Cheap to clone.
pub type Entries = imbl::OrdMap<EntryKey, PolicyEntry>;

/// The entry of a peer that decides about a port: the one with the longest prefix, as the kernel finds it.
pub(super) fn find(
    entries: &Entries,
    of_peer: std::ops::RangeInclusive<EntryKey>,
    proto: u8,
    port: u16,
) -> Option<&PolicyEntry> {
    let covers = |key: &EntryKey| {
        let len = u32::from(key.prefix_len);
        len <= PREFIX_L3 || key.proto == proto && (len <= PREFIX_PROTO || (key.port..=key.last_port()).contains(&port))
    };
    let found = entries.range(of_peer).filter(|(key, _)| covers(key));
    found.max_by_key(|(key, _)| key.prefix_len).map(|(_, entry)| entry)
}

/// What compiling needs besides the statements.
pub(super) struct World<'a> {
    /// The subject's named ports.
    pub(super) own_ports: &'a dyn Fn(u8, &str) -> Vec<u16>,
    /// A peer's named ports.
    pub(super) peer_ports: &'a dyn Fn(IdentityId, u8, &str) -> Vec<u16>,
}

/// Part of a protocol's ports that one prefix covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    len: u8,
    proto: u8,
    port: u16,
}

const EVERYTHING: Prefix = Prefix { len: PREFIX_L3 as u8, proto: 0, port: 0 };

/// The entries for one peer in one direction, from the statements that apply to it.
pub(super) fn compile_peer(
    statements: &[&Arc<Statement>],
    direction: Direction,
    peer: IdentityId,
    always: bool,
    world: &World<'_>,
) -> BTreeMap<EntryKey, PolicyEntry> {
    let mut all: BTreeMap<Prefix, PolicyEntry> = BTreeMap::new();
    for statement in statements.iter().filter(|s| s.direction == direction) {
        let (precedence, deny) = match statement.effect {
            Effect::Allow => (ALLOW_PRECEDENCE, 0),
            Effect::Deny => (DENY_PRECEDENCE, 1),
        };
        for prefix in prefixes_for(statement, peer, world) {
            let provenance = statement.provenance.0;
            let entry = PolicyEntry { precedence, provenance, proxy_port: 0, deny, prefix_len: prefix.len, pad: 0 };
            // Among equals the first statement is named.
            let kept = all.entry(prefix).or_insert(entry);
            if kept.precedence < precedence {
                *kept = entry;
            }
        }
    }
    if always {
        let provenance = ProvenanceId::default().0;
        let entry = PolicyEntry {
            precedence: ALLOW_PRECEDENCE,
            provenance,
            proxy_port: 0,
            deny: 0,
            prefix_len: EVERYTHING.len,
            pad: 0,
        };
        all.entry(EVERYTHING).or_insert(entry);
    }
    let decisive = |(prefix, entry): (&Prefix, &PolicyEntry)| {
        let beaten = above(prefix).any(|shorter| all.get(&shorter).is_some_and(|s| s.precedence > entry.precedence));
        let Prefix { len, proto, port } = *prefix;
        (!beaten).then_some((EntryKey { direction, peer, prefix_len: len, proto, port }, *entry))
    };
    all.iter().filter_map(decisive).collect()
}

/// The shorter prefixes that cover this one.
fn above(prefix: &Prefix) -> impl Iterator<Item = Prefix> {
    let Prefix { len, proto, port } = *prefix;
    let ports = (PREFIX_PROTO as u8..len).map(move |len| Prefix { len, proto, port: port & !host_bits(len) });
    ports.chain((len > EVERYTHING.len).then_some(EVERYTHING))
}

/// What a statement says about a peer it applies to.
fn prefixes_for(statement: &Statement, peer: IdentityId, world: &World<'_>) -> Vec<Prefix> {
    let about_any = statement.peers.is_none();
    let Some(ports) = &statement.ports else {
        // A statement about anybody is listed under "any peer" only.
        return if about_any == (peer == ANY) { vec![EVERYTHING] } else { Vec::new() };
    };
    let mut all = Vec::new();
    for l4 in ports.iter() {
        match l4 {
            L4::Range { proto, first, last } if about_any == (peer == ANY) => {
                all.extend(split(*first, *last).into_iter().map(|(port, len)| Prefix { len, proto: *proto, port }));
            }
            L4::Named { proto, name } => {
                let numbers = match statement.direction {
                    Direction::Ingress => (world.own_ports)(*proto, name),
                    Direction::Egress if peer != ANY => (world.peer_ports)(peer, *proto, name),
                    _ => Vec::new(),
                };
                let full = PREFIX_PORT as u8;
                all.extend(numbers.into_iter().map(|port| Prefix { len: full, proto: *proto, port }));
            }
            L4::Range { .. } => {}
        }
    }
    all
}

/// The fewest prefixes that cover the ports from first to last, each with the bits of the kernel's key that count.
fn split(first: u16, last: u16) -> Vec<(u16, u8)> {
    let (mut from, end) = (u32::from(first), u32::from(last) + 1);
    let mut all = Vec::new();
    while from < end {
        let aligned = if from == 0 { 16 } else { from.trailing_zeros() };
        let bits = aligned.min((end - from).ilog2());
        if let (Ok(port), Ok(len)) = (u16::try_from(from), u8::try_from(PREFIX_PORT - bits)) {
            all.push((port, len));
        }
        from += 1 << bits;
    }
    all
}

/// Whether a statement produces entries for the peer.
pub(super) fn concerns(statement: &Statement, peer: IdentityId, selectors: &SelectorCache) -> bool {
    match &statement.peers {
        None => peer == ANY || names_peer_ports(statement),
        Some(all) => all.iter().any(|id| selectors.selects(*id, peer)),
    }
}

/// The peers that need entries, each with the statements that apply to it, in order.
pub(super) fn by_peer<'a>(
    statements: &'a [Arc<Statement>],
    selectors: &SelectorCache,
    with_named_ports: &dyn Fn() -> Vec<IdentityId>,
) -> BTreeMap<IdentityId, Vec<&'a Arc<Statement>>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for statement in statements {
        let peers: BTreeSet<IdentityId> = match &statement.peers {
            None if names_peer_ports(statement) => with_named_ports().into_iter().chain([ANY]).collect(),
            None => BTreeSet::from([ANY]),
            Some(peers) => peers.iter().filter_map(|id| selectors.members(*id)).flatten().copied().collect(),
        };
        peers.into_iter().for_each(|peer| all.entry(peer).or_default().push(statement));
    }
    all
}

/// Whether the statement depends on peers' named ports.
pub(super) fn names_peer_ports(statement: &Statement) -> bool {
    let named = |ports: &crate::rules::NonEmpty<L4>| ports.iter().any(|l4| matches!(l4, L4::Named { .. }));
    statement.direction == Direction::Egress && statement.ports.as_ref().is_some_and(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(prefix: (u16, u8), port: u16) -> bool {
        port & !host_bits(prefix.1) == prefix.0
    }

    #[test]
    fn the_whole_range_is_the_protocol_and_one_port_is_one_prefix() {
        assert_eq!(split(0, u16::MAX), [(0, PREFIX_PROTO as u8)]);
        assert_eq!(split(80, 80), [(80, PREFIX_PORT as u8)]);
        assert_eq!(split(u16::MAX, u16::MAX), [(u16::MAX, PREFIX_PORT as u8)]);
    }

    proptest! {
        #[test]
        fn a_range_is_covered_exactly_once(a: u16, b: u16, probe: u16) {
            let (first, last) = (a.min(b), a.max(b));
            let prefixes = split(first, last);
            prop_assert!(prefixes.len() <= 30);
            for port in [first, last, probe, first.saturating_sub(1), last.saturating_add(1)] {
                let covering = prefixes.iter().filter(|prefix| covers(**prefix, port)).count();
                prop_assert_eq!(covering, usize::from((first..=last).contains(&port)));
            }
        }
    }
}
