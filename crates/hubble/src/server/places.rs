// SPDX-License-Identifier: Apache-2.0
//! How many connections a listener keeps. Each costs a descriptor and some memory here for as long as its client answers pings, whether it asks
//! for anything or not. When there are too many, whoever has the most loses the oldest of them: it is not others that make room for one who
//! opens ever more.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Connections of a listener.
pub(super) const MOST: usize = 1024;

/// A listener's connections. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    next: u64,
    all: BTreeMap<u64, (Option<IpAddr>, oneshot::Sender<()>)>,
    /// How many each has; nobody who has none.
    each: BTreeMap<Option<IpAddr>, usize>,
}

/// The place of a connection, until it is dropped.
pub(super) struct Place {
    number: u64,
    /// Ends when another needs it.
    needed: oneshot::Receiver<()>,
    places: Places,
}

impl Places {
    /// A place for a connection from this address, if it has one.
    pub(super) fn take(&self, from: Option<IpAddr>) -> Place {
        let mut taken = self.0.lock();
        if taken.all.len() >= MOST {
            taken.make_room();
        }
        let (held, needed) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        taken.all.insert(number, (from, held));
        *taken.each.entry(from).or_default() += 1;
        Place { number, needed, places: self.clone() }
    }
}

impl Taken {
    fn make_room(&mut self) {
        let most = self.each.values().copied().max().unwrap_or_default();
        let of_greedy = |(_, (from, _)): &(&u64, &(Option<IpAddr>, _))| self.each.get(from) == Some(&most);
        if let Some((number, _)) = self.all.iter().find(of_greedy) {
            self.remove(*number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some((from, _)) = self.all.remove(&number) else { return };
        if let Some(count) = self.each.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.each.remove(&from);
            }
        }
    }
}

impl Place {
    /// Ready when it must be left.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(Pin::new(&mut self.needed), cx).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn is_over(place: &mut Place) -> bool {
        place.poll_over(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_opens_ever_more_makes_room_for_it_and_the_others_stay() {
        let places = Places::default();
        let mut first = places.take(address(1));
        let mut many: Vec<_> = (1..MOST).map(|_| places.take(address(2))).collect();
        assert!(!is_over(&mut first) && many.iter_mut().all(|place| !is_over(place)), "there is room for all of them");
        many.extend([places.take(address(2)), places.take(address(3)), places.take(None)]);
        let over: Vec<_> = many.iter_mut().map(is_over).collect();
        assert_eq!(over.iter().position(|over| !over), Some(3), "the oldest three of the one with the most");
        assert!(!is_over(&mut first) && over.iter().filter(|over| **over).count() == 3);
    }

    #[test]
    fn a_place_that_is_left_is_free_and_nobody_is_remembered() {
        let places = Places::default();
        let mut first = places.take(address(1));
        for _ in 0..2 * MOST {
            drop(places.take(address(2)));
        }
        assert!(!is_over(&mut first));
        drop(first);
        let taken = places.0.lock();
        assert!(taken.all.is_empty() && taken.each.is_empty());
    }

    #[test]
    fn among_such_as_have_the_same_the_oldest_makes_room() {
        let places = Places::default();
        let mut all: Vec<_> = (0..MOST).map(|n| places.take(Some(IpAddr::from((n as u128).to_be_bytes())))).collect();
        all.push(places.take(address(9)));
        assert!(is_over(&mut all[0]) && !is_over(&mut all[1]));
    }
}
