// SPDX-License-Identifier: Apache-2.0
//! What the agent is told of requests, for Hubble.

use crate::backend::Backend;
use crate::client::{connect, get, read_until, status, text};
use crate::objects::*;
use crate::world::{DEADLINE, World, free};
use l7::link::{Exchanges, REQUESTS};
use l7::{Exchange, Outcome, Redirect, RouteAction};
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// An agent that wants to know.
struct Watcher {
    _listener: UnixListener,
    proxy: BufReader<UnixStream>,
    waiting: Vec<Exchange>,
    lost: u64,
}

impl Watcher {
    async fn of(world: &World) -> Self {
        let path = world.folder.path().join(REQUESTS);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let (proxy, _) = timeout(DEADLINE, listener.accept()).await.expect("the proxy connects").unwrap();
        let mut proxy = BufReader::new(proxy);
        let first = timeout(DEADLINE, Exchanges::hear(&mut proxy)).await.expect("a first word").unwrap();
        Self { _listener: listener, proxy, waiting: first.exchanges, lost: first.lost }
    }

    /// What is told of the request for this path.
    async fn told(&mut self, path: &str) -> Exchange {
        let find = async {
            loop {
                if let Some(at) = self.waiting.iter().position(|one| one.url.ends_with(path)) {
                    return self.waiting.remove(at);
                }
                let told = Exchanges::hear(&mut self.proxy).await.unwrap();
                self.lost += told.lost;
                self.waiting.extend(told.exchanges);
            }
        };
        timeout(DEADLINE, find).await.expect("told in time")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_of_with_both_its_ends_and_its_answer() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    let mut watcher = Watcher::of(&world).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let lines = format!("authorization: Bearer hush\r\ntraceparent: {trace}\r\n");
    assert_eq!(status(&get(address, "Shop.Example:80", "/a/../p?q=1", &lines).await), 200);
    let told = watcher.told("?q=1").await;
    assert_eq!(told.url, "http://Shop.Example:80/a/../p?q=1");
    assert_eq!((told.method.as_str(), told.protocol.as_str(), told.status), ("GET", "HTTP/1.1", 200));
    assert_eq!((told.server, told.identity, told.cluster.as_deref()), (backend.address, 7, Some("c")));
    assert_eq!((told.outcome, told.client.ip()), (Outcome::Forwarded, address.ip()));
    let header = |name: &str| told.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!((header("authorization"), header("traceparent")), (Some("HUBBLE_REDACTED"), Some(trace)));
    // What the proxy adds for backends is not the client's.
    assert_eq!(header("x-forwarded-for"), None);
    assert!(told.latency > 0 && told.time > 1_700_000_000_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_answers_itself_is_of_the_listener() {
    let (address, dead) = (free(), free());
    let mut objects = simple(address, dead);
    objects.push(
        route(
            "moved",
            "/moved",
            RouteAction::Redirect(Box::new(Redirect { scheme: None, host: None, path: None, port: None, status: 301 })),
        )
        .into(),
    );
    let world = World::of(objects).await;
    let mut watcher = Watcher::of(&world).await;
    get(address, "h", "/moved", "").await;
    let told = watcher.told("/moved").await;
    assert_eq!((told.outcome, told.status, told.server, told.cluster), (Outcome::Answered, 301, address, None));
    // Nobody listens there.
    get(address, "h", "/dead", "").await;
    let told = watcher.told("/dead").await;
    assert_eq!((told.outcome, told.status, told.server), (Outcome::Refused, 503, dead));
    text(address, "GET /two HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n").await;
    let told = watcher.told("/two").await;
    assert_eq!((told.outcome, told.status, told.server), (Outcome::Refused, 400, address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered_is_told_of_once_its_client_has_left() {
    let (address, backend) = (free(), Backend::silent().await);
    let world = World::of(simple(address, backend.address)).await;
    let mut watcher = Watcher::of(&world).await;
    let mut client = connect(address).await;
    client.write_all(b"GET /waits HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let asked = async {
        while backend.connections.load(SeqCst) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, asked).await.expect("the backend is asked");
    drop(client);
    let told = watcher.told("/waits").await;
    assert_eq!((told.status, told.outcome, told.server), (0, Outcome::Forwarded, backend.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_the_next_agent_and_hold_nobody_up() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    // Its socket stays there, as after a kill.
    drop(Watcher::of(&world).await);
    for n in 0..20 {
        assert_eq!(status(&get(address, "h", &format!("/away/{n}"), "").await), 200);
    }
    let mut next = Watcher::of(&world).await;
    let mut told = next.waiting.len() as u64;
    let count = async {
        while told + next.lost < 20 {
            let more = Exchanges::hear(&mut next.proxy).await.unwrap();
            (told, next.lost) = (told + more.exchanges.len() as u64, next.lost + more.lost);
        }
    };
    timeout(DEADLINE, count).await.expect("told of all, or that they are lost");
    assert_eq!(told + next.lost, 20);
    assert!(told > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_read_loses_requests_and_is_told_how_many() {
    let (address, backend) = (free(), Backend::echo("a").await);
    let world = World::of(simple(address, backend.address)).await;
    let mut watcher = Watcher::of(&world).await;
    const ASKED: usize = 6_000;
    let long = "x".repeat(1_900);
    let request = format!("GET /{long} HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut client = connect(address).await;
    for _ in 0..ASKED / 100 {
        client.write_all(request.repeat(100).as_bytes()).await.unwrap();
        let mut seen = 0;
        while seen < 100 {
            seen += read_until(&mut client, "length: 0").await.matches("length: 0").count();
        }
    }
    let mut told = watcher.waiting.iter().filter(|one| one.url.len() > 1_000).count() as u64;
    let count = async {
        while told + watcher.lost < ASKED as u64 {
            let next = Exchanges::hear(&mut watcher.proxy).await.unwrap();
            watcher.lost += next.lost;
            told += next.exchanges.iter().filter(|one| one.url.len() > 1_000).count() as u64;
        }
    };
    timeout(DEADLINE, count).await.expect("told of all, or that they are lost");
    assert!(watcher.lost > 0, "all of them fitted");
    assert_eq!(told + watcher.lost, ASKED as u64);
    world.metric_is(&format!("cilium_proxy_requests_untold_total {}", watcher.lost)).await;
}
