// SPDX-License-Identifier: Apache-2.0
//! Identities of prefixes: local to this node, and stable across restarts because they are restored from the pinned
//! ipcache.

use ipnet::IpNet;
use model::{IdentityId, Label, LabelSource, Labels, reserved};
use std::collections::{BTreeMap, BTreeSet};

/// First number of a node-local identity, as in Cilium.
const FIRST: u32 = 0x0100_0001;
/// Last one.
const LAST: u32 = 0x01ff_ffff;

/// The cluster's address families: with both, the world has an identity for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Families {
    /// The world's identity for the prefix's family.
    #[must_use]
    pub const fn world(self, prefix: &IpNet) -> IdentityId {
        match (self.ipv4 && self.ipv6, prefix) {
            (false, _) => reserved::WORLD,
            (true, IpNet::V4(_)) => reserved::WORLD_IPV4,
            (true, IpNet::V6(_)) => reserved::WORLD_IPV6,
        }
    }

    /// All addresses of each family, with the identity of otherwise unknown ones.
    pub fn defaults(self) -> impl Iterator<Item = (IpNet, IdentityId)> {
        let all =
            [(self.ipv4, IpNet::V4(ipnet::Ipv4Net::default())), (self.ipv6, IpNet::V6(ipnet::Ipv6Net::default()))];
        all.into_iter().filter(|(enabled, _)| *enabled).map(move |(_, prefix)| (prefix, self.world(&prefix)))
    }

    /// The prefix that a reserved identity stands for.
    #[must_use]
    pub fn prefix_of(self, id: IdentityId) -> Option<IpNet> {
        self.defaults().find(|(_, world)| *world == id).map(|(prefix, _)| prefix)
    }
}

/// The text of a prefix in a label: `-` for `:`, which separates the source, and no `-` at either end.
fn label_key(prefix: &IpNet) -> String {
    let IpNet::V6(v6) = prefix else { return prefix.to_string() };
    let address = v6.network().to_string().replace(':', "-");
    let head = if address.starts_with('-') { "0" } else { "" };
    let tail = if address.ends_with('-') { "0" } else { "" };
    format!("{head}{address}{tail}/{}", v6.prefix_len())
}

/// The labels of a prefix; of an API server's address, that too.
#[must_use]
pub(super) fn labels(prefix: &IpNet, families: Families, api_server: bool) -> Labels {
    let world = reserved::name(families.world(prefix)).unwrap_or("world");
    let own = [Label::new(LabelSource::Cidr, label_key(prefix), ""), Label::reserved(world)];
    own.into_iter().chain(api_server.then(|| Label::reserved("kube-apiserver"))).collect()
}

/// Which prefix has which number.
#[derive(Debug)]
pub(super) struct CidrIdentities {
    families: Families,
    active: BTreeMap<IpNet, (IdentityId, usize)>,
    /// No longer used, but still in the ipcache.
    retired: BTreeMap<IpNet, IdentityId>,
    /// Restored from the pinned ipcache.
    restored: BTreeMap<IpNet, IdentityId>,
    used: BTreeSet<IdentityId>,
    next: u32,
}

impl CidrIdentities {
    pub(super) fn new(families: Families, restored: impl IntoIterator<Item = (IpNet, IdentityId)>) -> Self {
        let restored: BTreeMap<_, _> = restored.into_iter().filter(|(_, id)| id.is_node_local()).collect();
        let used: BTreeSet<_> = restored.values().copied().collect();
        let next = used.last().map_or(FIRST, |last| following(last.0));
        Self { families, active: BTreeMap::new(), retired: BTreeMap::new(), restored, used, next }
    }

    /// Acquires a prefix. Returns its identity if this is the first use.
    pub(super) fn acquire(&mut self, prefix: IpNet) -> Option<IdentityId> {
        if prefix.prefix_len() == 0 {
            return None;
        }
        if let Some((_, users)) = self.active.get_mut(&prefix) {
            *users += 1;
            return None;
        }
        if let Some(id) = self.retired.remove(&prefix) {
            self.active.insert(prefix, (id, 1));
            return Some(id);
        }
        let id = self.restored.remove(&prefix).or_else(|| self.allocate())?;
        self.active.insert(prefix, (id, 1));
        Some(id)
    }

    /// Releases one use. The identity stays until [`collect`](Self::collect).
    pub(super) fn release(&mut self, prefix: &IpNet) {
        let Some((id, users)) = self.active.get_mut(prefix) else { return };
        *users -= 1;
        if *users == 0 {
            self.retired.insert(*prefix, *id);
            self.active.remove(prefix);
        }
    }

    /// Call once the ipcache no longer has the retired ones: they end.
    pub(super) fn collect(&mut self) -> Vec<IdentityId> {
        let ended: Vec<_> = std::mem::take(&mut self.retired).into_values().collect();
        for id in &ended {
            self.used.remove(id);
        }
        ended
    }

    /// Call once restored but unused prefixes have been pruned from the ipcache: their numbers become free.
    pub(super) fn forget_restored(&mut self) {
        for id in std::mem::take(&mut self.restored).into_values() {
            self.used.remove(&id);
        }
    }

    /// The identity of a prefix in use.
    pub(super) fn get(&self, prefix: &IpNet) -> Option<IdentityId> {
        self.active.get(prefix).map(|(id, _)| *id)
    }

    pub(super) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpNet, IdentityId)> {
        self.active.iter().map(|(prefix, (id, _))| (*prefix, *id))
    }

    pub(super) const fn families(&self) -> Families {
        self.families
    }

    /// The next free number: a released one is not reused soon.
    fn allocate(&mut self) -> Option<IdentityId> {
        for _ in FIRST..=LAST {
            let id = IdentityId(self.next);
            self.next = following(self.next);
            if self.used.insert(id) {
                return Some(id);
            }
        }
        None
    }
}

const fn following(id: u32) -> u32 {
    if id >= LAST { FIRST } else { id + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: Families = Families { ipv4: true, ipv6: true };

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_keeps_its_number_over_a_restart_and_a_new_one_gets_another() {
        let mut first = CidrIdentities::new(DUAL, []);
        let id = first.acquire(net("10.0.0.0/8")).unwrap();
        assert_eq!((id.0, first.acquire(net("10.0.0.0/8"))), (FIRST, None));
        let mut second = CidrIdentities::new(DUAL, [(net("10.0.0.0/8"), id), (net("1.2.3.4/32"), reserved::HOST)]);
        assert_ne!(second.acquire(net("10.1.0.0/16")).unwrap(), id);
        assert_eq!(second.acquire(net("10.0.0.0/8")), Some(id));
    }

    #[test]
    fn a_number_is_free_only_after_the_ipcache_has_let_it_go() {
        let mut cidrs = CidrIdentities::new(DUAL, []);
        let id = cidrs.acquire(net("fd00::/8")).unwrap();
        cidrs.release(&net("fd00::/8"));
        assert!(cidrs.has_retired() && cidrs.iter().next().is_none());
        assert_eq!(cidrs.acquire(net("fd00::/8")), Some(id));
        assert!(!cidrs.has_retired());
        cidrs.release(&net("fd00::/8"));
        assert_eq!(cidrs.collect(), [id]);
        assert_ne!(cidrs.acquire(net("fd00::/8")).unwrap(), id);
    }

    #[test]
    fn all_addresses_of_a_family_are_the_world() {
        assert_eq!(CidrIdentities::new(DUAL, []).acquire(net("0.0.0.0/0")), None);
        assert_eq!(DUAL.prefix_of(reserved::WORLD_IPV6), Some(net("::/0")));
        assert_eq!(DUAL.prefix_of(reserved::WORLD), None);
        let single = Families { ipv4: true, ipv6: false };
        assert_eq!(single.prefix_of(reserved::WORLD), Some(net("0.0.0.0/0")));
    }

    #[test]
    fn labels_of_prefixes_have_no_colon_in_their_key() {
        assert_eq!(labels(&net("10.0.0.0/8"), DUAL, false).to_strings(), ["cidr:10.0.0.0/8", "reserved:world-ipv4"]);
        assert_eq!(labels(&net("fd00::/8"), DUAL, false).to_strings(), ["cidr:fd00--0/8", "reserved:world-ipv6"]);
        assert_eq!(labels(&net("::1/128"), DUAL, false).to_strings(), ["cidr:0--1/128", "reserved:world-ipv6"]);
    }
}
