// SPDX-License-Identifier: Apache-2.0
//! Writes that the API server refuses for what they say (400, 413, 422). The same write to the same version of an object would be
//! refused again: it waits until there is another version, or for a long time, and is no failure of the controller.

use super::unless_stale;
use k8s::kube::Error;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

/// After this time the same write is tried again: admission rules may have changed.
const REST: Duration = Duration::from_secs(3600);

/// The objects of a controller that wait.
#[derive(Debug)]
pub(super) struct Refusals<K, V> {
    controller: &'static str,
    objects: BTreeMap<K, Refused<V>>,
}

#[derive(Debug)]
struct Refused<V> {
    version: V,
    until: Instant,
}

impl<K: Clone + Ord + Debug, V: PartialEq> Refusals<K, V> {
    /// None, of that controller.
    pub(super) const fn new(controller: &'static str) -> Self {
        Self { controller, objects: BTreeMap::new() }
    }

    /// Whether this version of an object waits.
    pub(super) fn cover(&self, key: &K, version: &V) -> bool {
        let now = Instant::now();
        self.objects.get(key).is_some_and(|refused| refused.version == *version && refused.until > now)
    }

    /// Sorts the outcome of a write: only what may succeed the next time remains an error. A stale write is none, since the next
    /// pass will see the new version.
    pub(super) fn absorb(&mut self, key: K, version: V, written: Result<(), Error>) -> Result<(), Error> {
        match written {
            Err(error) if k8s::is_permanent(&error) => {
                self.wait(key, version, &error);
                Ok(())
            }
            written => {
                self.objects.remove(&key);
                unless_stale(written)
            }
        }
    }

    fn wait(&mut self, key: K, version: V, error: &Error) {
        if !self.objects.contains_key(&key) {
            let (controller, error) = (self.controller, k8s::chain(error));
            tracing::warn!(controller, object = ?key, error, "API server rejected this write as invalid, not retrying until the object changes");
        }
        self.objects.insert(key, Refused { version, until: Instant::now() + REST });
    }

    /// The object needs nothing any more.
    pub(super) fn forget(&mut self, key: &K) {
        self.objects.remove(key);
    }

    /// Keeps only objects that there still are.
    pub(super) fn retain(&mut self, mut exists: impl FnMut(&K) -> bool) {
        self.objects.retain(|key, _| exists(key));
    }

    /// Waits until some have waited long enough, and returns them.
    pub(super) async fn due(&mut self) -> Vec<K> {
        match self.objects.values().map(|refused| refused.until).min() {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        let rested = self.objects.iter().filter(|(_, refused)| refused.until <= now);
        let rested: Vec<K> = rested.map(|(key, _)| key.clone()).collect();
        for key in &rested {
            self.objects.remove(key);
        }
        rested
    }
}

#[cfg(test)]
mod tests;
