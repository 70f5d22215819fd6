// SPDX-License-Identifier: Apache-2.0
//! Warnings for the people who look at an object: Kubernetes Events.

use crate::Client;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Maximum length of an event's message.
const MAX_NOTE: usize = 1024;
/// Queue length of warnings; further ones are dropped.
const WAITING: usize = 64;
/// Minimum time between warnings.
const PACE: Duration = Duration::from_secs(1);
/// How long the same warning about the same object is suppressed.
const QUIET: Duration = Duration::from_secs(600);

/// A warning about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The object.
    pub about: ObjectReference,
    /// The reason, as a machine-readable word.
    pub reason: &'static str,
    /// The action, as a machine-readable word.
    pub action: &'static str,
    /// The message for people, truncated to what an event holds.
    pub note: String,
}

#[must_use]
pub fn pod_reference(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..ObjectReference::default()
    }
}

/// Publishes warnings as Kubernetes Events.
pub struct Events {
    client: kube::Client,
    reporter: Reporter,
    recorder: Recorder,
    /// Several reporters may warn of the same.
    shared: bool,
}

/// Window in which identical warnings from several reporters share one Event.
const HOUR: i64 = 3600;
/// Length of an object's name from which the one that the library makes of it for an Event may be too long.
const LONG_NAME: usize = 200;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// In the name of that component.
    #[must_use]
    pub fn new(client: &Client, reporter: &str) -> Self {
        let (client, reporter) = (client.kube(), Reporter::from(reporter));
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, recorder, shared: false }
    }

    /// In the name of a component of which each node has one: of all that warn of an object for the same reason, the first in an hour is heard.
    #[must_use]
    pub fn shared(client: &Client, reporter: &str) -> Self {
        Self { shared: true, ..Self::new(client, reporter) }
    }

    /// Publishes one, in the namespace of its object.
    ///
    /// # Errors
    ///
    /// The API server rejects it.
    pub async fn publish(&self, warning: &Warning) -> Result<(), kube::Error> {
        if self.shared || warning.about.name.as_ref().is_some_and(|name| name.len() > LONG_NAME) {
            return self.publish_once(warning).await;
        }
        let event = Event {
            type_: EventType::Warning,
            reason: warning.reason.to_owned(),
            note: Some(shortened(warning.note.clone(), MAX_NOTE)),
            action: warning.action.to_owned(),
            secondary: None,
        };
        self.recorder.publish(&event, &warning.about).await
    }

    /// Publishes one under a name that it has in common with all others of the same object, reason and hour.
    async fn publish_once(&self, warning: &Warning) -> Result<(), kube::Error> {
        let Warning { about, reason, action, note } = warning;
        let now = Timestamp::now();
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let event = api::Event {
            metadata: ObjectMeta {
                namespace: Some(namespace.clone()),
                name: Some(event_name(&self.reporter.controller, about, reason, now.as_second() / HOUR)),
                ..ObjectMeta::default()
            },
            type_: Some("Warning".to_owned()),
            reason: Some((*reason).to_owned()),
            action: Some((*action).to_owned()),
            note: Some(shortened(note.clone(), MAX_NOTE)),
            event_time: Some(MicroTime(now)),
            regarding: Some(about.clone()),
            reporting_controller: Some(self.reporter.controller.clone()),
            reporting_instance: self.reporter.instance.clone().or_else(|| Some(self.reporter.controller.clone())),
            ..api::Event::default()
        };
        let events: Api<api::Event> = Api::namespaced(self.client.clone(), &namespace);
        match events.create(&PostParams::default(), &event).await {
            // Another reporter was first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(drop),
        }
    }
}

/// The beginning of the object's name, and what tells it from others.
fn event_name(reporter: &str, about: &ObjectReference, reason: &str, hour: i64) -> String {
    let mut hasher = DefaultHasher::new();
    (reporter, reason, hour).hash(&mut hasher);
    (&about.kind, &about.namespace, &about.name, &about.uid).hash(&mut hasher);
    let mut name = about.name.clone().unwrap_or_default();
    name.truncate(name.floor_char_boundary(LONG_NAME));
    format!("{}.{:016x}", name.trim_end_matches(['.', '-']), hasher.finish())
}

/// A text of at most that many bytes, which ends in dots if something is missing.
#[must_use]
pub fn shortened(mut text: String, most: usize) -> String {
    const MORE: &str = "...";
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(MORE.len())));
        text.push_str(MORE);
    }
    text
}

/// Accepts warnings from callers that cannot wait for the API server. The same one is published once in ten minutes,
/// and at most one a second; failed ones are dropped.
#[derive(Clone, Debug)]
pub struct Warnings(mpsc::Sender<Warning>);

/// The receiving end of [`Warnings`].
#[derive(Debug)]
pub struct WarningQueue(mpsc::Receiver<Warning>);

impl Warnings {
    /// Both ends.
    #[must_use]
    pub fn channel() -> (Self, WarningQueue) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), WarningQueue(receiver))
    }

    /// Queues the warning for publication.
    pub fn warn(&self, warning: Warning) {
        if let Err(lost) = self.0.try_send(warning) {
            tracing::debug!(warning = %lost, "warning is lost");
        }
    }
}

impl WarningQueue {
    /// The next warning, or none once all senders are gone.
    pub async fn next(&mut self) -> Option<Warning> {
        self.0.recv().await
    }

    /// The next one, if there is one by now.
    pub fn try_next(&mut self) -> Option<Warning> {
        self.0.try_recv().ok()
    }

    /// Publishes all of them as they arrive: whoever warns takes care not to say the same again and again.
    pub async fn publish_all(mut self, events: Events) {
        while let Some(warning) = self.next().await {
            if let Err(error) = events.publish(&warning).await {
                tracing::debug!(reason = warning.reason, error = crate::chain(&error), "event refused");
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Publishes warnings as they arrive, those of one reason about one object seldom.
    pub async fn publish(mut self, events: Events) {
        let mut said = BTreeMap::new();
        while let Some(warning) = self.next().await {
            said.retain(|_, at: &mut Instant| at.elapsed() < QUIET);
            let key = (warning.about.uid.clone(), warning.about.name.clone(), warning.reason);
            if said.contains_key(&key) {
                continue;
            }
            match events.publish(&warning).await {
                Ok(()) => drop(said.insert(key, Instant::now())),
                Err(error) => tracing::debug!(reason = warning.reason, error = crate::chain(&error), "event refused"),
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use std::collections::btree_map::Entry;
    use std::convert::Infallible;
    use std::sync::Arc;

    /// When events came, and about what.
    type Taken = Arc<Mutex<Vec<(Duration, String)>>>;

    /// An API server that answers whoever writes an event.
    fn answering(answer: impl Fn(Value) -> (u16, Value) + Clone + Send + 'static) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = answer.clone();
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                let (code, answer) = answer(serde_json::from_slice(&body).unwrap());
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        Client::from(kube::Client::new(service, "default"))
    }

    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }

    /// An API server that takes events.
    fn server() -> (Events, Taken) {
        let (taken, start) = (Taken::default(), Instant::now());
        let events = Arc::clone(&taken);
        let client = answering(move |event| {
            let about = format!("{} {}", text(&event["regarding"]["name"]), text(&event["reason"]));
            events.lock().push((start.elapsed(), about));
            (200, event)
        });
        (Events::new(&client, "test"), taken)
    }

    fn warn(warnings: &Warnings, pod: usize, reason: &'static str) {
        let about = pod_reference("n", &format!("pod-{pod}"), &format!("uid-{pod}"));
        warnings.warn(Warning { about, reason, action: "Try", note: "why".into() });
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_about_the_same_object_is_said_once_in_ten_minutes() {
        let (warnings, queue) = Warnings::channel();
        let (events, taken) = server();
        tokio::spawn(queue.publish(events));
        for _ in 0..59 {
            warn(&warnings, 1, "A");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        warn(&warnings, 1, "B");
        warn(&warnings, 2, "A");
        tokio::time::sleep(Duration::from_secs(10)).await;
        let said: Vec<_> = taken.lock().iter().map(|(_, about)| about.clone()).collect();
        assert_eq!(said, ["pod-1 A", "pod-1 B", "pod-2 A"]);
        warn(&warnings, 1, "A");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(taken.lock().len(), 4, "that it still is so is worth telling");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_neither_waited_for_nor_passed_on_at_once() {
        let (warnings, queue) = Warnings::channel();
        let (events, taken) = server();
        tokio::spawn(queue.publish(events));
        (0..10_000).for_each(|pod| warn(&warnings, pod, "A"));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let taken = taken.lock();
        assert_eq!(taken.len(), WAITING);
        assert!(taken.last().unwrap().0 >= Duration::from_secs(60), "{taken:?}");
    }

    /// An API server that refuses what it has.
    fn keeping() -> (Client, Arc<Mutex<BTreeMap<String, String>>>) {
        let kept: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        let all = Arc::clone(&kept);
        let client = answering(move |event| match all.lock().entry(text(&event["metadata"]["name"])) {
            Entry::Occupied(_) => {
                (409, json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "AlreadyExists"}))
            }
            Entry::Vacant(none) => {
                none.insert(text(&event["note"]));
                (201, event)
            }
        });
        (client, kept)
    }

    #[tokio::test]
    async fn of_many_who_tell_the_same_one_is_heard() {
        let (client, kept) = keeping();
        for (node, pod, reason) in [("n1", "a", "A"), ("n2", "a", "A"), ("n3", "a", "B"), ("n1", "b", "A")] {
            let warning = Warning { about: pod_reference("n", pod, pod), reason, action: "Try", note: node.into() };
            // Each is another process.
            Events::shared(&client, "test").publish(&warning).await.unwrap();
        }
        let mut notes: Vec<_> = kept.lock().values().cloned().collect();
        notes.sort();
        assert_eq!(notes, ["n1", "n1", "n3"]);
        let of_hour = |hour| event_name("test", &pod_reference("n", "a", "a"), "A", hour);
        assert_ne!(of_hour(1), of_hour(2));
    }

    #[tokio::test]
    async fn an_object_of_the_longest_name_has_events_too() {
        let (client, kept) = keeping();
        let name = format!("{}.{}", "a".repeat(LONG_NAME - 1), "b".repeat(53));
        let warning = Warning { about: pod_reference("n", &name, "u"), reason: "A", action: "Try", note: "x".into() };
        Events::new(&client, "test").publish(&warning).await.unwrap();
        let (name, _) = kept.lock().pop_first().unwrap();
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }

    #[test]
    fn a_note_is_as_long_as_an_event_holds() {
        let lengths: Vec<_> =
            (MAX_NOTE - 4..MAX_NOTE + 3).map(|len| shortened("ä".repeat(len / 2) + "x", MAX_NOTE).len()).collect();
        assert!(lengths.iter().all(|len| *len <= MAX_NOTE), "{lengths:?}");
        let long = shortened("ä".repeat(2000), MAX_NOTE);
        assert!(long.ends_with("...") && (MAX_NOTE - 8..=MAX_NOTE).contains(&long.len()));
    }
}
