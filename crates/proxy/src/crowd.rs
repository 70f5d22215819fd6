// SPDX-License-Identifier: Apache-2.0
//! Open connections of a listener by who they are from. Where there are as many as may be, whoever has the most makes room for others: one
//! client cannot lock all the others out.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Bits of an IPv6 address that tell two clients apart: the others are a client's own to choose (RFC 6177).
const OWN: u32 = 64;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<Groups>);

#[derive(Debug, Default)]
struct Groups {
    /// Number of the next connection.
    next: u64,
    /// Connections of a client, the oldest first.
    by_client: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    /// How many each has.
    by_count: BTreeSet<(usize, IpAddr)>,
}

/// A connection, which counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Arc<Crowd>,
    client: IpAddr,
    number: u64,
    /// Cancelled when it is to make room.
    pub(crate) displaced: CancellationToken,
}

impl Crowd {
    /// One more connection of a client.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr) -> Member {
        let (client, displaced) = (group(client), CancellationToken::new());
        let number = self.0.lock().add(client, &displaced);
        Member { crowd: Arc::clone(self), client, number, displaced }
    }

    /// Ends the oldest connection of whoever has the most, if that is still as many as this client has with one more.
    pub(crate) fn make_room(&self, client: IpAddr) -> bool {
        let mut groups = self.0.lock();
        let own = groups.by_client.get(&group(client)).map_or(0, BTreeMap::len);
        let Some((_, largest)) = groups.by_count.last().copied().filter(|(count, _)| *count > own + 1) else {
            return false;
        };
        let mut oldest = None;
        groups.change(largest, |connections| oldest = connections.pop_first());
        oldest.is_some_and(|(_, displaced)| {
            displaced.cancel();
            true
        })
    }
}

impl Groups {
    fn add(&mut self, client: IpAddr, displaced: &CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.change(client, |own| drop(own.insert(number, displaced.clone())));
        number
    }

    fn change(&mut self, client: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, CancellationToken>)) {
        let own = self.by_client.entry(client).or_default();
        let before = own.len();
        change(own);
        let now = own.len();
        self.by_count.remove(&(before, client));
        if now == 0 {
            self.by_client.remove(&client);
        } else {
            self.by_count.insert((now, client));
        }
    }
}

impl Member {
    /// It is known by now whose connection it is.
    pub(crate) fn is_of(&mut self, client: IpAddr) {
        let client = group(client);
        if client == self.client {
            return;
        }
        let mut groups = self.crowd.0.lock();
        groups.change(self.client, |own| drop(own.remove(&self.number)));
        self.number = groups.add(client, &self.displaced);
        self.client = client;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.0.lock().change(self.client, |own| drop(own.remove(&self.number)));
    }
}

fn group(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << OWN)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_the_most_makes_room_until_all_have_the_same() {
        let crowd = Arc::new(Crowd::default());
        let [many, few, also_many]: [IpAddr; 3] =
            ["2001:db8::1", "192.0.2.1", "2001:db8::2"].map(|text| text.parse().unwrap());
        let mut held: Vec<Member> = (0..4).map(|n| crowd.enter(if n % 2 == 0 { many } else { also_many })).collect();
        let displaced = |held: &[Member]| held.iter().map(|one| one.displaced.is_cancelled()).collect::<Vec<_>>();
        assert!(!crowd.make_room(many) && !crowd.make_room(also_many), "both are one");
        assert!(crowd.make_room(few));
        held.push(crowd.enter(few));
        assert_eq!(displaced(&held), [true, false, false, false, false]);
        assert!(crowd.make_room(few));
        held.push(crowd.enter(few));
        assert_eq!(displaced(&held), [true, true, false, false, false, false]);
        assert!(!crowd.make_room(few), "both have two");
        drop(held);
        assert!(crowd.0.lock().by_client.is_empty() && crowd.0.lock().by_count.is_empty());
    }
}
