// SPDX-License-Identifier: Apache-2.0
//! Flows in, logs at a collector that does as the test says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod http;

use super::*;
use crate::config::{Capacity, Config};
use crate::fixture;
use crate::proto::opentelemetry::ExportLogsPartialSuccess;
use crate::proto::opentelemetry::SeverityNumber;
use crate::proto::opentelemetry::any_value::Value;
use crate::proto::opentelemetry::logs_service_server::{LogsService, LogsServiceServer};
use model::config::Value as _;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use target::Protocol;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status};

const DEADLINE: Duration = Duration::from_secs(20);
/// Flows of [`fixture::allowed_syn`].
const FLOWS: u64 = 3;

/// What the collector does with a request.
#[derive(Clone)]
enum Step {
    Hang,
    Refuse(Status),
    Reject(i64),
}

/// Takes what there is no step for.
#[derive(Clone, Default)]
struct Collector {
    steps: Arc<Mutex<VecDeque<Step>>>,
    /// As long as it stands, nothing is answered.
    hangs: Arc<Mutex<bool>>,
    asked: Arc<Mutex<u64>>,
    taken: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        *self.asked.lock() += 1;
        let step = self.steps.lock().pop_front();
        let mut partial_success = None;
        match step {
            _ if *self.hangs.lock() => std::future::pending().await,
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Refuse(status)) => return Err(status),
            Some(Step::Reject(rejected_log_records)) => {
                let error_message = "too old".to_owned();
                partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
            }
            None => {}
        }
        self.taken.lock().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

impl Collector {
    /// Listens until what it returns is dropped.
    async fn serve(&self, address: SocketAddr) -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(LogsServiceServer::new(self.clone()));
        let serve = async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() };
        (address, AbortOnDropHandle::new(tokio::spawn(serve)))
    }

    fn records(&self) -> Vec<LogRecord> {
        let taken = self.taken.lock();
        let scopes = taken.iter().flat_map(|request| &request.resource_logs).flat_map(|logs| &logs.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    }

    fn flows(&self) -> u64 {
        self.records().iter().filter(|record| record.event_name == "hubble.flow").count() as u64
    }
}

/// An exporter that is running.
struct Running {
    store: Arc<Store>,
    problems: Problems,
    counts: Counts,
    _task: AbortOnDropHandle<()>,
}

fn target(url: &str) -> Target {
    Target {
        address: Address::parse(url).unwrap(),
        protocol: Protocol::Grpc,
        authorities: None,
        identity: None,
        headers: None,
        include: Vec::new(),
        exclude: Vec::new(),
    }
}

async fn start(address: SocketAddr, capacity: u16) -> Running {
    start_to(target(&format!("http://{address}")), capacity).await
}

async fn start_to(target: Target, capacity: u16) -> Running {
    let config = Config { capacity: Capacity(capacity), ..Config::default() };
    let store = Arc::new(Store::new(&config, "n1", fixture::tables().tables));
    let problems = Problems::default();
    let millis = Duration::from_millis;
    let pace = Pace { collect: millis(10), answer: millis(500), backoff: Backoff::new(millis(10), millis(50)) };
    let exporter = Exporter { pace, ..Exporter::new(Arc::clone(&store), target, Arc::clone(&problems)) };
    let counts = exporter.counts.clone();
    let task = tokio::spawn(exporter.run(millis(10), Workers::default()));
    // The test has one thread: by then its reader stands where the ring is now.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    Running { store, problems, counts, _task: AbortOnDropHandle::new(task) }
}

impl Running {
    fn lost(&self, why: &'static str) -> u64 {
        self.counts.lost.get_or_create(&[("reason", why)]).get()
    }

    fn problem(&self) -> Option<String> {
        self.problems.lock().get(NAME).cloned()
    }

    /// One packet after another, until it is so.
    async fn push_until(&self, so: impl Fn() -> bool) -> u64 {
        let mut pushed = 0;
        let push = async {
            while !so() {
                self.store.push(&fixture::allowed_syn());
                pushed += 1;
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, push).await.expect("it comes to be so");
        pushed
    }
}

async fn until(so: impl Fn() -> bool) {
    let wait = async {
        while !so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("it comes to be so");
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn value(record: &LogRecord, key: &str) -> Option<Value> {
    let found = record.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone()?.value
}

fn text(record: &LogRecord, key: &str) -> String {
    match value(record, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?}"),
    }
}

fn record_of(flow: crate::proto::flow::Flow) -> LogRecord {
    let time = flow.time;
    let response_types = Some(ResponseTypes::Flow(flow));
    record(&GetFlowsResponse { time, response_types, ..GetFlowsResponse::default() }, 7).unwrap()
}

#[test]
fn a_flow_has_the_names_of_the_conventions_and_is_the_body() {
    let flow = fixture::decoder().decode(7, &fixture::record(fixture::denied_syn())).remove(0);
    let record = record_of(flow.clone());
    assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (1_700_000_000_123_456_789, 7));
    assert_eq!((record.severity_number(), record.severity_text.as_str()), (SeverityNumber::Warn, "DROPPED"));
    for (key, want) in [
        ("source.address", "10.0.1.20"),
        ("destination.address", "10.0.0.10"),
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("hubble.verdict", "DROPPED"),
        ("hubble.drop_reason", "POLICY_DENIED"),
        ("hubble.traffic_direction", "INGRESS"),
        ("hubble.source.pod.name", "db-0"),
        ("hubble.source.namespace.name", "shop"),
        ("hubble.destination.workload.name", "web"),
        ("hubble.node.name", "blue/n1"),
    ] {
        assert_eq!(text(&record, key), want, "{key}");
    }
    assert_eq!(value(&record, "destination.port"), Some(Value::IntValue(80)));
    assert_eq!(value(&record, "hubble.is_reply"), Some(Value::BoolValue(false)));
    let Some(Value::KvlistValue(body)) = record.body.unwrap().value else { panic!("no fields") };
    let names: Vec<_> = body.values.iter().map(|field| field.key.as_str()).collect();
    let fields: serde_json::Value = serde_json::from_str(&crate::proto::to_json(&flow).unwrap()).unwrap();
    assert!(names.iter().copied().eq(fields.as_object().unwrap().keys()), "{names:?}");
}

#[test]
fn a_request_has_its_own_attributes_and_its_trace() {
    use crate::proto::flow::layer7::Record as Said;
    use crate::proto::flow::{Http, Layer7, TraceContext, TraceParent};
    let http = Http {
        code: 503,
        method: "GET".to_owned(),
        url: "http://shop/".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        headers: Vec::new(),
    };
    let parent = |id: &str| Some(TraceContext { parent: Some(TraceParent { trace_id: id.to_owned() }) });
    let flow = crate::proto::flow::Flow {
        verdict: crate::proto::flow::Verdict::Error.into(),
        l7: Some(Layer7 { record: Some(Said::Http(http)), ..Layer7::default() }),
        trace_context: parent("4bf92f3577b34da6a3ce929d0e0e4736"),
        ..Default::default()
    };
    let record = record_of(flow.clone());
    assert_eq!(record.severity_number(), SeverityNumber::Error);
    assert_eq!((record.trace_id.len(), record.trace_id[0], record.trace_id[15]), (16, 0x4b, 0x36));
    let texts = ["network.protocol.name", "network.protocol.version", "http.request.method", "url.full"];
    assert_eq!(texts.map(|key| text(&record, key)), ["http", "1.1", "GET", "http://shop/"]);
    assert_eq!(value(&record, "http.response.status_code"), Some(Value::IntValue(503)));
    let odd = record_of(crate::proto::flow::Flow { trace_context: parent("nonsense"), ..flow });
    assert!(odd.trace_id.is_empty());
}

#[tokio::test]
async fn what_happens_gets_to_the_collector_once_with_where_it_comes_from() {
    let collector = Collector::default();
    let (address, _serving) = collector.serve(anywhere()).await;
    let running = start(address, 4095).await;
    let pushed = running.push_until(|| collector.flows() > 100).await;
    until(|| running.counts.taken.get() == pushed * FLOWS).await;
    assert_eq!(collector.flows(), pushed * FLOWS);
    assert_eq!((running.lost("overwritten"), running.lost("refused"), running.problem()), (0, 0, None));
    let resource = collector.taken.lock()[0].resource_logs[0].resource.clone().unwrap();
    let named = |key: &str| resource.attributes.iter().any(|attribute| attribute.key == key);
    assert!(["service.name", "service.version", "service.instance.id", "k8s.node.name"].into_iter().all(named));
}

#[tokio::test]
async fn a_collector_that_is_away_gets_all_when_it_comes_back() {
    let port = ports::free();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (collector, running) = (Collector::default(), start(address, 4095).await);
    let before =
        running.push_until(|| running.problem().is_some_and(|problem| problem.contains("cannot connect"))).await;
    let (_, _serving) = collector.serve(address).await;
    let pushed = before + running.push_until(|| running.counts.taken.get() >= before * FLOWS).await;
    until(|| running.counts.taken.get() == pushed * FLOWS).await;
    assert_eq!(running.problem(), None);
    assert_eq!(["overwritten", "refused", "rejected"].map(|why| running.lost(why)), [0; 3]);
}

#[tokio::test]
async fn one_that_hangs_costs_what_the_ring_overwrites_and_that_is_counted_exactly_and_told() {
    let collector = Collector::default();
    let (address, _serving) = collector.serve(anywhere()).await;
    *collector.hangs.lock() = true;
    let running = start(address, 7).await;
    let early =
        running.push_until(|| running.problem().is_some_and(|problem| problem.contains("no answer within"))).await;
    (0..1000).for_each(|_| running.store.push(&fixture::allowed_syn()));
    *collector.hangs.lock() = false;
    let late = running.push_until(|| running.lost("overwritten") > 900).await;
    let pushed = (early + 1000 + late) * FLOWS;
    until(|| running.counts.taken.get() + running.lost("overwritten") * FLOWS == pushed).await;
    let told = collector.records().into_iter().filter(|record| record.event_name == "hubble.lost_events");
    let told = told.map(|record| match value(&record, "hubble.lost_events.count") {
        Some(Value::IntValue(count)) => u64::try_from(count).unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(told.sum::<u64>(), running.lost("overwritten"));
}

#[tokio::test]
async fn what_one_refuses_is_not_sent_again_but_counted_and_told_with_the_next() {
    let collector = Collector::default();
    collector.steps.lock().push_back(Step::Refuse(Status::invalid_argument("no such thing")));
    let (address, _serving) = collector.serve(anywhere()).await;
    let running = start(address, 4095).await;
    let early = running.push_until(|| running.lost("refused") > 0).await;
    assert!(running.problem().unwrap().contains("no such thing"));
    let pushed = early + running.push_until(|| running.counts.taken.get() > 0).await;
    until(|| running.counts.taken.get() + running.lost("refused") == pushed * FLOWS).await;
    assert_eq!((running.problem(), collector.flows()), (None, running.counts.taken.get()));
    let first = collector.records().remove(0);
    let told = i64::try_from(running.lost("refused")).unwrap();
    assert_eq!(value(&first, "hubble.lost_events.count"), Some(Value::IntValue(told)));
}

#[tokio::test]
async fn what_one_rejects_of_a_request_it_took_is_counted() {
    let collector = Collector::default();
    collector.steps.lock().extend([Step::Hang, Step::Refuse(Status::unavailable("later")), Step::Reject(2)]);
    let (address, _serving) = collector.serve(anywhere()).await;
    let running = start(address, 4095).await;
    let pushed = running.push_until(|| running.lost("rejected") > 0).await;
    until(|| running.counts.taken.get() + 2 == pushed * FLOWS).await;
    assert_eq!((running.lost("rejected"), running.lost("refused")), (2, 0));
}

#[tokio::test]
async fn a_file_or_a_filter_that_cannot_be_used_is_named() {
    let target = |include: &str| Target {
        authorities: Some(PathBuf::from("/no/such/ca.crt")),
        include: vec![serde_json::from_str(include).unwrap()],
        ..target("https://127.0.0.1:1")
    };
    for (include, part) in
        [(r#"{"verdict": ["FORWARDED"]}"#, "/no/such/ca.crt"), (r#"{"source_ip": ["nowhere"]}"#, "source_ip")]
    {
        let running = start_to(target(include), 7).await;
        running.push_until(|| running.problem().is_some_and(|problem| problem.contains(part))).await;
    }
}
