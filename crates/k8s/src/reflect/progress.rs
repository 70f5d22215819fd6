// SPDX-License-Identifier: Apache-2.0
//! Whether the watch behind a table works, for back-off, logs and health.

use crate::client::chain;
use kube::runtime::watcher::Error;
use parking_lot::Mutex;
use statedb::{Backoff, Retries};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Watches that end sooner are opened again ever more seldom, as a broken proxy between us and the API server would
/// otherwise be asked without a pause.
const BRIEF: Duration = Duration::from_secs(1);
/// Delay before another watch after brief ones.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// One table's watch.
#[derive(Debug)]
pub(crate) struct Progress {
    kind: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Since when it has failed, and why; also before the first success.
    failing: Option<Failing>,
    /// Whether it has worked since last checked.
    worked: bool,
    /// Whether a watch has expired since last checked.
    expired: bool,
    /// Which lists are acceptable.
    acceptable: Acceptable,
    /// When the watch was opened that has not failed since.
    opened: Option<Instant>,
    /// Watches in a row that were brief.
    brief: Retries,
}

/// The minimum version of a list, so that it does not take the table back in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Acceptable {
    /// No version is known yet.
    #[default]
    Any,
    /// The table's version, or a later one.
    NotBefore(String),
    /// The newest, bypassing the API server's cache: it may be too old, or cannot tell whether it has the requested
    /// version.
    Newest,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    cause: Option<Cause>,
}

#[derive(Debug)]
struct Cause {
    message: String,
    refused: bool,
    not_served: bool,
}

impl Progress {
    pub(super) fn new(kind: String, acceptable: Acceptable) -> Self {
        let failing = Some(Failing { since: Instant::now(), cause: None });
        let (opened, brief) = (None, Retries::new(PAUSE));
        Self { kind, state: Mutex::new(State { failing, worked: false, expired: false, acceptable, opened, brief }) }
    }

    /// A watch was opened, or a list or an object came.
    pub(super) fn worked(&self) {
        let mut state = self.state.lock();
        state.worked = true;
        if state.failing.take().is_some_and(|failing| failing.cause.is_some()) {
            tracing::info!(kind = self.kind, "API server answers again");
        }
    }

    /// A watch was opened.
    pub(super) fn opened(&self) {
        self.worked();
        self.state.lock().opened = Some(Instant::now());
    }

    /// How long to wait before a watch is opened: the library itself opens one as soon as the last has ended.
    pub(super) fn pause(&self) -> Duration {
        let mut state = self.state.lock();
        match state.opened.take() {
            Some(opened) if opened.elapsed() < BRIEF => state.brief.failed(),
            _ => {
                state.brief.succeeded();
                Duration::ZERO
            }
        }
    }

    /// Records a failure, and logs the first of a run.
    pub(super) fn failed(&self, error: &Error) {
        let mut state = self.state.lock();
        // There is a back-off of its own for it.
        state.opened = None;
        let failing = state.failing.get_or_insert_with(|| Failing { since: Instant::now(), cause: None });
        if is_expired(error) {
            // The usual thing, but until a list has come the table stands still.
            tracing::debug!(kind = self.kind, "watch expired, relisting");
            state.expired = true;
            return;
        }
        let cause = Cause { message: chain(error), refused: is_refused(error), not_served: is_not_served(error) };
        if failing.cause.is_none() && cause.not_served {
            tracing::info!(kind = self.kind, "API server does not serve this kind yet, waiting");
        } else if failing.cause.is_none() {
            tracing::warn!(kind = self.kind, error = cause.message, "watch failed, keeping the last known state");
        }
        failing.cause = Some(cause);
    }

    /// Whether it has worked since last asked.
    pub(super) fn take_worked(&self) -> bool {
        std::mem::take(&mut self.state.lock().worked)
    }

    /// Whether a watch has expired since last asked.
    pub(super) fn take_expired(&self) -> bool {
        std::mem::take(&mut self.state.lock().expired)
    }

    /// Whether it fails because the kind is not served.
    pub(super) fn not_served(&self) -> bool {
        let state = self.state.lock();
        state.failing.as_ref().and_then(|failing| failing.cause.as_ref()).is_some_and(|cause| cause.not_served)
    }

    /// The table now has that version.
    pub(super) fn reached(&self, version: impl Into<String>) {
        self.state.lock().acceptable = Acceptable::NotBefore(version.into());
    }

    /// The API server has no list of the requested version.
    pub(super) fn unavailable(&self) {
        let mut state = self.state.lock();
        if state.acceptable != Acceptable::Any {
            state.acceptable = Acceptable::Newest;
        }
    }

    pub(super) fn acceptable(&self) -> Acceptable {
        self.state.lock().acceptable.clone()
    }

    fn failure(&self) -> Option<WatchFailure> {
        let state = self.state.lock();
        let failing = state.failing.as_ref()?;
        let cause = failing.cause.as_ref();
        Some(WatchFailure {
            kind: self.kind.clone(),
            lasting: failing.since.elapsed(),
            message: cause.map_or_else(|| "not listed yet".to_owned(), |cause| cause.message.clone()),
            refused: cause.is_some_and(|cause| cause.refused),
        })
    }
}

/// 410 Gone: the usual signal to list again.
fn is_expired(error: &Error) -> bool {
    status(error).is_some_and(|status| status.code == 410)
}

/// 404 to a list: the kind is not registered.
fn is_not_served(error: &Error) -> bool {
    matches!(error, Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// Answered with an error.
fn is_refused(error: &Error) -> bool {
    status(error).is_some_and(|status| (400..500).contains(&status.code))
}

fn status(error: &Error) -> Option<&kube::core::Status> {
    match error {
        Error::WatchError(status)
        | Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

/// A table that is not following the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchFailure {
    /// Kind of the objects.
    pub kind: String,
    /// How long it has been failing.
    pub lasting: Duration,
    /// Why.
    pub message: String,
    /// Whether the API server responds but refuses, for lack of a permission for instance.
    pub refused: bool,
}

impl fmt::Display for WatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not followed for {} s: {}", self.kind, self.lasting.as_secs(), self.message)
    }
}

/// A client's running watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watches(Arc<Mutex<Vec<Weak<Progress>>>>);

impl Watches {
    /// Starts following a kind with a list of that version.
    pub(crate) fn begin(&self, kind: String, acceptable: Acceptable) -> Arc<Progress> {
        let progress = Arc::new(Progress::new(kind, acceptable));
        let mut all = self.0.lock();
        all.retain(|watch| watch.strong_count() > 0);
        all.push(Arc::downgrade(&progress));
        progress
    }

    pub(crate) fn failing(&self, for_at_least: Duration) -> Vec<WatchFailure> {
        let failures = self.0.lock().iter().filter_map(|watch| watch.upgrade()?.failure()).collect::<Vec<_>>();
        failures.into_iter().filter(|failure| failure.lasting >= for_at_least).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn refused(code: u16) -> Error {
        Error::InitialListFailed(kube::Error::Api(Box::new(Status { code, ..Status::default() })))
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_fails_from_its_first_failure_until_it_works() {
        let watches = Watches::default();
        let progress = watches.begin("ConfigMap".into(), Acceptable::Any);
        let minute = Duration::from_secs(60);
        tokio::time::advance(minute).await;
        assert_eq!(watches.failing(minute)[0].message, "not listed yet");
        progress.worked();
        assert_eq!(watches.failing(Duration::ZERO), []);

        progress.failed(&Error::InitialListFailed(kube::Error::Service("no answer".into())));
        tokio::time::advance(minute / 2).await;
        progress.failed(&refused(403));
        assert_eq!(watches.failing(minute), []);
        tokio::time::advance(minute / 2).await;
        let failures = watches.failing(minute);
        assert_eq!((failures[0].kind.as_str(), failures[0].lasting, failures[0].refused), ("ConfigMap", minute, true));

        progress.worked();
        progress.failed(&refused(410));
        assert_eq!(
            watches.failing(Duration::ZERO)[0].message,
            "not listed yet",
            "it is not followed until it is listed"
        );
        progress.worked();
        assert_eq!(watches.failing(Duration::ZERO), []);
        progress.failed(&refused(404));
        assert!(progress.not_served());
        drop(progress);
        assert_eq!(watches.failing(Duration::ZERO), [], "what does not run any more does not fail");
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_opened_ever_more_seldom() {
        let progress = Progress::new("ConfigMap".into(), Acceptable::Any);
        assert_eq!(progress.pause(), Duration::ZERO, "none was opened before");
        let mut last = Duration::ZERO;
        for _ in 0..3 {
            progress.opened();
            let pause = progress.pause();
            assert!(pause > last, "{pause:?} after {last:?}");
            last = pause;
        }
        progress.opened();
        tokio::time::advance(BRIEF).await;
        assert_eq!(progress.pause(), Duration::ZERO, "it lasted");
        progress.opened();
        assert!(progress.pause() < last, "all over again");
        progress.opened();
        progress.failed(&refused(500));
        assert_eq!(progress.pause(), Duration::ZERO, "failures have a back-off of their own");
    }

    #[test]
    fn what_has_come_and_what_has_expired_is_told_once() {
        let progress = Progress::new("ConfigMap".into(), Acceptable::Any);
        assert!(!progress.take_worked() && !progress.take_expired());
        progress.opened();
        assert!(progress.take_worked() && !progress.take_worked());
        progress.failed(&refused(410));
        assert!(progress.take_expired() && !progress.take_expired() && !progress.take_worked());
    }

    #[test]
    fn a_version_that_is_not_there_gives_way_to_the_newest_unless_any_will_do() {
        let any = Progress::new("ConfigMap".into(), Acceptable::Any);
        any.unavailable();
        assert_eq!(any.acceptable(), Acceptable::Any);
        any.reached("7");
        assert_eq!(any.acceptable(), Acceptable::NotBefore("7".into()));
        any.unavailable();
        assert_eq!(any.acceptable(), Acceptable::Newest);
    }

    #[test]
    fn an_error_is_an_answer_a_refusal_or_that_the_kind_is_not_there() {
        let status = |code: u16| Box::new(Status { code, ..Status::default() });
        let api = |code: u16| kube::Error::Api(status(code));
        // Expired, not served, refused.
        let cases: [(Error, [bool; 3]); 6] = [
            (refused(404), [false, true, true]),
            (Error::WatchStartFailed(api(404)), [false, false, true]),
            (Error::WatchFailed(api(410)), [true, false, true]),
            (Error::WatchError(status(403)), [false, false, true]),
            (refused(500), [false, false, false]),
            (Error::WatchFailed(kube::Error::Service("no answer".into())), [false, false, false]),
        ];
        for (error, want) in cases {
            assert_eq!([is_expired(&error), is_not_served(&error), is_refused(&error)], want, "{error:?}");
        }
    }

    #[test]
    fn watches_that_run_are_kept_and_others_go() {
        let watches = Watches::default();
        let one = watches.begin("ConfigMap".into(), Acceptable::Any);
        let two = watches.begin("Secret".into(), Acceptable::Any);
        assert_eq!(watches.failing(Duration::ZERO).len(), 2);
        drop(one);
        let _three = watches.begin("Node".into(), Acceptable::Any);
        assert_eq!(watches.0.lock().len(), 2);
        two.failed(&refused(403));
        let told = watches.failing(Duration::ZERO)[0].to_string();
        assert!(told.starts_with("Secret not followed for 0 s: "), "{told}");
    }
}
