// SPDX-License-Identifier: Apache-2.0
//! What routes cost in memory: a process with a hundred thousand of them is to stay small, whatever it was told before.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "tests")]

use l7::link::{Published, State, accept};
use l7::{
    Attachment, Backend, HttpForward, HttpServer, Limits, Listener, Object, Route, RouteAction, RouteMatch, Serve,
    Snapshot, Termination, TlsAction, TlsServer, Version,
};
use proxy::Config;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The same of this thread alone.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counters are an atomic and a plain cell of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        let _ = OWN.try_with(|own| own.set(own.get().wrapping_add(layout.size())));
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        let _ = OWN.try_with(|own| own.set(own.get().wrapping_sub(layout.size())));
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEADLINE: Duration = Duration::from_secs(60);
const ROUTES: usize = 5000;
/// Bytes that a plain route may take, with all that is made of it.
const EACH: usize = 1000;
/// Names that are served in TLS, and bytes that one may take.
const NAMES: usize = 500;
const EACH_NAME: usize = 4 << 10;
/// What comes and goes whatever is served: buffers, threads that have not ended yet.
const REST: usize = 1 << 20;

/// Routes of paths that begin so.
fn routes(of: &str) -> Snapshot {
    let route = |number: usize| {
        let forward = HttpForward { backends: vec![Backend::to("shop/cart:80", 1)], ..HttpForward::default() };
        let matched = RouteMatch::below(&format!("/{of}/{number}"));
        let name = format!("HTTPRoute shop/{of}-{number} rule 0");
        Object::from(Route::plain(name, Attachment::any("shop/web/http"), [matched], RouteAction::Forward(forward)))
    };
    (0..ROUTES).map(route).collect()
}

/// A socket at which so many names are served in TLS.
fn names() -> Snapshot {
    let server = |number: usize| {
        let termination = Termination { certificates: Vec::new(), client: None, alpn: Vec::new() };
        let hosts = vec![format!("host-{number}.example").parse().unwrap()];
        TlsServer { hosts, action: TlsAction::Http(termination, HttpServer::default()) }
    };
    let listener = Listener {
        name: "gateway/shop/web/443/tcp".into(),
        address: (Ipv4Addr::LOCALHOST, ports::free()).into(),
        port: None,
        transparent: false,
        node: false,
        proxy_protocol: false,
        limits: Limits::default(),
        serve: Serve::Tls((0..NAMES).map(server).collect()),
        clear: None,
        sources: Vec::new(),
    };
    [Object::from(listener)].into_iter().collect()
}

/// A proxy and what it is told.
struct World {
    published: watch::Sender<Published>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl World {
    /// One whose agent says this from the beginning.
    fn start(folder: &Path, snapshot: Snapshot) -> Self {
        let published = Published { version: Version(1), snapshot: Arc::new(snapshot) };
        let (published, snapshots) = watch::channel(published);
        let (told, state) = watch::channel(State::default());
        let socket = folder.join("agent.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            accept(stream).await.unwrap().publish(snapshots, &told).await
        });
        let config = Config {
            agent_socket: socket,
            state_file: folder.join("state.json"),
            hand_over_socket: folder.join("hand-over.sock"),
            metrics_address: (Ipv4Addr::LOCALHOST, 0).into(),
            health_address: (Ipv4Addr::LOCALHOST, 0).into(),
            workers: 1,
            drain_time: Duration::from_secs(1),
            access_log: None,
            log_opt: Vec::new(),
            unread_bytes: 0,
            debug: false,
            kept: false,
            linger_time: Duration::ZERO,
            pod: String::new(),
        };
        let stop = CancellationToken::new();
        let given = stop.clone();
        let thread = Some(std::thread::spawn(move || proxy::run(&config, || Ok(given)).unwrap()));
        Self { published, state, stop, thread }
    }

    async fn in_force(&mut self, version: u64) {
        let is = |state: &State| state.status.as_ref().is_some_and(|status| status.version == Version(version));
        let _ = timeout(DEADLINE, self.state.wait_for(is)).await.unwrap().unwrap();
    }

    async fn publish(&mut self, version: u64, snapshot: Snapshot) {
        self.published.send_replace(Published { version: Version(version), snapshot: Arc::new(snapshot) });
        self.in_force(version).await;
    }

    async fn end(mut self) {
        self.stop.cancel();
        let thread = self.thread.take().unwrap();
        timeout(DEADLINE, tokio::task::spawn_blocking(move || thread.join().unwrap())).await.unwrap().unwrap();
    }
}

/// Waits until no more is taken than this.
async fn settles_at(most: usize, what: &str) {
    let look = async {
        while LIVE.load(Relaxed) > most {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let settled = timeout(Duration::from_secs(10), look).await;
    assert!(settled.is_ok(), "{what}: {} KiB more than may be", LIVE.load(Relaxed).saturating_sub(most) >> 10);
}

/// What an expression takes while it is matched is not for clients to say.
#[test]
fn an_expression_takes_no_more_for_all_that_is_matched() {
    let expression = l7::syntax::expression("/[ab]*a[ab]{14}").unwrap();
    let before = OWN.get();
    let mut state = 1_u64;
    for _ in 0..50 {
        let letters = (0..4000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if state >> 63 == 0 { 'a' } else { 'b' }
        });
        let path: String = std::iter::once('/').chain(letters).collect();
        expression.is_match(&path);
    }
    let taken = OWN.get().saturating_sub(before);
    assert!(taken < 1 << 20, "{} KiB", taken >> 10);
}

/// The objects of the agent itself are in this process too, so that each snapshot is made before it is looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_costs_its_text_and_little_more_so_does_a_name_and_what_is_gone_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, names) = (routes("first"), routes("second"), names());
    let mut world = World::start(folder.path(), Snapshot::default());
    world.in_force(1).await;
    let before = LIVE.load(Relaxed);
    world.publish(2, first.clone()).await;
    settles_at(before + ROUTES * EACH + REST, "routes").await;
    world.publish(3, second.clone()).await;
    settles_at(before + ROUTES * EACH + REST, "others in their place").await;
    world.publish(4, Snapshot::default()).await;
    settles_at(before + REST, "none").await;
    world.publish(5, names.clone()).await;
    settles_at(before + NAMES * EACH_NAME + REST, "names in TLS").await;
    world.publish(6, first.clone()).await;
    let state = folder.path().join("state.json");
    let kept = async {
        while !std::fs::read_to_string(&state).is_ok_and(|text| text.contains("first-1 ")) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, kept).await.unwrap();
    world.end().await;
    // The next starts from what is on disk, and is told of something else.
    let mut world = World::start(folder.path(), second.clone());
    world.in_force(1).await;
    settles_at(before + ROUTES * EACH + REST, "others than those on disk").await;
    world.end().await;
    drop((first, second, names));
}
