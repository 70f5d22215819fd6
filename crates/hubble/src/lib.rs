// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod application;
mod chatter;
pub mod client;
mod config;
mod decode;
mod drops;
mod export;
mod filter;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "for tests"))]
mod fixture;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod history;
mod mask;
mod metrics;
mod names;
mod otlp;
mod peers;
mod pem;
pub mod proto;
mod redact;
mod ring;
pub mod server;
mod service;
mod status;
mod store;
#[cfg(any(test, fuzzing, feature = "strangers"))]
pub mod strangers;
pub mod suggest;

pub use chatter::Chatter;
pub use config::{Capacity, Config};
pub use decode::POLICY_VERDICT;
pub use drops::{Dropped, Drops};
pub use history::read_history;
pub use metrics::rcode as dns_rcode;
pub use names::Tables;
pub use otlp::{Address, Counts as CollectorCounts, Protocol as CollectorProtocol};
pub use server::CertificateEnd;
pub use service::{AgentEvents, Selection};
pub use store::{Figures, now};

use abi::event::Event;
use client::HEALTH_SERVICE;
use export::{Counts as ExporterCounts, Exporters};
use l7::Exchange;
use metrics::Plugins;
use model::ServiceName;
use otlp::Exporter;
use peers::Peers;
use proto::observer::observer_server::{self, ObserverServer};
use proto::peer::peer_server::{self, PeerServer};
use server::{Listeners, Problems, Times};
use service::{Service, Workers};
use statedb::Tasks;
use std::sync::Arc;
use std::time::Duration;
use store::{Loser, Store};
use surface::Surface;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server;

/// How often the wall clock is compared with the kernel's.
const CLOCK: Duration = Duration::from_secs(10);

/// A page with a sample of each metric of flows, for the reference.
#[must_use]
pub fn example_metrics() -> String {
    metrics::example_page()
}

/// What this feature reads.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Name of this node.
    pub node_name: String,
    /// The tables that name addresses and numbers.
    pub tables: Tables,
}

/// Outputs for the agent.
#[derive(Clone)]
pub struct Outputs {
    /// Where kernel events go.
    pub sink: Sink,
    /// Where the agent reports what it did.
    pub agent_events: AgentEvents,
    /// Its state.
    pub status: Status,
    /// Tables, status, routes and metrics.
    pub surface: Surface,
    /// Dropped packets that pods are to be told of, if that is wanted.
    pub drops: Option<Drops>,
}

impl Outputs {
    fn new(sink: Sink, agent_events: AgentEvents, status: Status, shown: Shown, drops: Option<Drops>) -> Self {
        let state = status.clone();
        let chatter = status.store.as_ref().map(|store| store.chatter.clone()).unwrap_or_default();
        let surface = Surface::new().metrics(|registry| {
            chatter.register(registry);
            shown.certificate_end.iter().for_each(|end| end.register(registry));
            shown.collector.iter().for_each(|counts| counts.register(registry));
        });
        let surface = surface.status(move |all| all.hubble = Some(status::render(state.figures(), &state.problems())));
        Self { sink, agent_events, status, surface, drops }
    }
}

/// Metrics of what is there only if it is configured.
#[derive(Default)]
struct Shown {
    certificate_end: Option<CertificateEnd>,
    collector: Option<CollectorCounts>,
}

/// Reports changes of the tables to clients that ask for agent events.
pub fn tell_agent_events(outputs: &Outputs, tables: Tables, tasks: &Tasks) {
    if outputs.sink.0.is_some() {
        tasks.spawn("hubble-agent-events", outputs.agent_events.clone().follow(tables));
    }
}

/// Where kernel events go. Cheap to clone; a push neither waits nor allocates.
#[derive(Clone)]
pub struct Sink(Option<Arc<Store>>);

impl Sink {
    /// Takes in an event.
    pub fn push(&self, event: &Event) {
        if let Some(store) = &self.0 {
            store.push(event);
        }
    }

    /// Records events that the kernel could not deliver.
    pub fn lost(&self, count: u64) {
        if let Some(store) = self.0.as_ref().filter(|_| count > 0) {
            store.push_lost(count, Loser::Kernel);
        }
    }

    /// Whether anybody observes flows.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.0.is_some()
    }

    /// Takes in a request that the node's proxy has served, and the Service that it went to.
    pub fn exchange(&self, exchange: Exchange, service: Option<ServiceName>) {
        if let Some(store) = &self.0 {
            store.push_exchange(exchange, service);
        }
    }

    /// Records requests that the proxy could not tell of.
    pub fn lost_exchanges(&self, count: u64) {
        if let Some(store) = self.0.as_ref().filter(|_| count > 0) {
            store.push_lost(count, Loser::Proxy);
        }
    }
}

/// The state of the feature.
#[derive(Clone)]
pub struct Status {
    store: Option<Arc<Store>>,
    problems: Problems,
}

impl Status {
    /// Figures of the ring; none when flows are not observed.
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        self.store.as_ref().map(|store| store.figures())
    }

    /// How many events of this run have got to the disk; none when there is no history.
    #[must_use]
    pub fn kept(&self) -> Option<u64> {
        self.store.as_ref()?.history.as_ref().map(history::History::kept)
    }

    /// Why flows are not served where they should be.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().values().cloned().collect()
    }
}

/// Starts keeping and serving flows. When the feature is off, the sink drops everything.
pub fn start(config: Config, inputs: Inputs, tasks: &Tasks) -> Outputs {
    start_at(config, inputs, tasks, Times::default())
}

/// As [`start`], with other timings.
fn start_at(config: Config, inputs: Inputs, tasks: &Tasks, times: Times) -> Outputs {
    let agent_events = AgentEvents::new();
    let problems = Problems::default();
    if !config.enabled {
        let status = Status { store: None, problems };
        return Outputs::new(Sink(None), agent_events, status, Shown::default(), None);
    }
    let store = Arc::new(Store::new(&config, &inputs.node_name, inputs.tables.clone()));
    tasks.spawn("hubble-clock", follow_clock(Arc::clone(&store)));
    if let Some(history) = store.history.clone() {
        let (store, problems) = (Arc::clone(&store), Arc::clone(&problems));
        tasks.spawn_draining("hubble-history", |end| history.run(store, problems, end));
    }
    let observer = Service {
        store: Arc::clone(&store),
        agent_events: agent_events.clone(),
        lost_interval: config.lost_interval,
        workers: Workers::default(),
    };
    let peers = Peers::new(&config, inputs.tables.nodes);
    // Apart from those for clients, so that these cost the node's own records nothing.
    let workers = Workers::default();
    let exporters = Exporters::new(Arc::clone(&store), Arc::clone(&problems), config.lost_interval, workers.clone());
    if let Some(log) = config.flow_log() {
        let exporters = exporters.clone();
        tasks.spawn_draining("hubble-export", |stop| exporters.export(log, stop));
    }
    let listed = config.flow_logs.clone().map(|path| {
        let counts = ExporterCounts::default();
        let told = counts.clone();
        tasks.spawn_draining("hubble-flow-logs", |stop| exporters.follow(path, told, stop));
        counts
    });
    let collector = config.otlp.target().map(|target| {
        let exporter = Exporter::new(Arc::clone(&store), target, Arc::clone(&problems));
        let counts = exporter.counts.clone();
        tasks.spawn("hubble-otlp", exporter.run(config.lost_interval, workers.clone()));
        counts
    });
    let drops = Drops::configured(&config, &store, &workers, &problems);
    let (tls, metrics_tls) = (config.tls(), config.metrics_tls());
    let certificate_end = CertificateEnd::default();
    let shown = Shown { certificate_end: tls.is_some().then(|| certificate_end.clone()), collector };
    let served = Served { observer, peers, problems: Arc::clone(&problems), times, certificate_end };
    let socket = served.clone();
    tasks.spawn("hubble-socket", async move { socket.listeners().await.serve_socket(config.socket).await });
    if let Some(address) = config.listen {
        tasks.spawn("hubble-network", async move { served.listeners().await.serve_network(address, tls).await });
    }
    let counts = config.metrics != Plugins::default() || config.metrics_listed.is_some();
    if let Some(address) = config.metrics_listen.filter(|_| counts) {
        let (always, tls) = (config.metrics, metrics_tls);
        let (listed_metrics, exemplars) = (config.metrics_listed, config.open_metrics);
        let served = metrics::Served { always, listed: listed_metrics, address, tls, exporters: listed, exemplars };
        let run = metrics::run(Arc::clone(&store), served, Arc::clone(&problems), config.lost_interval, workers);
        tasks.spawn("hubble-metrics", run);
    }
    let status = Status { store: Some(Arc::clone(&store)), problems };
    Outputs::new(Sink(Some(store)), agent_events, status, shown, drops)
}

async fn follow_clock(store: Arc<Store>) {
    loop {
        tokio::time::sleep(CLOCK).await;
        store.adjust_clock();
    }
}

/// What an agent serves.
#[derive(Clone)]
struct Served {
    observer: Service,
    peers: Peers,
    problems: Problems,
    times: Times,
    certificate_end: CertificateEnd,
}

impl Served {
    async fn listeners(self) -> Listeners {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(HEALTH_SERVICE, ServingStatus::Serving).await;
        health.set_serving::<ObserverServer<Service>>().await;
        health.set_serving::<PeerServer<Peers>>().await;
        let routes = Routes::new(health_service)
            .add_service(ObserverServer::new(self.observer))
            .add_service(PeerServer::new(self.peers));
        let names = [observer_server::SERVICE_NAME, peer_server::SERVICE_NAME, health_server::SERVICE_NAME];
        let routes = server::with_reflection(routes, &names);
        Listeners { routes, problems: self.problems, times: self.times, certificate_end: self.certificate_end }
    }
}
