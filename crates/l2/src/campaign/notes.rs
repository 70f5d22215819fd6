// SPDX-License-Identifier: Apache-2.0
//! What a Lease says besides who holds it: which addresses are answered under it, on which devices its holder cannot, and which node would.
//!
//! A node of whose devices one is down keeps its Leases for as long as no other node does better. One that does says so in the Lease, which its
//! holder then gives back. Nodes that each lack another device leave it where it is.

use super::{Campaign, holder};
use k8s::field::canonical_address;
use k8s::k8s_openapi::api::coordination::v1::Lease;
use k8s::kube::api::{ObjectMeta, PostParams};
use std::net::IpAddr;
use tokio::time::{sleep, timeout};
use tracing::debug;

const ADDRESSES: &str = "l2.cilium.io/addresses";
const DOWN: &str = "l2.cilium.io/devices-down";
const WANTED: &str = "l2.cilium.io/wanted-by";

/// For how many durations of a Lease its holder does not give it up again.
const CALM: u32 = 10;
/// How often whoever asks for a Lease looks whether it is free.
const LOOKS: usize = 4;

/// The addresses that are answered under a Lease.
pub(crate) fn addresses(lease: &Lease) -> impl Iterator<Item = IpAddr> {
    note(lease, ADDRESSES).split(',').filter_map(canonical_address)
}

fn note<'a>(lease: &'a Lease, key: &str) -> &'a str {
    lease.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str).unwrap_or_default()
}

/// Whether another node than this asks for the Lease.
pub(super) fn is_wanted(lease: &Lease, than: &str) -> bool {
    !matches!(note(lease, WANTED), "") && note(lease, WANTED) != than
}

/// Nobody holds it, so that nobody lacks anything.
pub(super) fn clear(lease: &mut Lease) {
    if let Some(all) = lease.metadata.annotations.as_mut() {
        [DOWN, WANTED].into_iter().for_each(|key| drop(all.remove(key)));
    }
}

fn listed(all: impl IntoIterator<Item = impl ToString>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(",")
}

impl Campaign {
    /// What the Lease says when we hold it.
    pub(super) fn noted(&self, mut metadata: ObjectMeta) -> ObjectMeta {
        let (tenures, all) = (&self.all.tenures, metadata.annotations.get_or_insert_default());
        let notes = [(ADDRESSES, listed(tenures.addresses(&self.name))), (DOWN, listed(tenures.down(&self.name)))];
        for (key, value) in notes.into_iter().chain([(WANTED, String::new())]) {
            if value.is_empty() {
                all.remove(key);
            } else {
                all.insert(key.to_owned(), value);
            }
        }
        metadata
    }

    /// Whether some device is down on which the addresses of the Lease are to be answered.
    pub(super) fn is_impaired(&self) -> bool {
        !self.all.tenures.down(&self.name).is_empty()
    }

    /// Whether another node answers where we cannot, and asks for the Lease. Not again soon: whoever asks may not get around to taking it.
    pub(super) fn is_to_yield(&self) -> bool {
        let is_soon = self.yielded.is_some_and(|at| at.elapsed() < self.all.timing.lease * CALM);
        let is_wanted = || self.known.as_ref().is_some_and(|lease| is_wanted(lease, &self.all.node));
        !is_soon && self.is_impaired() && is_wanted()
    }

    /// Asks the holder for the Lease, if it cannot answer on devices on which we can. Whoever writes into it meanwhile brings about another try.
    pub(super) async fn ask(&mut self) {
        let Some(mut lease) = self.known.clone().filter(|lease| self.would_do_better(lease)) else { return };
        let wanted = (WANTED.to_owned(), self.all.node.clone());
        lease.metadata.annotations.get_or_insert_default().extend([wanted]);
        let params = PostParams::default();
        let asked = self.all.api.replace(&self.name, &params, &lease);
        match timeout(self.all.timing.retry, asked).await {
            Ok(Ok(lease)) => self.known = Some(lease),
            _ => return debug!(lease = self.name, "its holder is not asked for it yet"),
        }
        // The watch may lag, and the holder does not wait for long.
        for _ in 0..LOOKS {
            sleep(self.apart(0.1..0.2)).await;
            if let Ok(Ok(Some(lease))) = timeout(self.all.timing.retry, self.all.api.get_opt(&self.name)).await {
                self.known = Some(lease);
            }
            if self.holder().is_empty() {
                return;
            }
        }
    }

    fn would_do_better(&self, lease: &Lease) -> bool {
        let (down, ours) = (note(lease, DOWN), self.all.tenures.devices(&self.name));
        let is_others = !holder(lease).is_empty() && holder(lease) != self.all.node;
        let is_asked_for = !note(lease, WANTED).is_empty();
        is_others
            && !down.is_empty()
            && !is_asked_for
            && !self.is_impaired()
            && down.split(',').all(|name| ours.contains(name))
    }
}
