// SPDX-License-Identifier: Apache-2.0
//! Tests of which connections end, and when, on sockets in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use abi::flow::proto::{TCP, UDP};
use datapath::fake;
use model::{Backend, BackendId, Protocol, ServiceName};
use statedb::Writer;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

fn frontend(at: &str, internal: bool, backends: &[(&str, BackendState)]) -> Frontend {
    let udp = |text: &str| {
        let addr: SocketAddr = text.parse().unwrap();
        L4Addr { ip: addr.ip(), port: addr.port(), protocol: Protocol::Udp }
    };
    let key = if internal { FrontendKey::internal(udp(at)) } else { FrontendKey::external(udp(at)) };
    let backends = backends.iter().map(|(addr, state)| Backend::new(BackendId(1), udp(addr), *state));
    let service = ServiceName::new("default", "dns");
    Frontend::new(key, 1, service, backends.collect())
}

fn connection(frontend: &str, backend: &str) -> Connected {
    let [frontend, backend] = [frontend, backend].map(|text| text.parse::<SocketAddr>().unwrap());
    Connected {
        backend: backend.ip().into(),
        frontend: frontend.ip().into(),
        backend_port: backend.port().to_be(),
        frontend_port: frontend.port().to_be(),
        service: 1,
    }
}

struct World {
    frontends: Writer<Frontend>,
    sockets: fake::Sockets,
    gone: Arc<Notify>,
}

impl World {
    fn new(scope: Scope) -> Self {
        let (frontends, reader) = statedb::table("frontends");
        let (sockets, gone) = (fake::Sockets::default(), Arc::new(Notify::new()));
        let closer = Closer { sockets: Arc::new(sockets.clone()), frontends: reader, gone: Arc::clone(&gone), scope };
        tokio::spawn(closer.run());
        Self { frontends, sockets, gone }
    }

    fn publish<const N: usize>(&mut self, rows: [Frontend; N]) {
        self.frontends.replace(rows);
        self.frontends.mark_initialized();
    }

    /// What is connected when the sockets have been looked at.
    async fn after(&self, look: Duration) -> Vec<Connected> {
        sleep(look).await;
        self.sockets.connected()
    }
}

const NOW: Duration = Duration::from_millis(100);
/// When nobody looks any more.
const LATER: Duration = Duration::from_secs(2);
const ALL: Scope = Scope { pods: true, streams: true };
const ACTIVE: BackendState = BackendState::Active;

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_its_frontend_has_its_backend_no_longer() {
    let mut world = World::new(ALL);
    let stays = connection("10.96.0.10:53", "10.0.0.2:53");
    let goes = connection("10.96.0.10:53", "10.0.0.1:53");
    for connection in [goes, stays] {
        world.sockets.connect(true, UDP, connection);
    }
    world.publish([frontend("10.96.0.10:53", false, &[("10.0.0.1:53", ACTIVE), ("10.0.0.2:53", ACTIVE)])]);
    world.gone.notify_one();
    assert_eq!(world.after(LATER).await, [goes, stays]);
    let left = [("10.0.0.1:53", BackendState::Quarantined), ("10.0.0.2:53", BackendState::Terminating)];
    world.publish([frontend("10.96.0.10:53", false, &left)]);
    assert_eq!(world.after(LATER).await, [goes, stays], "nobody has said that a backend is gone");
    world.gone.notify_one();
    assert_eq!(world.after(NOW).await, [stays]);
    world.publish([]);
    world.gone.notify_one();
    assert_eq!(world.after(LATER).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_connection_stays_with_a_backend_for_clients_inside_and_with_one_of_any_nodes_port() {
    let mut world = World::new(ALL);
    let known = [
        connection("192.0.2.1:53", "10.0.0.1:53"),
        connection("192.168.0.12:30053", "10.0.0.1:53"),
        connection("[fd00::12]:30053", "[fd00:1::1]:53"),
    ];
    known.iter().for_each(|connection| world.sockets.connect(false, UDP, *connection));
    world.publish([
        frontend("192.0.2.1:53", false, &[]),
        frontend("192.0.2.1:53", true, &[("10.0.0.1:53", ACTIVE)]),
        frontend("0.0.0.0:30053", false, &[("10.0.0.1:53", ACTIVE)]),
        frontend("[::]:30053", false, &[("[fd00:1::1]:53", ACTIVE)]),
    ]);
    world.gone.notify_one();
    assert_eq!(world.after(LATER).await, known);
    world.sockets.connect(false, TCP, known[0]);
    world.gone.notify_one();
    assert_eq!(world.after(NOW).await, known, "nobody serves that port by the other protocol");
}

#[tokio::test(start_paused = true)]
async fn what_connects_while_its_backend_goes_is_found_by_a_second_look() {
    let mut world = World::new(ALL);
    world.publish([]);
    world.gone.notify_one();
    assert_eq!(world.after(NOW).await, []);
    world.sockets.connect(true, UDP, connection("10.96.0.10:53", "10.0.0.1:53"));
    assert_eq!(world.after(LATER).await, []);
}

/// A kernel that does not answer as often as told.
#[derive(Debug)]
struct Unwilling(fake::Sockets, AtomicUsize);

impl datapath::Sockets for Unwilling {
    fn close(&self, scope: Scope, is_over: datapath::sockets::IsOver<'_>) -> datapath::Result<usize> {
        if self.1.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            let source = std::io::ErrorKind::TimedOut.into();
            return Err(datapath::Error::Sockets { operation: "list them", source });
        }
        self.0.close(scope, is_over)
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_ended_is_tried_again_though_no_other_backend_goes() {
    let (mut frontends, reader) = statedb::table("frontends");
    let (sockets, gone) = (fake::Sockets::default(), Arc::new(Notify::new()));
    sockets.connect(true, UDP, connection("10.96.0.10:53", "10.0.0.1:53"));
    let unwilling = Arc::new(Unwilling(sockets.clone(), AtomicUsize::new(4)));
    tokio::spawn(Closer { sockets: unwilling, frontends: reader, gone: Arc::clone(&gone), scope: ALL }.run());
    frontends.mark_initialized();
    gone.notify_one();
    sleep(LATER).await;
    assert_eq!(sockets.connected().len(), 1);
    sleep(RETRY * 4).await;
    assert_eq!(sockets.connected(), []);
}

#[tokio::test(start_paused = true)]
async fn streams_and_sockets_of_pods_are_ended_where_configured() {
    for (scope, left) in
        [(ALL, 0), (Scope { pods: false, streams: true }, 2), (Scope { pods: true, streams: false }, 2)]
    {
        let mut world = World::new(scope);
        for (of_pod, protocol) in [(true, UDP), (true, TCP), (false, UDP), (false, TCP)] {
            world.sockets.connect(of_pod, protocol, connection("10.96.0.10:53", "10.0.0.1:53"));
        }
        world.gone.notify_one();
        assert_eq!(world.after(NOW).await.len(), 4, "before all frontends are known nothing is gone");
        world.publish([]);
        assert_eq!(world.after(NOW).await.len(), left, "{scope:?}");
    }
}
