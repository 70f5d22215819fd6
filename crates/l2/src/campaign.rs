// SPDX-License-Identifier: Apache-2.0
//! One node's part in the election for one Lease.
//!
//! Machines' clocks are never compared. A holder answers no longer than the renew deadline after it began its last
//! renewal; others wait for the whole lease duration, which is longer, after first seeing that renewal. Every write
//! carries the version it is based on, so of two concurrent attempts one fails. The watch may lag: then a write fails,
//! and the object is read.

mod notes;

use crate::announcement::{Announcement, AnnouncementKey, Tenures};
use datapath::Wire;
use k8s::k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::api::{Api, ObjectMeta, PostParams};
use k8s::kube::{self, Error};
use model::ServiceName;
use rand::Rng;
use statedb::{Revision, State, StatusReader};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const PREFIX: &str = "cilium-l2announce-";

/// Durations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// How long others wait after the last renewal they have seen.
    pub(crate) lease: Duration,
    /// How long the holder acts after it began its last renewal; less than `lease`.
    pub(crate) renew: Duration,
    /// How often the holder renews, and others retry after a failure.
    pub(crate) retry: Duration,
}

/// A Service's Lease as last seen. One row per Lease in our namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) lease: Lease,
}

impl statedb::Row for Watched {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

impl Watched {
    /// Who holds it; empty if nobody does.
    pub(crate) fn holder(&self) -> &str {
        holder(&self.lease)
    }

    /// The addresses that its holder answers under it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        notes::addresses(&self.lease)
    }
}

/// The row of a Lease; none if it belongs to no Service.
pub(crate) fn ingest_lease(lease: &Lease) -> Option<Watched> {
    let name = lease.metadata.name.clone().filter(|name| name.starts_with(PREFIX))?;
    Some(Watched { name, lease: lease.clone() })
}

/// The name of a Service's Lease, unless an older Service has it.
pub(crate) fn lease_name(service: &ServiceName) -> String {
    format!("{PREFIX}{}-{}", service.namespace, service.name)
}

/// What a node's campaigns share.
#[derive(Clone, Debug)]
pub(crate) struct Electorate {
    /// Name of the node.
    pub(crate) node: String,
    pub(crate) api: Api<Lease>,
    pub(crate) timing: Timing,
    pub(crate) tenures: Tenures,
    pub(crate) answered: StatusReader<Announcement>,
    pub(crate) wire: Arc<dyn Wire>,
    /// When this agent began to answer. Its predecessor may have answered until then.
    pub(crate) started: Instant,
}

/// A candidate, and perhaps the holder.
pub(crate) struct Campaign {
    all: Electorate,
    /// Name of the Lease.
    name: String,
    /// The watched Lease.
    watched: watch::Receiver<Option<Lease>>,
    /// Devices of this node went down or up.
    devices: watch::Receiver<()>,
    /// The Lease as far as we know.
    known: Option<Lease>,
    /// What another holder last wrote, and when we first saw it.
    seen: Option<(LeaseSpec, Instant)>,
    /// When it was last given up for another node.
    yielded: Option<Instant>,
    /// A write of ours may have reached the API server.
    may_hold: bool,
}

/// How holding a Lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// We must no longer act as its holder.
    Lost,
    /// Others answer better, or anything at all.
    GivenUp,
}

impl Campaign {
    pub(crate) fn new(all: Electorate, name: String, mut watched: watch::Receiver<Option<Lease>>) -> Self {
        let known = watched.borrow_and_update().clone();
        let devices = all.tenures.news();
        Self { all, name, watched, devices, known, seen: None, yielded: None, may_hold: false }
    }

    /// Runs until stopped, and then releases the Lease, so that others need not wait.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.serve() => {}
            }
        }
        let ended = self.all.tenures.end(&self.name);
        if !self.may_hold {
            return;
        }
        // While something may still be answered, do not release the Lease. It expires by itself, later than the
        // answers.
        let ends_elsewhere = self.all.started.elapsed() < self.all.timing.renew;
        match timeout(self.all.timing.retry, self.all.answered.reached(ended)).await {
            Ok(()) if !ends_elsewhere => self.release().await,
            _ => info!(lease = self.name, "its addresses may still be answered: leaving it to expire"),
        }
    }

    /// Takes the Lease and keeps it for as long as possible.
    async fn serve(&mut self) {
        let until = self.acquire().await;
        info!(lease = self.name, "announcing its addresses");
        let how = self.hold(until).await;
        let ended = self.all.tenures.end(&self.name);
        info!(lease = self.name, "no longer announcing its addresses");
        if how == End::GivenUp {
            self.stand_back(ended).await;
        }
    }

    /// Lets others have the Lease first.
    async fn stand_back(&mut self, ended: Revision) {
        let Timing { lease, retry, .. } = self.all.timing;
        match timeout(retry, self.all.answered.reached(ended)).await {
            Ok(()) => {
                self.release().await;
                sleep(retry).await;
            }
            Err(_) => sleep(lease + retry).await,
        }
    }

    /// Whether something is answered under the Lease, if anything is to be.
    fn is_answered(&self) -> bool {
        let is_done =
            |key: &AnnouncementKey| self.all.answered.get(key).is_some_and(|status| status.state == State::Done);
        let announced = self.all.tenures.announced(&self.name);
        announced.is_empty() || announced.iter().any(is_done)
    }

    /// Waits until we hold the Lease. Returns the time until which we do.
    async fn acquire(&mut self) -> Instant {
        let mut failing = false;
        loop {
            self.until_free().await;
            match timeout(self.all.timing.renew, self.attempt()).await {
                Ok(Ok(Some(until))) => return until,
                Ok(Ok(None)) => failing = false,
                other => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(lease = self.name, error = describe(other), "the lease cannot be read or written");
                    }
                    sleep(self.apart(1.0..1.2)).await;
                }
            }
        }
    }

    /// Renews the Lease in time, as long as that is of use.
    async fn hold(&mut self, mut until: Instant) -> End {
        let (mut pause, mut answered) = (self.apart(0.8..1.0), Instant::now());
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return End::Lost,
                () = sleep(pause) => {}
                () = until_taken(&mut self.watched, &self.all.node) => {}
                Ok(()) = self.devices.changed() => {}
            }
            if self.is_to_yield() {
                warn!(lease = self.name, "yielding the lease: a device is down here that another candidate has up");
                self.yielded = Some(Instant::now());
                return End::GivenUp;
            }
            if self.is_answered() {
                answered = Instant::now();
            } else if answered.elapsed() >= self.all.timing.renew {
                warn!(lease = self.name, "releasing the lease: nothing to announce from this node");
                return End::GivenUp;
            }
            pause = match timeout_at(until, self.attempt()).await {
                Ok(Ok(Some(extended))) => {
                    until = extended;
                    self.apart(0.8..1.0)
                }
                Ok(Ok(None)) if self.holder() != self.all.node && !self.holder().is_empty() => {
                    warn!(lease = self.name, holder = self.holder(), "lease lost to another node");
                    return End::Lost;
                }
                // Somebody has changed or deleted it.
                Ok(Ok(None)) => self.apart(0.0..0.1),
                other => {
                    warn!(lease = self.name, error = describe(other), "cannot renew the lease");
                    self.apart(0.4..0.6)
                }
            };
        }
    }

    /// Waits until the Lease is free as far as we know, plus a jitter against other candidates.
    async fn until_free(&mut self) {
        loop {
            let free_at = self.free_at();
            if free_at <= Instant::now() {
                break;
            }
            self.ask().await;
            tokio::select! {
                () = sleep_until(free_at) => {}
                Ok(()) = self.watched.changed() => self.look(),
                Ok(()) = self.devices.changed() => {}
            }
        }
        if self.holder() != self.all.node {
            // Those whose devices are all up come first.
            sleep(self.apart(if self.is_impaired() { 0.4..0.5 } else { 0.0..0.1 })).await;
        }
    }

    /// Takes in the watched state.
    fn look(&mut self) {
        let lease = self.watched.borrow_and_update().clone();
        // A Lease deleted by anyone but its holder is not free before it would have expired.
        if lease.is_some() || self.holder().is_empty() {
            self.known = lease;
        }
    }

    /// When the Lease may be taken.
    fn free_at(&mut self) -> Instant {
        let now = Instant::now();
        let spec = self.known.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.all.node {
            self.seen = None;
            return now;
        }
        let lasts = duration(&spec).unwrap_or(self.all.timing.lease);
        let since = match &self.seen {
            Some((seen, at)) if *seen == spec => *at,
            _ => now,
        };
        self.seen = Some((spec, since));
        since.checked_add(lasts).unwrap_or(now + self.all.timing.lease)
    }

    fn holder(&self) -> &str {
        self.known.as_ref().map(holder).unwrap_or_default()
    }

    /// Part of the retry period.
    fn apart(&self, share: std::ops::Range<f64>) -> Duration {
        self.all.timing.retry.mul_f64(rand::rng().random_range(share))
    }

    /// Tries once to take or renew the Lease. Returns until when we hold it, if we do; otherwise the current state is
    /// known afterwards.
    async fn attempt(&mut self) -> Result<Option<Instant>, Error> {
        // Both clocks before the request: others count from when they see its result.
        let (begun, since_boot) = (Instant::now(), self.all.wire.since_boot());
        self.may_hold = true;
        match self.write().await {
            Ok(lease) => {
                self.known = Some(lease);
                self.seen = None;
                let until = begun + self.all.timing.renew;
                if until > Instant::now() {
                    self.all.tenures.extend(&self.name, since_boot + self.all.timing.renew);
                }
                Ok(Some(until))
            }
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.known = self.all.api.get_opt(&self.name).await?;
                self.may_hold = self.holder() == self.all.node;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self) -> kube::Result<Lease> {
        let params = PostParams::default();
        match &self.known {
            Some(lease) => {
                let spec = Some(self.taken(lease.spec.clone().unwrap_or_default()));
                let lease = Lease { metadata: self.noted(lease.metadata.clone()), spec };
                self.all.api.replace(&self.name, &params, &lease).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let spec = self.taken(LeaseSpec { lease_transitions: Some(-1), ..LeaseSpec::default() });
                self.all.api.create(&params, &Lease { metadata: self.noted(metadata), spec: Some(spec) }).await
            }
        }
    }

    fn taken(&self, before: LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = before.holder_identity.as_deref() == Some(&self.all.node);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.all.node.clone()),
            lease_duration_seconds: Some(seconds(self.all.timing.lease)),
            acquire_time: if ours { before.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            ..before
        }
    }

    async fn release(&mut self) {
        let released = timeout(self.all.timing.retry, async {
            let Some(mut lease) = self.all.api.get_opt(&self.name).await? else { return Ok(()) };
            if holder(&lease) != self.all.node {
                return Ok(());
            }
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            notes::clear(&mut lease);
            self.all.api.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        });
        match released.await {
            Ok(Ok(())) => {}
            other => warn!(lease = self.name, error = describe(other), "cannot release the lease; it will expire"),
        }
    }
}

/// Waits until according to the watch somebody else, or nobody, holds the Lease, or another asks for it.
async fn until_taken(watched: &mut watch::Receiver<Option<Lease>>, node: &str) {
    while watched.changed().await.is_ok() {
        let lease = watched.borrow_and_update();
        if lease.as_ref().is_none_or(|lease| holder(lease) != node || notes::is_wanted(lease, node)) {
            return;
        }
    }
    std::future::pending().await
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// The holder's stated duration, if any.
fn duration(spec: &LeaseSpec) -> Option<Duration> {
    let seconds = u64::try_from(spec.lease_duration_seconds?).ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds))
}

/// Whole seconds, rounded up.
fn seconds(lease: Duration) -> i32 {
    let up = u64::from(lease.subsec_nanos() > 0);
    i32::try_from(lease.as_secs().saturating_add(up)).unwrap_or(i32::MAX)
}

fn describe<T>(outcome: Result<Result<T, Error>, tokio::time::error::Elapsed>) -> String {
    match outcome {
        Err(_) => "no answer in time".to_owned(),
        Ok(Err(error)) => k8s::chain(&error),
        Ok(Ok(_)) => String::new(),
    }
}

#[cfg(test)]
mod tests;
