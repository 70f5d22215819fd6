// SPDX-License-Identifier: Apache-2.0
//! Ours, in a process of its own that is told what to serve as an agent tells it.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use l7::link::{Published, State, accept};
use l7::{
    Alpn, Attachment, Backend, BackendProtocol, Certificate, Cluster, ClusterLimits, Endpoint, EndpointState,
    Endpoints, HostMatch, HttpForward, HttpServer, Limits, Listener, Object, Route, RouteAction, RouteMatch, Serve,
    Snapshot, TableRef, Termination, TlsAction, TlsServer, Version,
};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{DEADLINE, Ports, clock, local, mebibytes, on};
use crate::report::Figure;
use crate::run::Running;

const PORTS: Ports = Ports { http1: 18_380, http2: 18_380, tls: 18_382 };
/// Routes that come one by one.
const ONE_BY_ONE: usize = 3000;
const MANY: usize = 100_000;

/// Runs `cilium-proxy` in this process.
pub(crate) fn serve(arguments: Vec<OsString>) -> ExitCode {
    ::proxy::main(std::iter::once("cilium-proxy".into()).chain(arguments).collect())
}

/// A proxy and its agent.
pub(super) struct Ours {
    pub(super) ports: Ports,
    published: watch::Sender<Published>,
    state: watch::Receiver<State>,
    running: Running,
    runtime: Runtime,
}

impl Ours {
    /// One with so many routes, all to one backend.
    pub(super) fn start(folder: &Path, backend: SocketAddr, routes: usize) -> Result<Self> {
        let folder = folder.join(format!("ours-{routes}"));
        fs::create_dir_all(&folder)?;
        let socket = folder.join("agent.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let certificate = [folder.with_file_name("cert.pem"), folder.with_file_name("key.pem")];
        let [chain, key] = certificate.map(fs::read_to_string);
        let mut snapshot: Snapshot = served(backend, chain?, key?).into_iter().collect();
        (0..routes).for_each(|number| snapshot.set(route(number)));
        let published = Published { version: Version(1), snapshot: Arc::new(snapshot) };
        let (published, snapshots) = watch::channel(published);
        let (told, state) = watch::channel(State::default());
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(&socket)?
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(link) = accept(stream).await {
                    let _gone = link.publish(snapshots.clone(), &told).await;
                }
            }
        });
        let program = std::env::current_exe().context("where is this program?")?;
        let mut command = on(0, program);
        command.args(["proxy", "--workers=1", "--metrics-address=127.0.0.1:0", "--health-address=127.0.0.1:0"]);
        command.arg(format!("--agent-socket={}", socket.display()));
        command.arg(format!("--state-file={}", folder.join("state.json").display()));
        command.arg(format!("--hand-over-socket={}", folder.join("hand-over.sock").display()));
        let ours = Self { ports: PORTS, published, state, running: Running::start(&mut command)?, runtime };
        ours.in_force(Version(1))?;
        Ok(ours)
    }

    pub(super) fn process(&self) -> u32 {
        self.running.id()
    }

    /// Waits until the proxy says that a snapshot is in force, all of it.
    fn in_force(&self, version: Version) -> Result<()> {
        let mut state = self.state.clone();
        let told = self.runtime.block_on(async {
            let wait = state.wait_for(|state| state.status.as_ref().is_some_and(|status| status.version == version));
            timeout(DEADLINE, wait)
                .await
                .context("the proxy does not say that it serves")?
                .map(|state| state.clone())
                .context("no proxy")
        })?;
        let faults = told.status.map(|status| status.faults).unwrap_or_default();
        ensure!(faults.is_empty(), "{faults:?}");
        Ok(())
    }

    /// Publishes more routes.
    fn publish(&self, routes: impl Iterator<Item = usize>) -> Result<()> {
        let mut next = self.published.borrow().clone();
        let snapshot = Arc::make_mut(&mut next.snapshot);
        routes.for_each(|number| snapshot.set(route(number)));
        next.version = Version(next.version.0 + 1);
        let version = next.version;
        self.published.send_replace(next);
        self.in_force(version)
    }
}

/// How soon routes are in force, one by one and very many.
pub(super) fn routes(folder: &Path, backend: SocketAddr) -> Result<Vec<Figure>> {
    let ours = Ours::start(folder, backend, 0)?;
    let mut times = Vec::with_capacity(ONE_BY_ONE);
    for number in 0..ONE_BY_ONE {
        let begin = clock::now();
        ours.publish(std::iter::once(number))?;
        answers(number)?;
        times.push(clock::milliseconds(begin.elapsed()));
    }
    let what = format!("a route in force, of {ONE_BY_ONE} one by one: from the snapshot to its first answer");
    let one_by_one = Figure::times(what, "ours", &times).target("p99 < 100, aim 10");
    let begin = clock::now();
    ours.publish(ONE_BY_ONE..MANY)?;
    let took = clock::milliseconds(begin.elapsed());
    answers(MANY - 1)?;
    let figure = |part: &str, value: f64, unit| Figure::new(format!("{MANY} routes, {part}"), "ours", value, unit);
    let resident = mebibytes(ours.process())?;
    Ok(vec![one_by_one, figure("until all are in force", took, "ms"), figure("resident memory", resident, "MiB")])
}

/// Asks once for what only this route is for.
fn answers(number: usize) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&local(PORTS.http1), DEADLINE)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /route-{number}/ HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "route {number}: {answer}");
    Ok(())
}

/// All but the routes.
fn served(backend: SocketAddr, chain: String, key: String) -> Vec<Object> {
    let tables = vec![TableRef { host: HostMatch::Any, table: "t".into() }];
    let http = HttpServer { tables, ..HttpServer::default() };
    let termination =
        Termination { certificates: vec!["cert".into()], client: None, alpn: vec![Alpn::Http2, Alpn::Http1] };
    let server = TlsServer { hosts: vec![HostMatch::Any], action: TlsAction::Http(termination, http.clone()) };
    let listener = |name: &str, port: u16, serve: Serve| Listener {
        name: name.into(),
        address: local(port),
        port: None,
        transparent: false,
        clear: None,
        node: false,
        proxy_protocol: false,
        limits: Limits::default(),
        serve,
        sources: Vec::new(),
    };
    let endpoint = Endpoint { address: backend, state: EndpointState::Ready, zone: None, identity: 0 };
    vec![
        listener("clear", PORTS.http1, Serve::Http(http)).into(),
        listener("tls", PORTS.tls, Serve::Tls(vec![server])).into(),
        Certificate { name: "cert".into(), chain: chain.into(), key: key.into() }.into(),
        Cluster {
            name: "b".into(),
            protocol: BackendProtocol::Auto,
            tls: None,
            proxy_protocol: None,
            by_client: false,
            limits: ClusterLimits::default(),
            refuse: None,
        }
        .into(),
        Endpoints { cluster: "b".into(), prefer_zone: None, endpoints: vec![endpoint] }.into(),
    ]
}

/// The first is for everything, each other for a path of its own.
fn route(number: usize) -> Object {
    let path = if number == 0 { "/".to_owned() } else { format!("/route-{number}/") };
    let action = RouteAction::Forward(HttpForward { backends: vec![Backend::to("b", 1)], ..HttpForward::default() });
    Route::plain(format!("route {number}"), Attachment::any("t"), [RouteMatch::below(&path)], action).into()
}
