// SPDX-License-Identifier: Apache-2.0
//! What follows from changes: first conflicts between pools, then what Services must give up, then what their statuses already
//! name, and only then new allocations.

use super::pools::PoolName;
use super::waiting::Turn;
use super::{Allocator, Settled};
use crate::pool::Spec;
use crate::range::Family;
use crate::service::Service;
use model::ServiceName;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::mem::take;
use std::net::IpAddr;
use std::sync::Arc;

impl Allocator {
    /// Decides for everyone affected by the changes since the last call.
    pub fn settle(&mut self) -> Settled {
        let pools_changed = self.settle_pools();
        let (services, terms) = (take(&mut self.work.services), take(&mut self.work.terms));
        let turns = services.iter().filter_map(|name| self.services.get(name)).map(|state| Turn::of(&state.service));
        let mut turns: BTreeSet<Turn> = turns.collect();
        // A Service that changed its terms yields to one that did not; among several, the youngest yields.
        let mut stripping: Vec<&Turn> = turns.iter().collect();
        stripping.sort_by_key(|turn| Reverse((terms.contains(&turn.name), *turn)));
        stripping.into_iter().for_each(|turn| self.strip(&turn.name));
        turns.iter().for_each(|turn| self.adopt(&turn.name));

        if pools_changed {
            turns.extend(self.waiting.all().cloned());
        }
        let (mut considered, mut freed) = (0, self.work.freed.clone());
        turns.extend(self.helped());
        while !turns.is_empty() {
            considered += turns.len();
            // Requests for specific addresses come first, then Services that are returning to one.
            let (any, certain): (Vec<Turn>, Vec<Turn>) = turns.into_iter().partition(Turn::is_for_any);
            certain.iter().for_each(|turn| self.satisfy(&turn.name));
            any.iter().for_each(|turn| self.reclaim(&turn.name));
            any.iter().for_each(|turn| self.satisfy(&turn.name));
            turns = self.helped();
        }
        freed.retain(|address| self.occupancy.is_free(*address));
        considered += self.serve_queue(&freed);
        Settled { services: take(&mut self.work.touched), pools: take(&mut self.work.pools), considered }
    }

    /// Settles changes of pools. Returns whether there were any.
    fn settle_pools(&mut self) -> bool {
        let specs = take(&mut self.work.specs);
        if specs.is_empty() {
            return false;
        }
        let conflicts = self.pools.settle_conflicts();
        self.work.pools.extend(conflicts);
        for (name, before) in specs {
            self.pools.rebuild(&name, &self.former, &self.occupancy, &self.cluster);
            let now = self.pools.get(&name).map(|state| state.pool.spec.clone());
            for spec in before.into_iter().chain(now) {
                self.review_holders(&spec);
            }
        }
        let strays = self.services.values().filter(|state| state.verdict.is_none() || !state.strays.is_empty());
        self.work.services.extend(strays.map(|state| state.service.name.clone()));
        true
    }

    fn review_holders(&mut self, spec: &Arc<Spec>) {
        for address in spec.blocks.iter().flat_map(|block| self.occupancy.within(block.range)) {
            self.work.services.extend(self.occupancy.occupants(address).cloned());
        }
    }

    /// Whether a Service is ours to decide on. Without any pool, only those that were ours before are.
    pub(super) fn is_ours(&self, service: &Service) -> bool {
        !self.pools.is_empty() || service.condition().is_some()
    }

    /// Takes away what a Service may no longer have.
    fn strip(&mut self, name: &ServiceName) {
        let Some(state) = self.services.get(name) else { return };
        let is_lost =
            |address: &&IpAddr| !self.may_have(&state.service, **address) || self.is_delayed(&state.service, **address);
        let lost: Vec<IpAddr> = state.held.iter().filter(is_lost).copied().collect();
        lost.into_iter().for_each(|address| self.release(name, address));
    }

    /// Adopts the addresses that the status of a Service names, as far as it may have them.
    fn adopt(&mut self, name: &ServiceName) {
        let Some(state) = self.services.get(name) else { return };
        let present: Vec<IpAddr> = state.service.present().collect();
        let mut strays = Vec::new();
        for address in present {
            let Some(state) = self.services.get(name) else { return };
            if state.held.contains(&address) || strays.contains(&address) {
                continue;
            }
            if self.may_have(&state.service, address) {
                self.hold(name, address);
            } else if self.is_stray(&state.service, address) {
                strays.push(address);
            }
        }
        if let Some(state) = self.services.get_mut(name) {
            state.strays = strays;
        }
        self.work.touched.insert(name.clone());
    }

    /// Whether a Service may keep an address that it has, or that its pool no longer gives out.
    fn may_have(&self, service: &Service, address: IpAddr) -> bool {
        let Some(claim) = service.claim() else { return false };
        claim.asks_for(address)
            && self.pools.of(address).any(|state| state.tolerates(service.subject()))
            && self.rival(service, address).is_none()
    }

    /// Whether the address may belong to an unreadable block of a pool: it is then left alone.
    fn is_stray(&self, service: &Service, address: IpAddr) -> bool {
        let is_asked_for = service.claim().is_some_and(|claim| claim.asks_for(address));
        is_asked_for && self.pools.any_unreadable() && self.pools.names_of(address).is_empty()
    }

    /// Another Service that the address is allocated to and that does not share it with this one, and why.
    fn rival(&self, service: &Service, address: IpAddr) -> Option<(ServiceName, String)> {
        self.first_refusal(service, self.occupancy.holders(address))
    }

    /// The same, counting Services that have not yet released the address.
    pub(super) fn obstacle(&self, service: &Service, address: IpAddr) -> Option<(ServiceName, String)> {
        self.first_refusal(service, self.occupancy.occupants(address))
    }

    fn first_refusal<'a>(
        &self,
        service: &Service,
        others: impl Iterator<Item = &'a ServiceName>,
    ) -> Option<(ServiceName, String)> {
        let others = others.filter(|name| **name != service.name).filter_map(|name| self.services.get(name));
        let mut refusals = others.filter_map(|other| {
            let reason = service.refuses_to_share_with(&other.service)?;
            Some((other.service.name.clone(), reason))
        });
        refusals.next()
    }

    /// The Services waiting for what was released or may now be shared.
    fn helped(&mut self) -> BTreeSet<Turn> {
        let (keys, freed) = (take(&mut self.work.keys), take(&mut self.work.freed));
        let names = keys.iter().filter_map(|key| self.by_sharing_key.get(key)).flatten();
        let by_key = names.filter_map(|name| self.waiting.get(name));
        let by_address = freed.iter().flat_map(|address| self.waiting.for_address(*address));
        by_key.chain(by_address).cloned().collect()
    }

    /// Gives released addresses to the Services that would take any, in their order, until none is left. Returns how many
    /// were examined.
    fn serve_queue(&mut self, freed: &BTreeSet<IpAddr>) -> usize {
        let pools = freed
            .iter()
            .flat_map(|address| self.pools.names_of(*address).into_iter().map(|name| (name, Family::of(*address))));
        let mut open: BTreeSet<(PoolName, Family)> = pools.collect();
        let (mut last, mut considered) = (None, 0);
        loop {
            open.retain(|(name, family)| {
                self.pools.get(name).is_some_and(|state| state.is_open() && state.next(*family).is_some())
            });
            let next = self.waiting.next_after(last.as_ref());
            let Some(turn) = next.filter(|_| !open.is_empty()) else { return considered };
            let helps = |(name, _): &(PoolName, Family)| {
                let service = self.services.get(&turn.name).map(|state| &state.service);
                self.pools.get(name).zip(service).is_some_and(|(pool, service)| pool.selects(service.subject()))
            };
            considered += 1;
            if open.iter().any(helps) {
                self.satisfy(&turn.name);
            }
            last = Some(turn);
        }
    }
}
