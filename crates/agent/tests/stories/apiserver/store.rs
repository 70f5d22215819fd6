// SPDX-License-Identifier: Apache-2.0
//! The objects of the API server, their history, and what of both a request is about.

use super::line;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Plural, and namespace/name.
pub(super) type Key = (String, String);

#[derive(Clone, Default)]
pub(super) struct Store {
    /// Rises with each change.
    pub(super) version: u64,
    objects: BTreeMap<Key, Value>,
    events: Vec<Event>,
    /// The version after which events are known.
    oldest: u64,
}

#[derive(Clone)]
struct Event {
    version: u64,
    plural: String,
    kind: &'static str,
    object: Value,
}

impl Store {
    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub(super) fn all(&self, plural: &str) -> Vec<Value> {
        self.objects.iter().filter(|((kind, _), _)| kind == plural).map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn insert(&mut self, key: (String, String), mut object: Value) -> Value {
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

    pub(super) fn remove(&mut self, key: &(String, String)) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let plural = key.0.clone();
        self.events.push(Event { version: self.version, plural, kind: "DELETED", object: object.clone() });
        Some(object)
    }

    pub(super) fn list(&self, target: &Target) -> Value {
        let mut items = self.all(&target.plural);
        items.retain(|object| target.selects(object));
        let version = self.version.to_string();
        json!({
            "apiVersion": target.group_version, "kind": "List", "metadata": {"resourceVersion": version}, "items": items,
        })
    }

    /// The lines of events after a version, each so many times, and the version that they lead to.
    pub(super) fn news(&self, target: &Target, from: u64, times: usize) -> (String, u64) {
        if from < self.oldest {
            return (expired(), u64::MAX);
        }
        self.events_after(target, from, times)
    }

    /// Those that are still known.
    pub(super) fn events_after(&self, target: &Target, from: u64, times: usize) -> (String, u64) {
        let news = self.events.iter().filter(|event| event.version > from && event.plural == target.plural);
        let selected = news.filter(|event| target.selects(&event.object));
        (selected.map(|event| line(event.kind, &event.object).repeat(times)).collect(), self.version)
    }

    /// No watch can go on from where it is.
    pub(super) fn forget_events(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.events.clear();
    }
}

/// The end of a watch that cannot go on from where it is.
pub(super) fn expired() -> String {
    let message = "the version is too old";
    let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": message});
    line("ERROR", &gone)
}

/// What a request is about.
#[derive(Clone)]
pub(super) struct Target {
    /// `v1`, `cilium.io/v2`.
    group_version: String,
    plural: String,
    namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) query: BTreeMap<String, String>,
}

impl Target {
    /// An object that does not say in which namespace it is is in that of the request.
    pub(super) fn place(&self, object: &mut Value) {
        if let Some((metadata, namespace)) =
            object.get_mut("metadata").and_then(Value::as_object_mut).zip(self.namespace.as_ref())
        {
            metadata.entry("namespace").or_insert_with(|| json!(namespace));
        }
    }

    pub(super) fn parse(path: &str, query: &str) -> Option<Self> {
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

    pub(super) fn key(&self, name: &str) -> (String, String) {
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

    pub(super) fn version(&self) -> u64 {
        self.query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default()
    }

    pub(super) fn is_about(&self, plural: &str) -> bool {
        self.plural == plural
    }

    pub(super) fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true")
    }

    /// Whether a list may be of that version.
    pub(super) fn takes_version(&self, version: u64) -> bool {
        self.query.contains_key("resourceVersion") && self.version() <= version
    }

    pub(super) fn bookmark(&self, version: u64) -> Value {
        let version = version.to_string();
        json!({"apiVersion": self.group_version, "kind": "Bookmark", "metadata": {"resourceVersion": version}})
    }
}

/// Where an object is.
pub(super) fn key(object: &Value) -> Key {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap();
    let path =
        metadata["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    (plural(object["kind"].as_str().unwrap()), path)
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

/// RFC 7396.
pub(super) fn merge(present: &mut Value, patch: Value) {
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
