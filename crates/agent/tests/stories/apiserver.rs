// SPDX-License-Identifier: Apache-2.0
//! An API server in memory, behind the client's own service: no socket. It keeps objects of any kind, notes what it is asked to write,
//! and misbehaves on demand.

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s::kube::client::Body as KubeBody;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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
    /// Every request fails with that status.
    Failing(u16),
    /// Lists that may be of any version are of the one at which this began, and each event comes twice.
    Lying,
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
    version: u64,
    objects: Objects,
    /// What lists show while it lies, and of which version.
    past: (u64, Objects),
    events: Vec<Event>,
    /// The version after which events are known.
    oldest: u64,
    writes: Vec<String>,
}

/// By plural and namespace/name.
type Objects = BTreeMap<(String, String), Value>;

#[derive(Clone)]
struct Event {
    version: u64,
    plural: String,
    kind: &'static str,
    object: Value,
}

/// What a request is about.
struct Target {
    /// `v1`, `cilium.io/v2`.
    group_version: String,
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
    query: BTreeMap<String, String>,
}

impl Target {
    fn parse(path: &str, query: &str) -> Option<Self> {
        let mut words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let rest = words.split_off(if words.first() == Some(&"api") { 2 } else { 3.min(words.len()) });
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let decode = |text: &str| text.replace("%3D", "=").replace("%2F", "/").replace("%2C", ",");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Some(Self {
            group_version: words[1..].join("/"),
            plural: (*rest.first()?).to_owned(),
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            query: pairs.map(|(key, value)| (key.to_owned(), decode(value))).collect(),
        })
    }

    fn key(&self, name: &str) -> (String, String) {
        let path = self.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        (self.plural.clone(), path)
    }

    fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let in_namespace = self.namespace.as_ref().is_none_or(|namespace| metadata["namespace"] == **namespace);
        let has_field =
            self.query.get("fieldSelector").and_then(|text| text.split_once('=')).is_none_or(|(path, value)| {
                object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str) == Some(value)
            });
        let labels = self.query.get("labelSelector").and_then(|text| text.split_once('='));
        in_namespace && has_field && labels.is_none_or(|(key, value)| metadata["labels"][key] == value)
    }

    fn version(&self) -> u64 {
        self.query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default()
    }
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
            state.past = (state.version, state.objects.clone());
            state.mood = mood;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Creates or replaces objects as somebody else: YAML documents.
    pub(crate) fn apply(&self, yaml: &str) {
        for object in serde_saphyr::from_multiple::<Value>(yaml).unwrap() {
            let plural = plural(object["kind"].as_str().unwrap());
            self.put((plural, path(&object)), object);
        }
    }

    /// Deletes an object as somebody else.
    pub(crate) fn delete(&self, plural: &str, path: &str) {
        let object = self.state.lock().remove(&(plural.to_owned(), path.to_owned()));
        assert!(object.is_some(), "there is no {plural} {path}");
        self.changed.send_modify(|count| *count += 1);
    }

    /// Watches cannot go on from where they are: each ends, and is answered that its version is gone.
    pub(crate) fn forget_events(&self) {
        {
            let mut state = self.state.lock();
            state.version += 1;
            state.oldest = state.version;
            state.events.clear();
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// An object as it is now.
    pub(crate) fn get(&self, plural: &str, path: &str) -> Option<Value> {
        self.state.lock().objects.get(&(plural.to_owned(), path.to_owned())).cloned()
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|((kind, _), _)| kind == plural).map(|(_, object)| object.clone()).collect()
    }

    /// Rises with each change of an object.
    pub(crate) fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// What clients have written since the last call: `POST ciliumendpoints shop/web`.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().writes)
    }

    fn put(&self, key: (String, String), object: Value) -> Value {
        let object = self.state.lock().insert(key, object);
        self.changed.send_modify(|count| *count += 1);
        object
    }

    async fn serve(&self, request: Request<KubeBody>) -> Result<Response<Body>, std::io::Error> {
        let mood = self.state.lock().mood;
        match mood {
            Mood::Away => return Err(std::io::ErrorKind::ConnectionRefused.into()),
            Mood::Hanging => return std::future::pending().await,
            Mood::Failing(code) => return Ok(status(code, "InternalError", "told to fail")),
            Mood::Well | Mood::Lying => {}
        }
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/version" {
            let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "memory",
                "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": ""});
            return Ok(answer(200, &version));
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let Some(target) = Target::parse(parts.uri.path(), parts.uri.query().unwrap_or_default()) else {
            return Ok(status(404, "NotFound", parts.uri.path()));
        };
        if parts.method == Method::GET && target.query.get("watch").is_some_and(|watch| watch == "true") {
            return Ok(self.watch(target));
        }
        Ok(self.answer(&parts.method, &target, body))
    }

    fn answer(&self, method: &Method, target: &Target, body: Value) -> Response<Body> {
        let name = target.name.clone().or_else(|| body["metadata"]["name"].as_str().map(str::to_owned));
        let Some(name) = name else { return answer(200, &self.state.lock().list(target)) };
        let key = target.key(&name);
        let present = self.get(&key.0, &key.1);
        if method == Method::GET && target.name.is_none() {
            return answer(200, &self.state.lock().list(target));
        }
        let uid = body["preconditions"]["uid"].as_str().or(body["metadata"]["uid"].as_str());
        let conflict = uid.is_some_and(|uid| present.as_ref().is_some_and(|present| present["metadata"]["uid"] != uid));
        if method != Method::GET {
            self.state.lock().writes.push(format!("{method} {} {}", key.0, key.1));
        }
        match (method.as_str(), present) {
            (_, Some(_)) if conflict => status(409, "Conflict", "another uid"),
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
            let (server, target) = (server.clone(), target.clone_for_watch());
            async move {
                let until = tokio::time::Instant::now() + BOOKMARK;
                loop {
                    changed.borrow_and_update();
                    let (mood, news, version) = server.state.lock().news(&target, from);
                    match mood {
                        Mood::Away => return None,
                        Mood::Hanging => {}
                        _ if server.state.lock().oldest > from => {
                            let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired",
                                "message": "too old"});
                            return Some((Ok(line("ERROR", &gone)), (u64::MAX, changed)));
                        }
                        _ if !news.is_empty() => return Some((Ok::<_, Infallible>(news), (version, changed))),
                        _ if tokio::time::Instant::now() >= until => {
                            let bookmark = line("BOOKMARK", &target.bookmark(version));
                            return Some((Ok(bookmark), (version, changed)));
                        }
                        _ => {}
                    }
                    let _ = tokio::time::timeout_at(
                        until.max(tokio::time::Instant::now() + BOOKMARK / 60),
                        changed.changed(),
                    )
                    .await;
                }
            }
        });
        Response::new(Body::from_stream(events))
    }
}

impl Target {
    fn clone_for_watch(&self) -> Self {
        Self {
            group_version: self.group_version.clone(),
            plural: self.plural.clone(),
            namespace: self.namespace.clone(),
            name: None,
            query: self.query.clone(),
        }
    }

    fn bookmark(&self, version: u64) -> Value {
        let version = version.to_string();
        json!({"apiVersion": self.group_version, "kind": "Bookmark", "metadata": {"resourceVersion": version}})
    }
}

impl State {
    fn insert(&mut self, key: (String, String), mut object: Value) -> Value {
        let present = self.objects.get(&key);
        let metadata = object["metadata"].as_object_mut().unwrap();
        let kept = |field: &str| present.map(|present| present["metadata"][field].clone());
        metadata.entry("uid").or_insert_with(|| kept("uid").unwrap_or_else(|| json!(format!("uid-{}", self.version))));
        metadata.insert("resourceVersion".into(), kept("resourceVersion").unwrap_or_default());
        if present == Some(&object) {
            // As with a real one, what changes nothing is no event.
            return object;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = if present.is_some() { "MODIFIED" } else { "ADDED" };
        let plural = key.0.clone();
        self.objects.insert(key, object.clone());
        self.events.push(Event { version: self.version, plural, kind, object: object.clone() });
        object
    }

    fn remove(&mut self, key: &(String, String)) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let plural = key.0.clone();
        self.events.push(Event { version: self.version, plural, kind: "DELETED", object: object.clone() });
        Some(object)
    }

    fn list(&self, target: &Target) -> Value {
        let any = target.query.get("resourceVersion").is_some_and(|version| version == "0");
        let (version, objects) =
            if self.mood == Mood::Lying && any { (self.past.0, &self.past.1) } else { (self.version, &self.objects) };
        let items: Vec<_> = objects
            .iter()
            .filter(|((plural, _), object)| *plural == target.plural && target.selects(object))
            .map(|(_, object)| object)
            .collect();
        json!({
            "apiVersion": target.group_version, "kind": "List",
            "metadata": {"resourceVersion": version.to_string()}, "items": items,
        })
    }

    /// The lines of events after a version, and the version that they lead to.
    fn news(&self, target: &Target, from: u64) -> (Mood, String, u64) {
        let news = self.events.iter().filter(|event| event.version > from && event.plural == target.plural);
        let times = if self.mood == Mood::Lying { 2 } else { 1 };
        let lines = news
            .filter(|event| target.selects(&event.object))
            .map(|event| line(event.kind, &event.object).repeat(times))
            .collect();
        (self.mood, lines, self.version)
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn path(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap();
    metadata["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

/// RFC 7396.
fn merge(present: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *present = patch;
        return;
    };
    if !present.is_object() {
        *present = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            present.as_object_mut().unwrap().remove(&key);
        } else {
            merge(&mut present[key], value);
        }
    }
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": message}),
    )
}
