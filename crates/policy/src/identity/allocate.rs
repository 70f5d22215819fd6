// SPDX-License-Identifier: Apache-2.0
//! Creates identities for labels that have none, trying another number each time until it works. Requests do not wait
//! for each other, nor does anything else wait for them: a pod without an identity is simply not attached yet.

use super::{Created, IdentityStore, StoreError, StoreErrorKind};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::{Identity, IdentityId, Labels};
use rand::Rng;
use statedb::{Backoff, Index, Reader, Retries, Snapshot};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Back-off between failed attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(300));
/// Delay before labels that the API server refused are retried: its rules may have changed.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(600), Duration::from_secs(600));
/// After this time pods are told that the cluster's rules forbid their identity: rules may change in passing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Delay before another number is tried.
const NONE_FREE: Duration = Duration::from_secs(15);

/// A request for an identity.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) labels: Labels,
    /// The number it had, if that was lost, or may have by now.
    wanted: Option<IdentityId>,
    failing: Retries,
    refused: Retries,
    forbidden: Option<Forbidden>,
}

/// The cluster's rules forbid the identity.
#[derive(Clone, Copy, Debug)]
struct Forbidden {
    since: Instant,
    reported: bool,
}

impl Request {
    /// If possible with the number that was lost.
    pub(crate) const fn new(labels: Labels, lost: Option<IdentityId>) -> Self {
        Self { labels, wanted: lost, failing: Retries::new(BACKOFF), refused: Retries::new(REFUSED), forbidden: None }
    }
}

/// The outcome of a request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The labels have an identity.
    Made(Identity),
    /// They have none for now, for a reason that only people can fix.
    Refused(Labels, String),
    /// It is time for another attempt, if the identity still is wanted: the pod may be gone.
    Due(Request),
}

/// Serves requests, for ever.
pub(crate) async fn serve<S: IdentityStore>(
    store: S,
    numbers: RangeInclusive<u32>,
    known: Reader<Identity>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    outcomes: mpsc::UnboundedSender<Outcome>,
) {
    let known = ClusterIdentities { by_labels: known.index(|identity| [identity.labels.clone()]), identities: known };
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => running.push(allocate(&store, numbers.clone(), &known, request, &outcomes)),
                None => return,
            },
            Some(outcome) = running.next(), if !running.is_empty() => {
                if outcomes.send(outcome).is_err() {
                    return;
                }
            }
        }
    }
}

/// The identities of the cluster, by number and by labels.
struct ClusterIdentities {
    identities: Reader<Identity>,
    by_labels: Index<Identity, Labels>,
}

/// Tries until the labels have an identity, or there is something to wait for.
async fn allocate<S: IdentityStore>(
    store: &S,
    numbers: RangeInclusive<u32>,
    known: &ClusterIdentities,
    mut request: Request,
    outcomes: &mpsc::UnboundedSender<Outcome>,
) -> Outcome {
    let wait = loop {
        // Another agent may have been faster.
        if let Some(there) = known.by_labels.get(&request.labels).first() {
            return Outcome::Made(Identity::clone(there));
        }
        let Some(id) = request.wanted.take().or_else(|| pick(&numbers, &known.identities.snapshot())) else {
            refuse(&request.labels, "all of the cluster's identities are in use".to_owned(), outcomes);
            break NONE_FREE;
        };
        let identity = Identity { id, labels: request.labels.clone() };
        match store.create(&identity).await {
            Ok(Created::Done) => return Outcome::Made(identity),
            Ok(Created::Taken) => {}
            Err(error) => {
                // Retry the same number: if only the response was lost, it is already ours.
                request.wanted = Some(id);
                break request.failed(&error, outcomes);
            }
        }
    };
    tokio::time::sleep(wait).await;
    Outcome::Due(request)
}

impl Request {
    /// How long to wait after this.
    fn failed(&mut self, error: &StoreError, outcomes: &mpsc::UnboundedSender<Outcome>) -> Duration {
        if error.kind == StoreErrorKind::Permanent {
            refuse(&self.labels, format!("the API server rejects {error}"), outcomes);
            return self.refused.failed();
        }
        if error.kind == StoreErrorKind::Forbidden {
            let begun = Forbidden { since: Instant::now(), reported: false };
            let forbidden = self.forbidden.get_or_insert(begun);
            if !forbidden.reported && forbidden.since.elapsed() >= PATIENCE {
                forbidden.reported = true;
                refuse(&self.labels, format!("the API server forbids {error}"), outcomes);
            }
        } else {
            self.forbidden = None;
        }
        if !self.failing.failing() {
            tracing::warn!(identity = %error.id, %error, "cannot create identity, retrying");
        }
        self.failing.failed()
    }
}

fn refuse(labels: &Labels, why: String, outcomes: &mpsc::UnboundedSender<Outcome>) {
    tracing::error!(%labels, why, "no identity: pods with these labels cannot start");
    // The requester may be gone.
    let _ = outcomes.send(Outcome::Refused(labels.clone(), why));
}

/// A free number, at random so that agents seldom pick the same.
fn pick(numbers: &RangeInclusive<u32>, known: &Snapshot<Identity>) -> Option<IdentityId> {
    let free = |id: &IdentityId| known.get(id).is_none();
    let start = rand::rng().random_range(numbers.clone());
    (start..=*numbers.end()).chain(*numbers.start()..start).map(IdentityId).find(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Label;
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// An API server that others use too, and that is away for the first calls.
    #[derive(Clone, Default)]
    struct Fake {
        objects: Arc<Mutex<BTreeMap<IdentityId, Labels>>>,
        failures: Arc<Mutex<u32>>,
        kind: Option<StoreErrorKind>,
        attempts: Arc<Mutex<u32>>,
    }

    impl Fake {
        fn refusing(kind: StoreErrorKind) -> Self {
            Self { failures: Arc::new(Mutex::new(u32::MAX)), kind: Some(kind), ..Self::default() }
        }

        fn kind(&self) -> StoreErrorKind {
            self.kind.unwrap_or(StoreErrorKind::Unavailable)
        }
    }

    impl IdentityStore for Fake {
        async fn create(&self, identity: &Identity) -> Result<Created, StoreError> {
            *self.attempts.lock() += 1;
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(StoreError { id: identity.id, reason: "refused".into(), kind: self.kind() });
            }
            let mut objects = self.objects.lock();
            let there = objects.entry(identity.id).or_insert_with(|| identity.labels.clone());
            Ok(if *there == identity.labels { Created::Done } else { Created::Taken })
        }
    }

    fn labels(app: &str) -> Labels {
        [Label::k8s("app", app)].into_iter().collect()
    }

    async fn run(store: Fake, numbers: RangeInclusive<u32>, known: Reader<Identity>, apps: &[&str]) -> Vec<Identity> {
        let (send, requests) = mpsc::unbounded_channel();
        let (outcomes, mut receive) = mpsc::unbounded_channel();
        for app in apps {
            send.send(Request::new(labels(app), None)).unwrap();
        }
        let server = tokio::spawn(serve(store, numbers, known, requests, outcomes));
        let mut all = Vec::new();
        while all.len() < apps.len() {
            match receive.recv().await.unwrap() {
                Outcome::Made(identity) => all.push(identity),
                Outcome::Due(request) => send.send(request).unwrap(),
                Outcome::Refused(..) => {}
            }
        }
        server.abort();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_others_hold_is_not_taken_and_an_api_server_that_is_away_is_waited_for() {
        let store = Fake::default();
        store.objects.lock().extend([(IdentityId(300), labels("other")), (IdentityId(301), labels("other"))]);
        *store.failures.lock() = 5;
        let (_writer, known) = statedb::table("identities");
        let made = run(store.clone(), 300..=303, known, &["web", "db"]).await;
        let mut ids: Vec<_> = made.iter().map(|identity| identity.id.0).collect();
        ids.sort_unstable();
        assert_eq!(ids, [302, 303]);
        assert_eq!(store.objects.lock().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn labels_that_are_refused_are_seldom_tried_again_and_hold_up_no_others() {
        let refusing = Fake::refusing(StoreErrorKind::Permanent);
        let (_writer, known) = statedb::table("identities");
        let hour = tokio::time::timeout(Duration::from_secs(3600), run(refusing.clone(), 300..=303, known, &["web"]));
        assert!(hour.await.is_err());
        let attempts = *refusing.attempts.lock();
        assert!((2..=13).contains(&attempts), "{attempts} attempts in an hour");
    }

    /// Serves one request for a time. Returns what was said of a refusal.
    async fn refusals_within(time: Duration, store: Fake) -> Vec<String> {
        let (send, requests) = mpsc::unbounded_channel();
        let (outcomes, mut receive) = mpsc::unbounded_channel();
        let (_writer, known) = statedb::table("identities");
        send.send(Request::new(labels("web"), None)).unwrap();
        let server = tokio::spawn(serve(store, 300..=303, known, requests, outcomes));
        let end = Instant::now() + time;
        let mut refusals = Vec::new();
        while let Ok(outcome) = tokio::time::timeout_at(end, receive.recv()).await {
            match outcome.unwrap() {
                Outcome::Refused(_, why) => refusals.push(why),
                Outcome::Due(request) => send.send(request).unwrap(),
                Outcome::Made(_) => panic!("it is refused"),
            }
        }
        server.abort();
        refusals
    }

    #[tokio::test(start_paused = true)]
    async fn pods_are_told_of_labels_that_are_forbidden_after_a_while_and_they_are_tried_on() {
        let store = Fake::refusing(StoreErrorKind::Forbidden);
        assert_eq!(refusals_within(PATIENCE, store.clone()).await, [""; 0]);
        let before = *store.attempts.lock();
        let said = refusals_within(PATIENCE * 10, store.clone()).await;
        assert!(said.len() == 1 && said[0].contains("forbids CiliumIdentity"), "{said:?}");
        assert!(*store.attempts.lock() > before + 10);
        let away = Fake::refusing(StoreErrorKind::Unavailable);
        assert_eq!(refusals_within(PATIENCE * 10, away).await, [""; 0], "pods can do nothing about an outage");
    }

    #[tokio::test]
    async fn labels_that_have_an_identity_by_now_get_the_lowest() {
        let (mut writer, known) = statedb::table("identities");
        writer.insert(Identity { id: IdentityId(4712), labels: labels("web") });
        writer.insert(Identity { id: IdentityId(4711), labels: labels("web") });
        writer.commit();
        let store = Fake::default();
        assert_eq!(run(store.clone(), 256..=300, known, &["web"]).await.first().unwrap().id, IdentityId(4711));
        assert!(store.objects.lock().is_empty());
    }
}
