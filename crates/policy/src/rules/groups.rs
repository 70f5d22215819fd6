// SPDX-License-Identifier: Apache-2.0
//! What policies say about CiliumCIDRGroups, and what comes of entries of these that are no prefixes. Such an entry is left out where it would
//! allow. Where it would deny it counts as all addresses that a prefix can name: a denial that lost an entry would let somebody through.

use super::{CidrSelector, Effect, GroupSelector, Groups, Peer, Peers, Policy, Problem};
use crate::ingest::CidrGroup;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A place in a policy that names groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GroupUse {
    field: String,
    effect: Effect,
    groups: GroupSelector,
}

impl Policy {
    /// Every place that names groups.
    pub(crate) fn group_uses(&self) -> Vec<GroupUse> {
        let statements = self.rules.iter().flat_map(|rule| &rule.statements);
        let uses = statements.flat_map(|statement| {
            let peers = match &statement.peers {
                Peers::Any => None,
                Peers::Some(peers) => Some(peers.iter()),
            };
            peers.into_iter().flatten().filter_map(|peer| match peer {
                Peer::Group(groups) => Some(GroupUse {
                    field: statement.field("CIDRSet"),
                    effect: statement.effect,
                    groups: groups.clone(),
                }),
                Peer::Labels(_) | Peer::Cidr(_) => None,
            })
        });
        uses.collect()
    }
}

impl GroupUse {
    /// What of the groups it cannot do: of each the first entry, since there may be very many.
    pub(crate) fn problems<'a>(&'a self, groups: impl Iterator<Item = &'a CidrGroup>) -> impl Iterator<Item = Problem> {
        let instead = match self.effect {
            Effect::Allow => "it allows nothing",
            Effect::Deny => "all addresses outside of the cluster are denied instead",
        };
        groups.filter(|group| self.groups.means(group)).filter_map(move |group| {
            let more = match group.problems.len() {
                0 | 1 => String::new(),
                all => format!(" (nor are {} others)", all - 1),
            };
            let reason = format!("CiliumCIDRGroup {}: {}{more}; {instead}", group.name, group.problems.first()?);
            Some(Problem { field: self.field.clone(), reason })
        })
    }
}

impl GroupSelector {
    /// Whether it names that group.
    pub(crate) fn means(&self, group: &CidrGroup) -> bool {
        match &self.groups {
            Groups::Named(name) => group.name == *name,
            Groups::Labelled(labels) => labels.matches(&group.labels),
        }
    }

    /// The prefixes of a group, each with the exceptions inside it.
    pub(crate) fn expand(&self, group: &CidrGroup, effect: Effect) -> impl Iterator<Item = CidrSelector> {
        let unknown = effect == Effect::Deny && !group.problems.is_empty();
        let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let cidrs = group.cidrs.iter().copied().chain(all.into_iter().filter(move |_| unknown));
        // Drop a prefix that an exception covers entirely.
        let cidrs = cidrs.filter(|cidr| !self.except.iter().any(|except| except.contains(cidr)));
        let inside = |cidr: &IpNet| self.except.iter().copied().filter(|e| cidr.contains(e)).collect();
        cidrs.map(move |cidr| CidrSelector { cidr, except: inside(&cidr) })
    }
}
