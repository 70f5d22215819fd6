// SPDX-License-Identifier: Apache-2.0
//! The selector cache: each selector used by a policy, once, with the identities it selects. A new identity is compared
//! only with selectors that require one of its labels, and with those that require none in particular.

use crate::rules::{CidrSelector, Operator, Requirement, Selector};
use ipnet::IpNet;
use model::{IdentityId, Labels};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// An identity as selectors see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub labels: Labels,
    /// Its prefix, if it is outside the cluster.
    pub prefix: Option<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerSelector {
    Labels(Selector),
    /// By address.
    Cidr(CidrSelector),
}

impl PeerSelector {
    fn selects(&self, identity: &Subject) -> bool {
        match self {
            Self::Labels(selector) => selector.matches(&identity.labels),
            Self::Cidr(cidr) => identity.prefix.is_some_and(|prefix| cidr.matches(&prefix)),
        }
    }

    /// Its key in the index.
    fn anchor(&self) -> Anchor {
        let selector = match self {
            Self::Labels(selector) => selector,
            Self::Cidr(cidr) => return Anchor::Inside(cidr.cidr),
        };
        let Selector::Matching(requirements) = selector else { return Anchor::Any };
        // A namespace or a cluster has many identities: prefer any other label.
        let wide = |r: &&Requirement| &*r.key == crate::labels::NAMESPACE || &*r.key == crate::labels::CLUSTER;
        let positive = || requirements.iter().filter(|r| matches!(r.operator, Operator::In(_) | Operator::Exists));
        let best = positive().find(|r| !wide(r)).or_else(|| positive().next());
        best.map_or(Anchor::Any, |r| Anchor::Key(r.key.clone()))
    }
}

/// What an identity must have for a selector to be worth checking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Anchor {
    /// A label of that key.
    Key(Arc<str>),
    /// A prefix within this one.
    Inside(IpNet),
    /// Nothing in particular.
    Any,
}

/// Handle of a selector in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SelectorId(u32);

#[derive(Debug)]
struct Cached {
    selector: PeerSelector,
    members: BTreeSet<IdentityId>,
    users: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SelectorCache {
    next: u32,
    cached: BTreeMap<SelectorId, Cached>,
    ids: HashMap<PeerSelector, SelectorId>,
    index: HashMap<Anchor, BTreeSet<SelectorId>>,
    identities: BTreeMap<IdentityId, Subject>,
}

impl SelectorCache {
    /// Acquires a selector; each call needs a [`release`](Self::release).
    pub(crate) fn acquire(&mut self, selector: PeerSelector) -> SelectorId {
        if let Some(&id) = self.ids.get(&selector) {
            if let Some(cached) = self.cached.get_mut(&id) {
                cached.users += 1;
            }
            return id;
        }
        let id = SelectorId(self.next);
        self.next = self.next.wrapping_add(1);
        let members = self.identities.iter().filter(|(_, identity)| selector.selects(identity)).map(|(id, _)| *id);
        let members = members.collect();
        self.index.entry(selector.anchor()).or_default().insert(id);
        self.ids.insert(selector.clone(), id);
        self.cached.insert(id, Cached { selector, members, users: 1 });
        id
    }

    /// Releases one use.
    pub(crate) fn release(&mut self, id: SelectorId) {
        let Some(cached) = self.cached.get_mut(&id) else { return };
        cached.users -= 1;
        if cached.users > 0 {
            return;
        }
        if let Some(cached) = self.cached.remove(&id) {
            let anchor = cached.selector.anchor();
            if let Some(ids) = self.index.get_mut(&anchor) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.index.remove(&anchor);
                }
            }
            self.ids.remove(&cached.selector);
        }
    }

    /// The identities selected by a selector.
    #[must_use]
    pub(crate) fn members(&self, id: SelectorId) -> Option<&BTreeSet<IdentityId>> {
        self.cached.get(&id).map(|cached| &cached.members)
    }

    /// Whether a selector selects the identity.
    #[must_use]
    pub(crate) fn selects(&self, id: SelectorId, identity: IdentityId) -> bool {
        self.members(id).is_some_and(|members| members.contains(&identity))
    }

    /// Adds an identity or updates its labels. Returns the selectors whose members have changed.
    pub(crate) fn upsert(&mut self, id: IdentityId, identity: Subject) -> BTreeSet<SelectorId> {
        if self.identities.get(&id) == Some(&identity) {
            return BTreeSet::new();
        }
        let mut changed = self.remove(id);
        for selector in self.candidates(&identity) {
            let Some(cached) = self.cached.get_mut(&selector) else { continue };
            if cached.selector.selects(&identity) {
                cached.members.insert(id);
                // Selected both before and after: no change.
                if !changed.remove(&selector) {
                    changed.insert(selector);
                }
            }
        }
        self.identities.insert(id, identity);
        changed
    }

    /// Removes an identity. Returns the selectors whose members have changed.
    pub(crate) fn remove(&mut self, id: IdentityId) -> BTreeSet<SelectorId> {
        let Some(identity) = self.identities.remove(&id) else { return BTreeSet::new() };
        let mut changed = self.candidates(&identity);
        changed.retain(|selector| self.cached.get_mut(selector).is_some_and(|cached| cached.members.remove(&id)));
        changed
    }

    /// The identity as known.
    #[must_use]
    pub(crate) fn identity(&self, id: IdentityId) -> Option<&Subject> {
        self.identities.get(&id)
    }

    /// All identities.
    #[cfg(test)]
    pub(crate) fn identities(&self) -> impl Iterator<Item = (IdentityId, &Subject)> {
        self.identities.iter().map(|(id, identity)| (*id, identity))
    }

    /// Every selector in use with its members.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerSelector, &BTreeSet<IdentityId>)> {
        self.cached.values().map(|cached| (&cached.selector, &cached.members))
    }

    fn candidates(&self, identity: &Subject) -> BTreeSet<SelectorId> {
        let mut all: BTreeSet<SelectorId> = self.index.get(&Anchor::Any).cloned().unwrap_or_default();
        for wider in std::iter::successors(identity.prefix, IpNet::supernet) {
            all.extend(self.index.get(&Anchor::Inside(wider)).into_iter().flatten());
        }
        for label in identity.labels.iter() {
            all.extend(self.index.get(&Anchor::Key(label.key.clone())).into_iter().flatten());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::NonEmpty;
    use model::LabelSource;
    use proptest::prelude::*;

    fn pods(labels: &[(&str, &str)]) -> Subject {
        let labels = labels.iter().map(|(k, v)| model::Label::k8s(*k, *v)).collect();
        Subject { labels, prefix: None }
    }

    fn app(value: &str) -> PeerSelector {
        PeerSelector::Labels(Selector::all_of(vec![Requirement::equals(LabelSource::K8s, "app", value)]))
    }

    #[test]
    fn only_selectors_whose_members_change_are_reported() {
        let mut cache = SelectorCache::default();
        let (web, db) = (cache.acquire(app("web")), cache.acquire(app("db")));
        assert_eq!(cache.acquire(app("web")), web);
        let id = IdentityId(300);
        assert_eq!(cache.upsert(id, pods(&[("app", "web")])), BTreeSet::from([web]));
        assert_eq!(cache.upsert(id, pods(&[("app", "web"), ("x", "y")])), BTreeSet::new());
        assert_eq!(cache.upsert(id, pods(&[("app", "db")])), BTreeSet::from([web, db]));
        assert_eq!(cache.remove(id), BTreeSet::from([db]));
        assert_eq!(cache.remove(id), BTreeSet::new());
    }

    #[test]
    fn a_selector_that_nobody_uses_is_forgotten() {
        let mut cache = SelectorCache::default();
        let (first, second) = (cache.acquire(app("web")), cache.acquire(app("web")));
        cache.release(first);
        assert!(cache.members(second).is_some());
        cache.release(second);
        assert!(cache.members(second).is_none() && cache.index.is_empty() && cache.ids.is_empty());
    }

    #[test]
    fn a_prefix_selects_the_prefixes_inside_of_it_less_its_exceptions() {
        let mut cache = SelectorCache::default();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let selector = CidrSelector { cidr: net("10.0.0.0/8"), except: vec![net("10.1.0.0/16")] };
        let id = cache.acquire(PeerSelector::Cidr(selector));
        for (number, prefix) in
            ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0"].iter().enumerate()
        {
            let identity = Subject { labels: Labels::default(), prefix: Some(net(prefix)) };
            cache.upsert(IdentityId(16_777_217 + u32::try_from(number).unwrap()), identity);
        }
        assert_eq!(cache.members(id).unwrap().iter().map(|i| i.0 - 16_777_217).collect::<Vec<_>>(), [0, 3]);
    }

    /// A namespace and a cluster have many identities, one application in them has few.
    #[test]
    fn a_new_identity_is_compared_with_what_selects_its_application_and_not_its_whole_namespace() {
        let equals = |key: &str| Requirement::equals(LabelSource::K8s, key, "x");
        let (namespace, cluster) = (crate::labels::NAMESPACE, crate::labels::CLUSTER);
        let missing = Requirement { operator: Operator::Missing, ..equals("zone") };
        for (requirements, key) in [
            (vec![equals(namespace), equals(cluster), equals("tier")], Some("tier")),
            (vec![equals("app"), equals(namespace)], Some("app")),
            (vec![equals(cluster), equals(namespace)], Some(cluster)),
            (vec![equals(cluster), missing.clone()], Some(cluster)),
            (vec![missing], None),
        ] {
            let mut cache = SelectorCache::default();
            let id = cache.acquire(PeerSelector::Labels(Selector::all_of(requirements)));
            for other in [namespace, cluster, "app", "tier", "zone"] {
                let compared = cache.candidates(&pods(&[(other, "y")])).contains(&id);
                assert_eq!(compared, key.is_none_or(|key| key == other), "{key:?} {other}");
            }
        }
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let value = || prop::sample::select(vec!["a", "b"]);
        let values = move || prop::collection::vec(value().prop_map(Arc::from), 1..3);
        let operator = prop_oneof![
            values().prop_map(|v| Operator::In(NonEmpty::new(v).unwrap().sorted())),
            values().prop_map(|v| Operator::NotIn(NonEmpty::new(v).unwrap().sorted())),
            Just(Operator::Exists),
            Just(Operator::Missing),
        ];
        let source = prop::sample::select(vec![LabelSource::Any, LabelSource::K8s, LabelSource::Reserved]);
        let key = prop::sample::select(vec!["k", "l", crate::labels::NAMESPACE]);
        (source, key, operator).prop_map(|(source, key, operator)| Requirement { source, key: key.into(), operator })
    }

    fn identity() -> impl Strategy<Value = Subject> {
        let key = prop::sample::select(vec!["k", "l", crate::labels::NAMESPACE]);
        let labels = prop::collection::btree_map(key, prop::sample::select(vec!["a", "b", "c"]), 0..3);
        labels.prop_map(|labels| pods(&labels.into_iter().collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn members_are_always_what_a_full_scan_finds(
            steps in prop::collection::vec((prop::collection::vec(requirement(), 0..3), 0u32..5, prop::option::of(identity())), 1..30)
        ) {
            let mut cache = SelectorCache::default();
            for (requirements, number, identity) in steps {
                cache.acquire(PeerSelector::Labels(Selector::all_of(requirements)));
                match identity {
                    Some(identity) => cache.upsert(IdentityId(number), identity),
                    None => cache.remove(IdentityId(number)),
                };
                for (selector, members) in cache.iter() {
                    let scan: BTreeSet<_> = cache.identities().filter(|(_, i)| selector.selects(i)).map(|(id, _)| id).collect();
                    prop_assert_eq!(&scan, members);
                }
            }
        }
    }
}
