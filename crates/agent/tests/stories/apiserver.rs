// SPDX-License-Identifier: Apache-2.0
//! An API server in memory, behind the client's own service: no socket. It keeps objects of any kind, notes what it is asked to write,
//! and misbehaves on demand.

#[path = "apiserver/store.rs"]
mod store;
#[path = "apiserver/whim.rs"]
mod whim;

use crate::chance::Chance;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s::kube::client::Body as KubeBody;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use store::{Key, Store, Target, merge};
use tokio::sync::watch;
use whim::Whim;

/// How often an open watch tells that it is alive.
const BOOKMARK: Duration = Duration::from_secs(60);

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Nobody listens; open watches end.
    Away,
    /// It takes requests and never answers; open watches are silent.
    Hanging,
    /// It takes writes and never answers; reads and watches work.
    HangingWrites,
    /// Writes fail with that status; reads and watches work.
    FailingWrites(u16),
    /// Every request fails with that status.
    Failing(u16),
    /// Objects of that kind, by its plural, are refused as invalid.
    Refusing(&'static str),
    /// Lists and watches of that kind, by its plural, are never answered.
    Withholding(&'static str),
    /// Lists that may be of the version at which this first began are of that, and each event comes twice.
    Lying,
    /// What becomes of a request is left to chance, which has that seed: it is served, or one of all the other things happens.
    Unsteady(u64),
}

/// The API server. Clones are the same one.
#[derive(Clone)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    /// Raised by every change and every change of mood.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    mood: Mood,
    now: Store,
    /// What lists show while it lies.
    past: Store,
    writes: Vec<String>,
    /// Writes that were refused.
    refused: usize,
    chance: Chance,
}

impl ApiServer {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::channel(0).0 }
    }

    /// A client that keeps the deadlines of a real one.
    pub(crate) fn client(&self) -> k8s::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<KubeBody>| {
            let server = server.clone();
            async move { server.serve(request).await }
        });
        k8s::Client::over(k8s::kube::Client::new(service, "default"), &k8s::ClientConfig::default())
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        {
            let mut state = self.state.lock();
            if mood == Mood::Lying && state.past.version == 0 {
                state.past = state.now.clone();
            }
            if let Mood::Unsteady(seed) = mood {
                (state.past, state.chance) = (state.now.clone(), Chance::new(seed));
            }
            state.mood = mood;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Creates or replaces objects as somebody else: YAML documents.
    pub(crate) fn apply(&self, yaml: &str) {
        for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap() {
            self.put(store::key(&object), object);
        }
    }

    /// Deletes an object as somebody else.
    pub(crate) fn delete(&self, plural: &str, path: &str) {
        let object = self.state.lock().now.remove(&(plural.to_owned(), path.to_owned()));
        assert!(object.is_some(), "there is no {plural} {path}");
        self.changed.send_modify(|count| *count += 1);
    }

    /// Watches cannot go on from where they are: each ends, and is answered that its version is gone.
    pub(crate) fn forget_events(&self) {
        self.state.lock().now.forget_events();
        self.changed.send_modify(|count| *count += 1);
    }

    /// An object as it is now.
    pub(crate) fn get(&self, plural: &str, path: &str) -> Option<Value> {
        self.state.lock().now.get(&(plural.to_owned(), path.to_owned())).cloned()
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        self.state.lock().now.all(plural)
    }

    /// Rises with each change of an object.
    pub(crate) fn version(&self) -> u64 {
        self.state.lock().now.version
    }

    /// What clients have written since the last call: `POST ciliumendpoints shop/web`.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().writes)
    }

    /// How many writes have been refused as invalid.
    pub(crate) fn refused(&self) -> usize {
        self.state.lock().refused
    }

    fn put(&self, key: Key, object: Value) -> Value {
        let object = self.state.lock().now.insert(key, object);
        self.changed.send_modify(|count| *count += 1);
        object
    }

    async fn serve(&self, request: Request<KubeBody>) -> Result<Response<Body>, std::io::Error> {
        let (mood, whim) = self.state.lock().mood();
        match (mood, whim) {
            (Mood::Away, _) | (_, Whim::Drop) => return Err(std::io::ErrorKind::ConnectionRefused.into()),
            (Mood::Hanging, _) | (_, Whim::Hang) => return std::future::pending().await,
            (Mood::Failing(code), _) | (_, Whim::Fail(code)) => return Ok(status(code, "Failure", "told to fail")),
            _ => {}
        }
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/version" {
            let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "memory",
                "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": ""});
            return Ok(answer(200, &version));
        }
        match mood {
            Mood::HangingWrites if parts.method != Method::GET => return std::future::pending().await,
            Mood::FailingWrites(code) if parts.method != Method::GET => {
                return Ok(status(code, "Failure", "told to fail"));
            }
            _ => {}
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let Some(target) = Target::parse(parts.uri.path(), parts.uri.query().unwrap_or_default()) else {
            return Ok(status(404, "NotFound", parts.uri.path()));
        };
        let looks = parts.method == Method::GET && target.name.is_none();
        if matches!(mood, Mood::Withholding(plural) if looks && target.is_about(plural)) {
            return std::future::pending().await;
        }
        if matches!(mood, Mood::Refusing(plural) if target.is_about(plural) && parts.method != Method::GET) {
            self.state.lock().refused += 1;
            return Ok(status(422, "Invalid", "it is too long"));
        }
        if looks && whim == Whim::Expire {
            let gone = status(410, "Expired", "the version is too old");
            return Ok(if target.is_watch() { Response::new(Body::from(store::expired())) } else { gone });
        }
        if target.is_watch() {
            return Ok(self.watch(target));
        }
        let answer = self.answer(&parts.method, &target, body, mood == Mood::Lying || whim == Whim::Lag);
        if whim == Whim::Lose && parts.method != Method::GET {
            return std::future::pending().await;
        }
        Ok(answer)
    }

    fn answer(&self, method: &Method, target: &Target, mut body: Value, lags: bool) -> Response<Body> {
        target.place(&mut body);
        let name = target.name.clone().or_else(|| body["metadata"]["name"].as_str().map(str::to_owned));
        let Some(name) = name else {
            let state = self.state.lock();
            let stale = lags && target.takes_version(state.past.version);
            return answer(200, &if stale { &state.past } else { &state.now }.list(target));
        };
        let key = target.key(&name);
        let present = self.get(&key.0, &key.1);
        let differs = |field: &str, wanted: &Value| {
            present.as_ref().is_some_and(|present| !wanted.is_null() && present["metadata"][field] != *wanted)
        };
        let conflict = differs("uid", &body["preconditions"]["uid"])
            || differs("uid", &body["metadata"]["uid"])
            || differs("resourceVersion", &body["metadata"]["resourceVersion"]);
        if method != Method::GET {
            self.state.lock().writes.push(format!("{method} {} {}", key.0, key.1));
        }
        match (method.as_str(), present) {
            (_, Some(_)) if conflict => status(409, "Conflict", "it is another by now"),
            ("POST", Some(_)) => status(409, "AlreadyExists", &name),
            ("POST", None) => answer(201, &self.put(key, body)),
            ("PATCH", None) if target.query.contains_key("fieldManager") => answer(201, &self.put(key, body)),
            (_, None) => status(404, "NotFound", &name),
            ("GET", Some(present)) => answer(200, &present),
            ("PUT", Some(_)) => answer(200, &self.put(key, body)),
            ("PATCH", Some(mut present)) => {
                merge(&mut present, body);
                answer(200, &self.put(key, present))
            }
            ("DELETE", Some(present)) => {
                self.delete(&key.0, &key.1);
                answer(200, &present)
            }
            _ => status(405, "MethodNotAllowed", method.as_str()),
        }
    }

    fn watch(&self, target: Target) -> Response<Body> {
        let (server, changed) = (self.clone(), self.changed.subscribe());
        let from = target.version();
        let events = futures::stream::unfold((from, changed), move |(from, mut changed)| {
            let (server, target) = (server.clone(), target.clone());
            async move {
                let until = tokio::time::Instant::now() + BOOKMARK;
                loop {
                    changed.borrow_and_update();
                    let (mood, whim) = server.state.lock().mood();
                    let (news, version) = server.state.lock().news(&target, from);
                    match mood {
                        Mood::Away => return None,
                        Mood::Unsteady(_) if whim == Whim::Drop => return None,
                        Mood::Hanging => {}
                        _ if !news.is_empty() => return Some((Ok::<_, Infallible>(news), (version, changed))),
                        _ if tokio::time::Instant::now() >= until => {
                            let bookmark = line("BOOKMARK", &target.bookmark(version));
                            return Some((Ok(bookmark), (version, changed)));
                        }
                        _ => {}
                    }
                    let _ = tokio::time::timeout(BOOKMARK, changed.changed()).await;
                }
            }
        });
        Response::new(Body::from_stream(events))
    }
}

impl State {
    /// How it answers now.
    fn mood(&mut self) -> (Mood, Whim) {
        let unsteady = matches!(self.mood, Mood::Unsteady(_));
        (self.mood, if unsteady { Whim::by(&mut self.chance) } else { Whim::Serve })
    }

    fn news(&self, target: &Target, from: u64) -> (String, u64) {
        let lies = self.mood == Mood::Lying;
        let times = if lies { 2 } else { 1 };
        // Who can list the past can tell what came after it, as far as he knows.
        let is_past = lies && from == self.past.version;
        let news = if is_past { Store::events_after } else { Store::news };
        news(&self.now, target, from, times)
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    answer(code, &body)
}
