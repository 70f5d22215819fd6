// SPDX-License-Identifier: Apache-2.0
//! What this node currently announces: the places of the Leases it holds, until these must be renewed.

use crate::select::{Down, Place, Places};
use model::{Mac, ServiceName};
use parking_lot::Mutex;
use statedb::{Reader, Revision, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// An address that is answered for on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub address: IpAddr,
    /// Interface index of the device.
    pub ifindex: u32,
    /// Its name.
    pub device: String,
    /// The hardware address in replies.
    pub mac: Mac,
    pub service: ServiceName,
    /// Time since boot until which it is answered, unless the Lease is renewed.
    pub until: Duration,
}

/// Address and interface index.
pub type AnnouncementKey = (IpAddr, u32);

impl statedb::Row for Announcement {
    type Key = AnnouncementKey;
    fn key(&self) -> AnnouncementKey {
        (self.address, self.ifindex)
    }
}

/// Combines what to announce with the Leases held. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tenures(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rows: Writer<Announcement>,
    places: Places,
    down: Down,
    /// Told when that changes.
    news: watch::Sender<()>,
    /// Until when each Lease is held, by name.
    held: BTreeMap<String, Duration>,
}

impl Tenures {
    pub(crate) fn new() -> (Self, Reader<Announcement>) {
        let (mut rows, reader) = statedb::table("l2-announce");
        // Complete from the start: what an earlier process announced expires by itself.
        rows.mark_initialized();
        let (places, down, news) = (Places::new(), Down::new(), watch::channel(()).0);
        (Self(Arc::new(Mutex::new(State { rows, places, down, news, held: BTreeMap::new() }))), reader)
    }

    /// Replaces the places, and the devices that are missing among them.
    pub(crate) fn set_places(&self, places: Places, down: Down) {
        let mut state = self.0.lock();
        if state.down != down {
            state.down = down;
            state.news.send_replace(());
        }
        let before = std::mem::replace(&mut state.places, places);
        for (lease, gone) in before {
            if state.held.contains_key(&lease) && state.places.get(&lease) != Some(&gone) {
                state.remove(&gone);
            }
        }
        // An address may have moved from one Lease to another.
        let held: Vec<String> = state.held.keys().cloned().collect();
        held.iter().for_each(|lease| state.announce(lease));
        state.rows.commit();
    }

    /// Records that the Lease is held until that time since boot.
    pub(crate) fn extend(&self, lease: &str, until: Duration) {
        let mut state = self.0.lock();
        state.held.insert(lease.to_owned(), until);
        state.announce(lease);
        state.rows.commit();
    }

    /// Tells of devices that go down and come up.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.0.lock().news.subscribe()
    }

    /// The addresses that are to be answered under a Lease.
    pub(crate) fn addresses(&self, lease: &str) -> BTreeSet<IpAddr> {
        self.0.lock().places.get(lease).into_iter().flatten().map(|place| place.address).collect()
    }

    /// The devices on which they can be.
    pub(crate) fn devices(&self, lease: &str) -> BTreeSet<String> {
        self.0.lock().places.get(lease).into_iter().flatten().map(|place| place.device.clone()).collect()
    }

    /// Those on which they cannot.
    pub(crate) fn down(&self, lease: &str) -> BTreeSet<String> {
        self.0.lock().down.get(lease).cloned().unwrap_or_default()
    }

    /// What is announced under a Lease.
    pub(crate) fn announced(&self, lease: &str) -> Vec<AnnouncementKey> {
        let state = self.0.lock();
        let places = state.held.get(lease).and_then(|_| state.places.get(lease));
        places.into_iter().flatten().map(|place| (place.address, place.ifindex)).collect()
    }

    /// Records that the Lease is no longer held. Returns the commit after which nothing is answered.
    pub(crate) fn end(&self, lease: &str) -> Revision {
        let mut state = self.0.lock();
        if state.held.remove(lease).is_some()
            && let Some(places) = state.places.get(lease).cloned()
        {
            state.remove(&places);
        }
        state.rows.commit()
    }
}

impl State {
    fn remove(&mut self, places: &BTreeSet<Place>) {
        places.iter().for_each(|place| self.rows.remove(&(place.address, place.ifindex)));
    }

    fn announce(&mut self, lease: &str) {
        let (Some(places), Some(until)) = (self.places.get(lease), self.held.get(lease)) else { return };
        for Place { service, address, device, ifindex, mac } in places.clone() {
            self.rows.insert(Announcement { address, ifindex, device, mac, service, until: *until });
        }
    }
}
