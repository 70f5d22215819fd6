// SPDX-License-Identifier: Apache-2.0
//! How many requests the relay answers at the same time. Each costs memory here and a stream to every node for as long as its client
//! keeps it open, and whoever reaches the port may ask.

use futures::Stream;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;

/// Requests of all clients.
const ALL: usize = 512;
/// Those of one address, so that it takes several to keep others out. The UI, which follows 16 namespaces, is one client.
const EACH: usize = 64;

/// Requests that are being answered. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Guests(Arc<Mutex<HashMap<Option<IpAddr>, usize>>>);

/// The place of a request, until it is dropped.
pub(crate) struct Guest {
    address: Option<IpAddr>,
    all: Guests,
}

impl Guests {
    /// A place for a request from this address, if it is known.
    ///
    /// # Errors
    ///
    /// When there is none left.
    pub(crate) fn admit(&self, address: Option<IpAddr>) -> Result<Guest, Status> {
        let mut taken = self.0.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&address).copied().unwrap_or_default());
        if own >= EACH {
            return Err(Status::resource_exhausted(format!("{EACH} requests from one address are answered at a time")));
        }
        if all >= ALL {
            return Err(Status::resource_exhausted(format!("the relay answers {ALL} requests at a time")));
        }
        taken.insert(address, own + 1);
        Ok(Guest { address, all: self.clone() })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut taken = self.all.0.lock();
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Answers, whose request keeps its place for as long as the client wants more of them.
pub(crate) struct Hosted<S> {
    pub(crate) answers: S,
    pub(crate) _guest: Guest,
}

impl<S: Stream + Unpin> Stream for Hosted<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        Pin::new(&mut self.get_mut().answers).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::net::Ipv4Addr;

    fn address(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(10, 0, 0, last).into())
    }

    #[test]
    fn one_address_gets_so_many_places_and_no_more_until_it_leaves_one() {
        let guests = Guests::default();
        let mut taken: Vec<_> = (0..EACH).map(|_| guests.admit(address(1)).unwrap()).collect();
        let refused = guests.admit(address(1)).map(drop).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(guests.admit(address(2)).unwrap());
        drop(guests.admit(None).unwrap());
        taken.pop();
        drop(guests.admit(address(1)).unwrap());
        drop(taken);
        assert!(guests.0.lock().is_empty(), "nobody is remembered");
    }

    #[test]
    fn all_addresses_together_get_no_more_than_there_are() {
        let guests = Guests::default();
        let admit = |n: usize| guests.admit(address(u8::try_from(n / EACH).unwrap()));
        let taken: Vec<_> = (0..ALL).map(|n| admit(n).unwrap()).collect();
        assert!(admit(ALL).map(drop).unwrap_err().message().contains("512"));
        drop(taken);
        admit(ALL).map(drop).unwrap();
    }
}
