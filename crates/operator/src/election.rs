// SPDX-License-Identifier: Apache-2.0
//! Leader election with a Lease object, as in Kubernetes' own controllers.
//!
//! Machines' clocks are never compared: a lease has expired when *we* have seen it unchanged for its duration. Its
//! holder stops acting when it has failed to renew it for less than that. Every write carries the version it is based
//! on, so of two concurrent attempts one fails.

use k8s::k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::api::{Api, ObjectMeta, PostParams};
use k8s::kube::{self, Error};
use rand::Rng;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Durations.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long others must wait after the last renewal.
    pub lease: Duration,
    /// How long the holder tries to renew before it gives up; less than `lease`.
    pub renew: Duration,
    /// How often the holder renews and others check.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// Our identity among the candidates: the host name and something unique per process.
#[must_use]
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let id: u64 = rand::rng().random();
    format!("{}_{id:016x}", host.trim())
}

/// A candidate, and perhaps the holder.
#[derive(Clone, Debug)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    seen: Option<Seen>,
}

/// What another holder last wrote, and when we first saw it.
#[derive(Clone, Debug)]
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

impl Elector {
    /// A candidate for the Lease of that name.
    #[must_use]
    pub fn new(api: Api<Lease>, name: &str, identity: String, timing: Timing) -> Self {
        Self { api, name: name.to_owned(), identity, timing, seen: None }
    }

    /// Waits until we hold the lease.
    pub async fn acquire(&mut self) {
        let mut failing = false;
        loop {
            match timeout(self.timing.renew, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => failing = false,
                result => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(lease = self.name, error = describe(result), "lease cannot be read or written");
                    }
                }
            }
            // Jitter against other candidates.
            let apart = rand::rng().random_range(1.0..1.2);
            sleep(self.timing.retry.mul_f64(apart)).await;
        }
    }

    /// Renews the lease; returns once we must no longer act as its holder.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(self.timing.retry).await;
            let begun = Instant::now();
            let left = (renewed + self.timing.renew).saturating_duration_since(begun);
            match timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = begun,
                Ok(Ok(false)) => {
                    // A conflicting write need not be another holder's: check again until time is up.
                    if self.seen.is_some() {
                        tracing::error!(lease = self.name, "lease taken by another instance");
                        return;
                    }
                }
                result => tracing::warn!(lease = self.name, error = describe(result), "lease not renewed"),
            }
            if renewed.elapsed() >= self.timing.renew {
                tracing::error!(lease = self.name, "lease not renewed in time");
                return;
            }
        }
    }

    /// Releases the lease so that others need not wait.
    pub async fn release(&mut self) {
        let result = timeout(self.timing.retry, async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            self.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        })
        .await;
        match result {
            Ok(Ok(())) => tracing::info!(lease = self.name, "lease released"),
            other => {
                tracing::warn!(lease = self.name, error = describe(other), "cannot release the lease; it will expire")
            }
        }
    }

    /// Tries once to take or renew the lease. Returns whether we hold it now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            return won(self.api.create(&PostParams::default(), &self.first()).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !self.may_take(&spec, Instant::now()) {
            return Ok(false);
        }
        lease.spec = Some(self.taken(&spec));
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether the lease is ours, free, or expired as far as we have seen.
    fn may_take(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            self.seen = None;
            return true;
        }
        let seen = match &self.seen {
            Some(seen) if seen.spec == *spec => seen,
            _ => self.seen.insert(Seen { spec: spec.clone(), at: now }),
        };
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        now >= seen.at + Duration::from_secs(seconds)
    }

    fn first(&self) -> Lease {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(self.taken(&LeaseSpec { lease_transitions: Some(-1), ..LeaseSpec::default() })) }
    }

    fn taken(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.lease.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if ours { before.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            ..before.clone()
        }
    }
}

/// Losing a race is not an error.
fn won(result: kube::Result<Lease>) -> Result<bool, Error> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn describe<T>(result: Result<Result<T, Error>, tokio::time::error::Elapsed>) -> String {
    match result {
        Err(_) => "no answer in time".to_owned(),
        Ok(Err(error)) => k8s::chain(&error),
        Ok(Ok(_)) => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
