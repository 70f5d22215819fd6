// SPDX-License-Identifier: Apache-2.0
//! A cluster in memory: versioned objects, and an operator that watches them.

use crate::{Allocator, CONDITION, Config, Pool, Service};
use k8s::k8s_openapi::jiff::Timestamp;
use model::ServiceName;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// An object under construction.
#[derive(Clone, Debug)]
pub(super) struct Object(Value);

/// A Service of type LoadBalancer with port 80 that asks for an IPv4 address.
pub(super) fn service() -> Object {
    let spec = json!({
        "type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}], "ipFamilies": ["IPv4"],
        "externalTrafficPolicy": "Cluster",
    });
    Object(json!({"metadata": {}, "spec": spec, "status": {}}))
}

impl Object {
    pub(super) fn spec(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    pub(super) fn metadata(mut self, field: &str, value: Value) -> Self {
        self.0["metadata"][field] = value;
        self
    }

    pub(super) fn port(self, port: u16, protocol: &str) -> Self {
        self.spec("ports", json!([{"port": port, "protocol": protocol}]))
    }

    pub(super) fn labels(self, labels: Value) -> Self {
        self.metadata("labels", labels)
    }

    /// In addition to those it has.
    pub(super) fn annotations(mut self, annotations: Value) -> Self {
        for (key, value) in annotations.as_object().unwrap() {
            self.0["metadata"]["annotations"][key] = value.clone();
        }
        self
    }

    pub(super) fn status(self, addresses: &[&str]) -> Self {
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        self.whole_status(json!({"loadBalancer": {"ingress": ingress}}))
    }

    pub(super) fn whole_status(mut self, status: Value) -> Self {
        self.0["status"] = status;
        self
    }
}

pub(super) struct Cluster {
    pub(super) config: Config,
    /// By namespace/name.
    pub(super) services: BTreeMap<String, Value>,
    pub(super) pools: BTreeMap<String, Value>,
    version: u64,
    pub(super) operator: Allocator,
    unseen: Vec<Unseen>,
    /// Decided but not written.
    unwritten: BTreeSet<String>,
    news: Vec<String>,
    /// How many Services the operator has examined.
    pub(super) considered: usize,
}

/// A change that the operator has not seen yet.
enum Unseen {
    Service(String),
    Pool(String),
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            config: Config { default_class: true, ipv4: true, ipv6: true },
            services: BTreeMap::new(),
            pools: BTreeMap::new(),
            version: 0,
            operator: Allocator::default(),
            unseen: Vec::new(),
            unwritten: BTreeSet::new(),
            news: Vec::new(),
            considered: 0,
        }
    }
}

/// Namespace and name, `default` if only the name is given.
fn path(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("default/{name}") }
}

fn service_name(path: &str) -> ServiceName {
    let (namespace, name) = path.split_once('/').unwrap();
    ServiceName::new(namespace, name)
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

impl Cluster {
    /// Each object is a second younger than those before it.
    fn stamp(&mut self, object: &mut Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["creationTimestamp"].is_null() {
            let created = Timestamp::from_second(1_700_000_000 + i64::try_from(self.version).unwrap()).unwrap();
            object["metadata"]["creationTimestamp"] = json!(created.to_string());
        }
    }

    pub(super) fn service(&mut self, name: &str, object: Object) {
        let (path, mut object) = (path(name), object.0);
        let (namespace, name) = path.split_once('/').unwrap();
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["name"] = json!(name);
        self.stamp(&mut object);
        self.unseen.push(Unseen::Service(path.clone()));
        self.services.insert(path, object);
    }

    pub(super) fn edit(&mut self, name: &str, edit: impl FnOnce(Object) -> Object) {
        let object = edit(Object(self.object(name)));
        self.service(name, object);
    }

    pub(super) fn remove_service(&mut self, name: &str) {
        self.services.remove(&path(name));
        self.unseen.push(Unseen::Service(path(name)));
    }

    /// Creates or changes a pool.
    pub(super) fn pool(&mut self, name: &str, spec: Value) {
        let mut object = self.pools.get(name).cloned().unwrap_or_else(|| json!({"metadata": {"name": name}}));
        object["spec"] = spec;
        self.stamp(&mut object);
        self.unseen.push(Unseen::Pool(name.to_owned()));
        self.pools.insert(name.to_owned(), object);
    }

    pub(super) fn remove_pool(&mut self, name: &str) {
        self.pools.remove(name);
        self.unseen.push(Unseen::Pool(name.to_owned()));
    }

    /// The operator ends and another starts, knowing only the objects.
    pub(super) fn restart(&mut self) {
        self.operator = Allocator::default();
        self.unwritten.clear();
        self.unseen = self.services.keys().cloned().map(Unseen::Service).collect();
        self.unseen.extend(self.pools.keys().cloned().map(Unseen::Pool));
    }

    /// The operator sees the changes.
    fn see(&mut self) {
        for unseen in std::mem::take(&mut self.unseen) {
            match unseen {
                Unseen::Service(path) => {
                    let object = self.services.get(&path).map(|object| serde_json::from_value(object.clone()).unwrap());
                    match object.and_then(|object| Service::ingest(self.config, &object)) {
                        Some(row) => self.operator.set_service(row),
                        None => self.operator.remove_service(&service_name(&path)),
                    }
                }
                Unseen::Pool(name) => match self.pools.get(&name) {
                    Some(object) => {
                        let object = serde_json::from_value(object.clone()).unwrap();
                        self.operator.set_pool(Pool::ingest(&object).unwrap());
                    }
                    None => self.operator.remove_pool(&name),
                },
            }
        }
    }

    /// The operator sees everything and decides. Returns the Services it may have to write, in addition to earlier ones.
    pub(super) fn decide(&mut self) -> BTreeSet<String> {
        self.see();
        let settled = self.operator.settle();
        self.considered += settled.considered;
        settled.pools.iter().for_each(|name| self.write_pool(name));
        self.unwritten.extend(settled.services.iter().map(ToString::to_string));
        self.unwritten.clone()
    }

    /// The operator decides and writes until there is nothing left to write. Returns the number of writes.
    pub(super) fn run(&mut self) -> usize {
        let mut written = 0;
        for _ in 0..10 {
            let now = self.decide().iter().filter(|path| self.write(path)).count();
            written += now;
            if now == 0 && self.unseen.is_empty() {
                return written;
            }
        }
        panic!("it comes to no end");
    }

    /// Writes the operator's decision for a Service. Returns whether there was one.
    pub(super) fn write(&mut self, path: &str) -> bool {
        self.unwritten.remove(path);
        let Some(update) = self.operator.service_update(&service_name(path), now()) else { return false };
        self.news.extend(update.warnings.iter().map(|warning| format!("{path}: {}", warning.note)));
        let Some(mut object) = self.services.get(path).cloned() else { return false };
        if object["metadata"]["resourceVersion"] != json!(update.version) {
            return false;
        }
        object["status"]["loadBalancer"]["ingress"] = json!(update.ingress);
        object["status"]["conditions"] = json!(update.conditions);
        self.stamp(&mut object);
        self.services.insert(path.to_owned(), object);
        self.unseen.push(Unseen::Service(path.to_owned()));
        true
    }

    fn write_pool(&mut self, name: &str) {
        let Some(update) = self.operator.pool_update(name, now()) else { return };
        let said = update.warnings.iter().map(|warning| format!("{} {name}: {}", warning.reason, warning.note));
        self.news.extend(said);
        let Some(mut object) = self.pools.get(name).cloned() else { return };
        object["status"]["conditions"] = json!(update.conditions);
        self.stamp(&mut object);
        self.pools.insert(name.to_owned(), object);
        self.unseen.push(Unseen::Pool(name.to_owned()));
    }

    /// The events since the last call.
    pub(super) fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn object(&self, name: &str) -> Value {
        self.services[&path(name)].clone()
    }

    pub(super) fn addresses(&self, name: &str) -> Vec<String> {
        let ingress = self.object(name)["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        ingress.iter().filter_map(|entry| entry["ip"].as_str().map(str::to_owned)).collect()
    }

    /// Status, reason and message of its condition.
    pub(super) fn said(&self, name: &str) -> (String, String, String) {
        condition(&self.object(name), CONDITION)
    }

    pub(super) fn pool_said(&self, name: &str, kind: &str) -> (String, String, String) {
        condition(&self.pools[name], kind)
    }

    /// Total, available and used addresses, as the pool's status says.
    pub(super) fn counts(&self, name: &str) -> [String; 3] {
        ["Total", "Available", "Used"].map(|kind| self.pool_said(name, &format!("cilium.io/IPs{kind}")).2)
    }
}

fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {object}"));
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"), text("message"))
}
