// SPDX-License-Identifier: Apache-2.0
//! Nodes with a campaign each for one Lease, and the API server that has it.

use super::super::*;
use crate::reconcile::Target;
use crate::select::{Down, Place};
use abi::l2::AnnouncedKey;
use abi::maps;
use datapath::fake;
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use k8s::kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use statedb::Tasks;
use std::collections::BTreeSet;
use std::net::IpAddr;
use tokio::task::JoinHandle;

pub(crate) const LEASE: &str = "cilium-l2announce-shop-web";
pub(crate) const TIMING: Timing =
    Timing { lease: Duration::from_secs(3), renew: Duration::from_secs(1), retry: Duration::from_millis(500) };
const IFINDEX: u32 = 2;
/// Devices of each node.
const DEVICES: [&str; 2] = ["eth0", "eth1"];
/// How often it is looked who answers.
const STEP: Duration = Duration::from_millis(10);
/// The most requests between two looks. Who always has another one to make would stop the clock.
const FLOOD: usize = 100;

fn address() -> IpAddr {
    "192.0.2.240".parse().unwrap()
}

/// What a node's way to the API server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Requests and answers take their time, and what is watched comes late.
    Slow,
    /// Requests are taken and never answered; some are carried out all the same.
    Hanging,
    Failing,
    /// Nothing is heard of changes.
    Blind,
}

pub(crate) struct Cluster {
    server: Server,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) async fn of(nodes: usize) -> Self {
        let mut cluster = Self { server: Server::default(), nodes: Vec::new() };
        (0..nodes).for_each(|_| cluster.add_node());
        cluster
    }

    pub(crate) fn add_node(&mut self) {
        let mut node = Node::new(self.nodes.len(), self.server.clone());
        node.start();
        self.nodes.push(node);
    }

    /// One whose maps cannot be written.
    pub(crate) fn add_broken_node(&mut self) {
        let mut node = Node::new(self.nodes.len(), self.server.clone());
        node.is_broken = true;
        node.start();
        self.nodes.push(node);
    }

    /// The nodes that answer now.
    pub(crate) fn answering(&self) -> Vec<usize> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_answering()).map(|(n, _)| n).collect()
    }

    /// A moment, after which no two nodes answer.
    pub(crate) async fn step(&self) {
        sleep(STEP).await;
        let requests = std::mem::take(&mut self.server.lease.lock().requests);
        assert!(requests < FLOOD, "the API server is flooded; the lease is {:?}", self.lease());
        let answering = self.answering();
        assert!(answering.len() < 2, "{answering:?} answer at once; the lease is {:?}", self.lease());
    }

    pub(crate) async fn watch_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.step().await;
        }
    }

    pub(crate) async fn until_answered(&self) -> usize {
        self.until_answered_by_another(usize::MAX).await
    }

    pub(crate) async fn until_answered_by_another(&self, than: usize) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.step().await;
            match self.answering().first() {
                Some(node) if *node != than => return *node,
                _ => assert!(Instant::now() < deadline, "nobody answers; the lease is {:?}", self.lease()),
            }
        }
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        let lease = self.server.lease.lock().now.clone()?;
        Some(serde_json::from_value(lease).unwrap())
    }

    pub(crate) fn holder(&self) -> String {
        self.lease().map(|lease| holder(&lease).to_owned()).unwrap_or_default()
    }

    /// What the Lease says under a key.
    pub(crate) fn noted(&self, key: &str) -> Option<String> {
        self.lease()?.metadata.annotations?.remove(key)
    }

    pub(crate) fn delete_lease(&self) {
        self.server.set(None);
    }

    pub(crate) fn give_lease(&self, holder: &str, seconds: i32) {
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": seconds});
        self.server.set(Some(json!({"metadata": {"name": LEASE}, "spec": spec})));
    }

    /// Somebody annotates the Lease.
    pub(crate) fn note(&self, key: &str, value: &str) {
        let mut lease = self.server.lease.lock().now.clone().unwrap();
        lease["metadata"]["annotations"][key] = json!(value);
        self.server.set(Some(lease));
    }
}

/// The API server, which has one object.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Stored>>,
    changed: Arc<tokio::sync::Notify>,
}

#[derive(Default)]
struct Stored {
    version: u64,
    now: Option<Value>,
    /// How many came since it was last looked.
    requests: usize,
}

impl Server {
    fn set(&self, lease: Option<Value>) -> Option<Value> {
        let mut stored = self.lease.lock();
        stored.version += 1;
        let version = stored.version.to_string();
        stored.now = lease.map(|mut lease| {
            lease["metadata"]["resourceVersion"] = json!(version);
            lease
        });
        self.changed.notify_waiters();
        stored.now.clone()
    }

    fn handle(&self, method: &Method, body: Value) -> (u16, Value) {
        let (present, requests) = {
            let mut stored = self.lease.lock();
            stored.requests += 1;
            (stored.now.clone(), stored.requests)
        };
        if requests >= FLOOD {
            return (429, failure(429));
        }
        let based_on = |present: &Value| body["metadata"]["resourceVersion"] == present["metadata"]["resourceVersion"];
        match (method.as_str(), present) {
            ("GET", Some(present)) => (200, present),
            ("GET" | "PUT", None) => (404, failure(404)),
            ("POST", None) => (201, self.set(Some(body)).unwrap()),
            ("PUT", Some(present)) if based_on(&present) => (200, self.set(Some(body)).unwrap()),
            _ => (409, failure(409)),
        }
    }
}

fn failure(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "TooManyRequests",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": ""})
}

/// A node whose kernel outlives its agent.
pub(crate) struct Node {
    name: String,
    server: Server,
    mood: Arc<Mutex<Mood>>,
    maps: fake::Kernel,
    wire: fake::Wire,
    is_broken: bool,
    /// Which of its devices are down.
    down: Vec<&'static str>,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    campaign: JoinHandle<()>,
    watching: JoinHandle<()>,
    tasks: Tasks,
    tenures: Tenures,
}

impl Node {
    fn new(number: usize, server: Server) -> Self {
        let (mood, maps, wire) = (Arc::new(Mutex::new(Mood::Well)), fake::Kernel::new(), fake::Wire::default());
        Self {
            name: format!("node{number}"),
            server,
            mood,
            maps,
            wire,
            is_broken: false,
            down: Vec::new(),
            running: None,
        }
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn is_answering(&self) -> bool {
        let map = self.maps.map::<maps::Announced>().unwrap();
        (IFINDEX..).take(DEVICES.len()).any(|index| {
            let entry = map.get(&AnnouncedKey::new(address().into(), index)).unwrap();
            entry.is_some_and(|entry| self.wire.since_boot().as_nanos() < u128::from(entry.until))
        })
    }

    /// Starts the agent, if it does not run.
    pub(crate) fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let tasks = Tasks::new(CancellationToken::new());
        let failing = if self.is_broken { 1.0 } else { 0.0 };
        let kernel: Arc<dyn datapath::Kernel> = Arc::new(fake::chaos(self.maps.clone(), failing, 0));
        let wire: Arc<dyn Wire> = Arc::new(self.wire.clone());
        let (tenures, rows) = Tenures::new();
        let answered = statedb::reconcile(&tasks, "responder", rows, Target::new(&kernel, Arc::clone(&wire)).unwrap());
        let service = ServiceName::new("shop", "web");
        set_devices(&tenures, &self.down);
        let all = Electorate {
            node: self.name.clone(),
            api: self.api(),
            timing: TIMING,
            tenures,
            answered,
            wire,
            started: Instant::now(),
        };
        let told = all.tenures.clone();
        let (sender, watched) = watch::channel(None);
        let watching = tokio::spawn(tell(self.server.clone(), Arc::clone(&self.mood), sender));
        let stop = CancellationToken::new();
        let campaign = tokio::spawn(Campaign::new(all, lease_name(&service), watched).run(stop.clone()));
        self.running = Some(Running { stop, campaign, watching, tasks, tenures: told });
    }

    /// From now on these of its devices are down.
    pub(crate) fn set_down(&mut self, down: &[&'static str]) {
        self.down = down.to_vec();
        if let Some(running) = &self.running {
            set_devices(&running.tenures, &self.down);
        }
    }

    /// Ends the agent as a signal does that it obeys.
    pub(crate) async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.cancel();
        running.campaign.await.unwrap();
        end(running.watching, running.tasks).await;
    }

    /// Ends the agent as a signal does that it does not see.
    pub(crate) async fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.campaign.abort();
        end(running.watching, running.tasks).await;
    }

    fn api(&self) -> Api<Lease> {
        let (server, mood) = (self.server.clone(), Arc::clone(&self.mood));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, mood) = (server.clone(), Arc::clone(&mood));
            async move { serve(&server, &mood, request).await }
        });
        Api::namespaced(k8s::kube::Client::new(service, "kube-system"), "kube-system")
    }
}

/// What a policy selects on a node of whose devices these are down.
fn set_devices(tenures: &Tenures, down: &[&str]) {
    let service = ServiceName::new("shop", "web");
    let devices = (IFINDEX..).zip(DEVICES).filter(|(_, device)| !down.contains(device));
    let places = devices.map(|(ifindex, device)| Place {
        service: service.clone(),
        address: address(),
        device: device.to_owned(),
        ifindex,
        mac: model::Mac([2; 6]),
    });
    let missing: BTreeSet<String> = down.iter().map(|device| (*device).to_owned()).collect();
    let missing = if missing.is_empty() { Down::new() } else { [(lease_name(&service), missing)].into() };
    tenures.set_places([(lease_name(&service), places.collect())].into(), missing);
}

async fn end(watching: JoinHandle<()>, tasks: Tasks) {
    watching.abort();
    tasks.token().cancel();
    tasks.run_until_failure().await.unwrap();
}

async fn serve(server: &Server, mood: &Mutex<Mood>, request: Request<Body>) -> std::io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let present = *mood.lock();
    match present {
        Mood::Failing => return Err(std::io::ErrorKind::ConnectionRefused.into()),
        Mood::Slow => sleep(chance(700)).await,
        Mood::Hanging => {
            if rand::rng().random_bool(0.5) {
                sleep(chance(2000)).await;
                server.handle(&parts.method, body);
            }
            return std::future::pending().await;
        }
        Mood::Well | Mood::Blind => {}
    }
    let (code, answer) = server.handle(&parts.method, body);
    if present == Mood::Slow {
        sleep(chance(700)).await;
    }
    let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    Ok(response)
}

fn chance(milliseconds: u64) -> Duration {
    Duration::from_millis(rand::rng().random_range(0..milliseconds))
}

/// What a node hears of changes, and when.
async fn tell(server: Server, mood: Arc<Mutex<Mood>>, to: watch::Sender<Option<Lease>>) {
    loop {
        let changed = server.changed.notified();
        let present = *mood.lock();
        let lease = server.lease.lock().now.clone().map(|lease| serde_json::from_value(lease).unwrap());
        match present {
            Mood::Well => drop(to.send_replace(lease)),
            Mood::Slow => {
                sleep(chance(2500)).await;
                to.send_replace(lease);
            }
            Mood::Hanging | Mood::Failing | Mood::Blind => {}
        }
        let _ = timeout(TIMING.retry, changed).await;
    }
}
