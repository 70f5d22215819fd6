// SPDX-License-Identifier: Apache-2.0
//! The controller on an API server in memory, which fails on demand and may lose the answer to a write that it has made.

use super::*;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use k8s::kube::client::Body as KubeBody;
use parking_lot::Mutex;
use serde_json::Value;
use statedb::Writer;
use std::collections::BTreeMap;

const CONFIG: Config = Config { default_class: true, ipv4: true, ipv6: false };

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Refused(u16),
    /// It is not made, and nobody answers.
    Lost,
    /// It is made, and nobody answers.
    Unanswered,
}

#[derive(Default)]
struct Server {
    version: u64,
    services: BTreeMap<String, Value>,
    pools: BTreeMap<String, Value>,
    /// What was written: method and path.
    requests: Vec<String>,
    /// What becomes of the next writes to Services; those after them are made.
    fates: Vec<Fate>,
}

/// An API server, and the tables that follow it when they are told to.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Server>>);

impl World {
    fn client(&self) -> Client {
        let world = self.clone();
        let service = tower::service_fn(move |request: Request<KubeBody>| {
            let world = world.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                world.0.lock().answer(&parts.method, parts.uri.path(), body)
            }
        });
        k8s::kube::Client::new(service, "default").into()
    }

    fn service(&self, name: &str) {
        let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}], "ipFamilies": ["IPv4"]});
        let mut server = self.0.lock();
        let object = json!({"metadata": {"namespace": "n", "name": name, "uid": name}, "spec": spec, "status": {}});
        let object = server.stamped(object);
        server.services.insert(name.to_owned(), object);
    }

    fn pool(&self, name: &str, cidr: &str) {
        let mut server = self.0.lock();
        let object = json!({"metadata": {"name": name, "uid": name}, "spec": {"blocks": [{"cidr": cidr}]}});
        let object = server.stamped(object);
        server.pools.insert(name.to_owned(), object);
    }

    fn fates(&self, fates: &[Fate]) {
        self.0.lock().fates = fates.to_vec();
    }

    /// The addresses of each Service.
    fn addresses(&self) -> Vec<String> {
        let server = self.0.lock();
        let text =
            |object: &Value| object["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or("-").to_owned();
        server.services.values().map(text).collect()
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().requests)
    }
}

impl Server {
    fn stamped(&mut self, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, patch: Value) -> Result<Response<Body>, std::io::Error> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        self.requests.push(format!("{method} {}", words[words.len().saturating_sub(3)..].join("/")));
        if method == Method::POST {
            return Ok(Response::new(Body::from(patch.to_string())));
        }
        let name = words[words.len() - 2].to_owned();
        let is_service = words.contains(&"services");
        let fate = if is_service && !self.fates.is_empty() { self.fates.remove(0) } else { Fate::Done };
        let objects = if is_service { &self.services } else { &self.pools };
        let stale = objects[&name]["metadata"]["resourceVersion"] != patch["metadata"]["resourceVersion"];
        match fate {
            Fate::Lost => return Err(std::io::ErrorKind::ConnectionReset.into()),
            Fate::Refused(code) => return Ok(status(code)),
            Fate::Done | Fate::Unanswered if stale => return Ok(status(409)),
            Fate::Done | Fate::Unanswered => {}
        }
        let mut object = objects[&name].clone();
        for (field, value) in patch["status"].as_object().unwrap() {
            object["status"][field] = value.clone();
        }
        let object = self.stamped(object);
        let objects = if is_service { &mut self.services } else { &mut self.pools };
        objects.insert(name, object.clone());
        if fate == Fate::Unanswered {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        Ok(Response::new(Body::from(object.to_string())))
    }
}

fn status(code: u16) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "refused"});
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// An operator, with its tables.
struct Operator {
    world: World,
    pools: Writer<Pool>,
    services: Writer<Service>,
    nodes: Writer<Occupant>,
    service_cidrs: Writer<Occupant>,
    controller: LbIpam,
}

impl Operator {
    fn start(world: &World) -> Self {
        let (pools, pools_reader) = statedb::table("pools");
        let (services, services_reader) = statedb::table("services");
        let (nodes, nodes_reader) = statedb::table("nodes");
        let (service_cidrs, cidrs_reader) = statedb::table("service-cidrs");
        let tables =
            Tables { pools: pools_reader, services: services_reader, nodes: nodes_reader, service_cidrs: cidrs_reader };
        let controller = LbIpam::new(&world.client(), CONFIG, &tables, Metrics::default());
        Self { world: world.clone(), pools, services, nodes, service_cidrs, controller }
    }

    /// The watches bring what there is.
    fn follow(&mut self) {
        let server = self.world.0.lock();
        let pools = server.pools.values().map(|object| serde_json::from_value(object.clone()).unwrap());
        self.pools.replace(pools.filter_map(|object| Pool::ingest(&object)));
        let services = server.services.values().map(|object| serde_json::from_value(object.clone()).unwrap());
        self.services.replace(services.filter_map(|object| Service::ingest(CONFIG, &object)));
        drop(server);
        self.pools.mark_initialized();
        self.services.mark_initialized();
        self.nodes.mark_initialized();
        self.service_cidrs.mark_initialized();
    }

    /// Passes until both tables were looked at.
    async fn pass(&mut self) -> Result<(), Failures> {
        let wait = std::time::Duration::from_millis(1);
        while tokio::time::timeout(wait, self.controller.due()).await.is_ok() {}
        self.controller.pass().await
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_all_is_known() {
    let world = World::default();
    world.pool("p", "10.0.0.0/24");
    world.service("a");
    for missing in 0..4 {
        let mut operator = Operator::start(&world);
        operator.follow();
        let (_, nobody) = statedb::table("nobody");
        let (_, no_pool) = statedb::table("no-pool");
        let (_, no_service) = statedb::table("no-service");
        match missing {
            0 => operator.controller.pools = Source::new(&no_pool),
            1 => operator.controller.services = Source::new(&no_service),
            2 => operator.controller.nodes = Source::new(&nobody),
            _ => operator.controller.service_cidrs = Source::new(&nobody),
        }
        operator.pass().await.unwrap();
        assert_eq!(world.requests(), [""; 0], "table {missing} is missing");
    }
}

#[tokio::test(start_paused = true)]
async fn each_status_is_written_once() {
    let world = World::default();
    world.pool("p", "10.0.0.0/24");
    ["a", "b"].iter().for_each(|name| world.service(name));
    let mut operator = Operator::start(&world);
    operator.follow();
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["10.0.0.0", "10.0.0.1"]);
    let wanted = ["PATCH ciliumloadbalancerippools/p/status", "PATCH services/a/status", "PATCH services/b/status"];
    assert_eq!(world.requests(), wanted);
    operator.follow();
    operator.pass().await.unwrap();
    assert_eq!(world.requests(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_for_one_keeps_no_other_and_is_tried_again() {
    let world = World::default();
    world.pool("p", "10.0.0.0/24");
    ["a", "b"].iter().for_each(|name| world.service(name));
    world.fates(&[Fate::Refused(403)]);
    let mut operator = Operator::start(&world);
    operator.follow();
    let failures = operator.pass().await.unwrap_err();
    assert_eq!(failures.0.len(), 1);
    assert!(failures.0[0].starts_with("Service n/a: "), "{failures:?}");
    assert_eq!(world.addresses(), ["-", "10.0.0.1"]);
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["10.0.0.0", "10.0.0.1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_what_it_says_waits_for_a_long_time_or_for_another_version() {
    let world = World::default();
    world.pool("p", "10.0.0.0/24");
    ["a", "b"].iter().for_each(|name| world.service(name));
    world.fates(&[Fate::Refused(422)]);
    let mut operator = Operator::start(&world);
    operator.follow();
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["-", "10.0.0.1"]);
    world.requests();
    operator.pass().await.unwrap();
    assert_eq!(world.requests(), [""; 0]);
    world.fates(&[Fate::Refused(422)]);
    world.service("a");
    operator.follow();
    operator.pass().await.unwrap();
    assert_eq!(world.requests(), ["PATCH services/a/status"]);
    tokio::time::sleep(std::time::Duration::from_secs(2 * 3600)).await;
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["10.0.0.0", "10.0.0.1"]);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_answers_the_rest_is_not_tried() {
    let world = World::default();
    world.pool("p", "10.0.0.0/24");
    ["a", "b"].iter().for_each(|name| world.service(name));
    world.fates(&[Fate::Lost]);
    let mut operator = Operator::start(&world);
    operator.follow();
    operator.pass().await.unwrap_err();
    assert_eq!(world.addresses(), ["-", "-"]);
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["10.0.0.0", "10.0.0.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_changed_meanwhile_is_decided_on_again() {
    let world = World::default();
    world.pool("p", "10.0.0.0/24");
    world.service("a");
    let mut operator = Operator::start(&world);
    operator.follow();
    world.service("a");
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["-"]);
    operator.follow();
    operator.pass().await.unwrap();
    assert_eq!(world.addresses(), ["10.0.0.0"]);
}

/// Whatever becomes of the first writes, the next operator, which knows nothing of the one before, gives no address twice.
#[tokio::test(start_paused = true)]
async fn the_next_operator_begins_with_what_the_one_before_has_left() {
    let fates = [Fate::Done, Fate::Lost, Fate::Unanswered, Fate::Refused(409), Fate::Refused(500)];
    let pairs = fates.iter().flat_map(|one| fates.iter().map(move |other| [*one, *other]));
    for pair in pairs {
        let world = World::default();
        world.pool("p", "10.0.0.0/30");
        ["b", "c", "d"].iter().for_each(|name| world.service(name));
        let mut first = Operator::start(&world);
        first.follow();
        world.fates(&pair);
        let _ = first.pass().await;
        drop(first);
        world.fates(&[]);
        world.service("a");
        let given = world.addresses();
        let mut second = Operator::start(&world);
        second.follow();
        second.pass().await.unwrap();
        let mut all = world.addresses();
        for (before, after) in given.iter().zip(&all).filter(|(before, _)| *before != "-") {
            assert_eq!(before, after, "{pair:?}");
        }
        all.sort();
        assert_eq!(all, ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"], "{pair:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_lacks_an_address_and_whose_pool_cannot_be_used_are_told() {
    let world = World::default();
    world.pool("p", "10.0.0.0/32");
    world.pool("q", "10.0.0.0/24");
    ["a", "b"].iter().for_each(|name| world.service(name));
    let mut operator = Operator::start(&world);
    operator.follow();
    operator.pass().await.unwrap();
    let events = world.requests().into_iter().filter(|request| request.starts_with("POST")).collect::<Vec<_>>();
    assert_eq!(events, ["POST namespaces/default/events", "POST namespaces/n/events"]);
}
