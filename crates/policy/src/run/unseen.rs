// SPDX-License-Identifier: Apache-2.0
//! Identities that pods of this node have and that the API server does not show. One that was found or made, and collected before the watch
//! showed it, leaves no deletion to be seen: nobody else would ever know the number. So it is made again, which costs a request if it was there
//! all the time and the watch is only slow.

use model::IdentityId;
use statedb::{Backoff, Retries};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long the watch may take to show an identity, and then between requests.
const PATIENCE: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(600));

/// When each of them is due to be made again.
#[derive(Debug, Default)]
pub(super) struct Unseen(BTreeMap<IdentityId, (Instant, Retries)>);

impl Unseen {
    /// These are used and not shown, and no others.
    pub(super) fn set(&mut self, unseen: &BTreeSet<IdentityId>) {
        self.0.retain(|id, _| unseen.contains(id));
        for id in unseen {
            self.0.entry(*id).or_insert_with(|| {
                let mut retries = Retries::new(PATIENCE);
                (Instant::now() + retries.failed(), retries)
            });
        }
    }

    /// Waits until one is due, and gives it.
    pub(super) async fn due(&mut self) -> IdentityId {
        let Some((id, (due, retries))) = self.0.iter_mut().min_by_key(|(_, (due, _))| *due) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(*due).await;
        *due = Instant::now() + retries.failed();
        *id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_due_ever_more_seldom_until_it_is_seen() {
        let mut unseen = Unseen::default();
        let (first, second) = (IdentityId(300), IdentityId(301));
        unseen.set(&[first].into());
        let mut waits = Vec::new();
        for _ in 0..12 {
            let before = Instant::now();
            assert_eq!(unseen.due().await, first);
            waits.push(before.elapsed());
            // That it is still not seen moves nothing.
            unseen.set(&[first].into());
        }
        let bounds =
            |wait: Duration, of: u64| wait >= Duration::from_secs(of / 2) && wait <= Duration::from_secs(of + 1);
        assert!(bounds(waits[0], 30) && bounds(waits[1], 60) && bounds(waits[11], 600), "{waits:?}");

        unseen.set(&[second].into());
        let before = Instant::now();
        assert_eq!(unseen.due().await, second);
        assert!(bounds(before.elapsed(), 30));
        unseen.set(&BTreeSet::new());
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, unseen.due()).await.is_err(), "there is nothing to wait for");
    }
}
