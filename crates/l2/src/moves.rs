// SPDX-License-Identifier: Apache-2.0
//! Addresses that go from one Lease to another, as a shared one does when the oldest of its Services goes. Who holds the former Lease may be cut
//! off and not know: the address waits until that Lease is given back, or would have expired.

use crate::campaign::Watched;
use crate::select::Selected;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// The Leases that addresses have and had.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    known: BTreeMap<IpAddr, Assignment>,
    waiting: BTreeMap<IpAddr, Wait>,
}

#[derive(Debug)]
struct Assignment {
    lease: String,
    /// Since when nobody asks for the address.
    gone: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    former: String,
    until: Instant,
}

impl Moves {
    /// Takes from the Leases that somebody holds which addresses have been answered under them: this agent may not have been there.
    pub(crate) fn learn<'a>(&mut self, selected: &Selected, held: impl Iterator<Item = &'a Watched>) {
        let mut under: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for lease in held {
            lease.addresses().for_each(|address| under.entry(address).or_default().push(&lease.name));
        }
        for (address, names) in under {
            let now = selected.leases.get(&address);
            // Whoever answers under the present one has waited for the others.
            let former = names.first().filter(|_| now.is_none_or(|now| !names.contains(&now.as_str())));
            if let Some(former) = former.filter(|_| !self.known.contains_key(&address)) {
                self.known.insert(address, Assignment { lease: (*former).to_owned(), gone: None });
            }
        }
    }

    /// Takes out what must wait. `lease` is for how long a Lease lasts, `is_free` says of one whether nobody else holds it. Gives
    /// when to look again, if not before.
    pub(crate) fn hold_back(
        &mut self,
        selected: &mut Selected,
        lease: Duration,
        is_free: impl Fn(&str) -> bool,
    ) -> Option<Instant> {
        let now = Instant::now();
        self.take_note(selected, now, lease);
        self.waiting.retain(|_, wait| wait.until > now && !is_free(&wait.former));
        for places in selected.places.values_mut() {
            places.retain(|place| !self.waiting.contains_key(&place.address));
        }
        selected.places.retain(|_, places| !places.is_empty());
        self.waiting.values().map(|wait| wait.until).min()
    }

    /// Whether news of a Lease may let an address go.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn take_note(&mut self, selected: &Selected, now: Instant, lease: Duration) {
        for (address, known) in &mut self.known {
            if !selected.leases.contains_key(address) {
                known.gone.get_or_insert(now);
            }
        }
        self.known.retain(|_, known| known.gone.is_none_or(|gone| gone + lease > now));
        for (address, name) in &selected.leases {
            let known = Assignment { lease: name.clone(), gone: None };
            if let Some(before) = self.known.insert(*address, known)
                && before.lease != *name
            {
                let until = before.gone.unwrap_or(now) + lease;
                self.waiting.insert(*address, Wait { former: before.lease, until });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::select::Place;
    use model::{Mac, ServiceName};

    const LEASE: Duration = Duration::from_secs(15);

    fn address() -> IpAddr {
        IpAddr::from([192, 0, 2, 240])
    }

    /// Whether the address may be announced under that Lease; none if nobody asks for it.
    fn may(moves: &mut Moves, lease: Option<&str>, is_free: bool) -> bool {
        let place = |service: &str| Place {
            service: ServiceName::new("shop", service),
            address: address(),
            device: "eth0".to_owned(),
            ifindex: 2,
            mac: Mac([2, 0, 0, 0, 0, 1]),
        };
        let mut selected = Selected::default();
        if let Some(lease) = lease {
            selected.places.insert(lease.to_owned(), [place(lease)].into());
            selected.leases.insert(address(), lease.to_owned());
        }
        moves.hold_back(&mut selected, LEASE, |_| is_free);
        !selected.places.is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_waits_for_the_lease_that_it_had() {
        let mut moves = Moves::default();
        assert!(may(&mut moves, Some("a"), false), "it had none");
        tokio::time::advance(LEASE * 10).await;
        assert!(!may(&mut moves, Some("b"), false), "who holds the former may be cut off");
        tokio::time::advance(LEASE / 2).await;
        assert!(!may(&mut moves, Some("b"), false) && moves.is_waiting());
        assert!(may(&mut moves, Some("b"), true), "it was given back");
        assert!(!may(&mut moves, Some("c"), false));
        tokio::time::advance(LEASE).await;
        assert!(may(&mut moves, Some("c"), false) && !moves.is_waiting(), "it would have expired");
    }

    /// A Lease under which these addresses are answered.
    fn lease(name: &str, addresses: &str) -> Watched {
        let annotations = serde_json::json!({"l2.cilium.io/addresses": addresses});
        let object = serde_json::json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"holderIdentity": "n2"}});
        Watched { name: name.to_owned(), lease: serde_json::from_value(object).unwrap() }
    }

    /// Whether an agent that begins may announce the address under the Lease `b` at once.
    fn may_at_first(held: &[Watched]) -> bool {
        let mut moves = Moves::default();
        let selected = Selected { leases: [(address(), "b".to_owned())].into(), ..Selected::default() };
        moves.learn(&selected, held.iter());
        may(&mut moves, Some("b"), false)
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_begins_waits_for_who_answers_under_another_lease() {
        assert!(!may_at_first(&[lease("a", "192.0.2.1,192.0.2.240")]));
        assert!(may_at_first(&[lease("a", "192.0.2.1,x,2001:db8::1")]), "others");
        assert!(may_at_first(&[lease("b", "192.0.2.240")]));
        let both = [lease("a", "192.0.2.240"), lease("b", "192.0.2.240")];
        assert!(may_at_first(&both), "who has it now has waited, and the other Lease is of the past");
        let mut moves = Moves::default();
        let selected = Selected { leases: [(address(), "b".to_owned())].into(), ..Selected::default() };
        assert!(may(&mut moves, Some("b"), false));
        moves.learn(&selected, [lease("a", "192.0.2.240")].iter());
        assert!(may(&mut moves, Some("b"), false), "what it has seen for itself is newer");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_was_nobodys_for_a_while_waits_for_the_rest_of_it() {
        let mut moves = Moves::default();
        assert!(may(&mut moves, Some("a"), false));
        tokio::time::advance(LEASE * 10).await;
        assert!(!may(&mut moves, None, false));
        tokio::time::advance(LEASE / 2).await;
        assert!(!may(&mut moves, Some("b"), false));
        tokio::time::advance(LEASE / 2).await;
        assert!(may(&mut moves, Some("b"), false));
        assert!(!may(&mut moves, None, false));
        tokio::time::advance(LEASE).await;
        assert!(may(&mut moves, Some("c"), false), "whoever had it has it no more");
    }
}
