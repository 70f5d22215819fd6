// SPDX-License-Identifier: Apache-2.0
//! Servers that go on talking on connections that policy has allowed and refuses now: by another policy, or because the client has lost a label. One of the servers
//! may begin nothing itself (`replies-only`): what it says is a reply, or forbidden.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::clock::{self, breathe};
use lab::probe::{Cluster, eventually};

use crate::scene::{FAMILIES, Party, Scene};

pub(crate) const NAME: &str = "10 replies on a connection that was allowed";
type Change = (&'static str, u16, &'static [&'static str]);

/// What takes the permission away, and the port on which it was given.
pub(crate) const CHANGES: [Change; 2] = [
    ("a policy is withdrawn", 9101, &["delete", "networkpolicy", "--namespace=attack", "for-a-while"]),
    ("the client loses its label", 9102, &["label", "pod", "--namespace=attack", "visitor", "door-"]),
];
/// Between two words of a server.
const PACE: Duration = Duration::from_millis(50);
/// How long a change may take, and how long silence must last to be one.
const LIMIT: Duration = Duration::from_secs(12);
const SILENCE: Duration = Duration::from_millis(1500);

/// One connection, and what both ends have heard of the other one.
#[derive(Debug)]
struct Push {
    what: String,
    port: u16,
    client: Arc<AtomicU32>,
    server: Arc<AtomicU32>,
    /// The client says something as well.
    talks: Arc<AtomicBool>,
    /// What both had heard when it was cut.
    cut: Option<[u32; 2]>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    stop: Arc<AtomicBool>,
    all: Vec<Push>,
    failures: Vec<String>,
}

/// An end of a connection: whatever says something, and hears within the pace.
trait End: Send + 'static {
    fn say(&mut self);
    fn hear(&mut self) -> bool;
}

impl End for TcpStream {
    fn say(&mut self) {
        let _ = self.write_all(b"tick");
    }

    fn hear(&mut self) -> bool {
        let heard = self.read(&mut [0; 64]).is_ok_and(|count| count > 0);
        breathe(PACE);
        heard
    }
}

impl End for UdpSocket {
    fn say(&mut self) {
        let _ = self.send(b"tick");
    }

    fn hear(&mut self) -> bool {
        let heard = self.recv(&mut [0; 64]).is_ok();
        breathe(PACE);
        heard
    }
}

impl Pushes {
    pub(crate) fn begin(scene: &Scene) -> Result<Self> {
        let mut pushes = Self::default();
        for (_, port, _) in CHANGES {
            let client = client(scene, port);
            for server in scene.victims() {
                for family in FAMILIES {
                    let at = SocketAddr::new(server.addresses[family], port);
                    let what = |over| format!("{over} of {} to {}, {at}", client.name, server.name);
                    let (near, far) = eventually(LIMIT, "what is allowed at first", || tcp(client, server, at))?;
                    pushes.push(what("TCP"), port, near, far);
                    // Whom policy lets send anything begins a flow of its own with the next datagram; with the next segment of a connection nobody does.
                    if server.name == scene.near.name {
                        let (near, far) = udp(client, server, at)?;
                        pushes.push(what("UDP"), port, near, far);
                    }
                }
            }
        }
        for push in &pushes.all {
            eventually(LIMIT, &push.what, || {
                ensure!(push.client.load(Ordering::Relaxed) >= 3, "nothing is heard at first");
                Ok(())
            })?;
        }
        Ok(pushes)
    }

    fn push(&mut self, what: String, port: u16, mut client: impl End, mut server: impl End) {
        let push =
            Push { what, port, client: Arc::default(), server: Arc::default(), talks: Arc::default(), cut: None };
        let (stop, count, talks) = (self.stop.clone(), push.client.clone(), push.talks.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                count.fetch_add(u32::from(client.hear()), Ordering::Relaxed);
                if talks.load(Ordering::Relaxed) {
                    client.say();
                }
            }
        });
        let (stop, count) = (self.stop.clone(), push.server.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                server.say();
                count.fetch_add(u32::from(server.hear()), Ordering::Relaxed);
            }
        });
        self.all.push(push);
    }

    /// Takes a permission away, and waits until nothing comes through any more. From then on the client talks as well.
    pub(crate) fn change(&mut self, cluster: &Cluster, scene: &Scene, (how, port, command): Change) -> Result<()> {
        cluster.kubectl(command)?;
        refused_anew(scene, port).context(how)?;
        let since = clock::now();
        let mut open: Vec<&mut Push> = self.all.iter_mut().filter(|push| push.port == port).collect();
        while since.elapsed() < LIMIT && !open.is_empty() {
            let before: Vec<u32> = open.iter().map(|push| push.client.load(Ordering::Relaxed)).collect();
            breathe(SILENCE);
            let pairs = open.into_iter().zip(before);
            open = pairs.filter_map(|(push, before)| push.is_open(before).then_some(push)).collect();
        }
        let seconds = since.elapsed().as_secs_f32();
        self.failures.extend(
            open.iter().map(|push| format!("{how}: {} goes on: the server is heard {seconds:.0} s later", push.what)),
        );
        Ok(())
    }

    /// What was not cut, and what came through after all.
    pub(crate) fn finish(mut self) -> Vec<String> {
        for push in &self.all {
            let Some(cut) = push.cut else { continue };
            let more = [&push.client, &push.server].map(|count| count.load(Ordering::Relaxed));
            if more != cut {
                let [client, server] = [more[0] - cut[0], more[1] - cut[1]];
                self.failures.push(format!(
                    "{}, once cut: the client heard {client} words more, the server {server}",
                    push.what
                ));
            }
        }
        std::mem::take(&mut self.failures)
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Push {
    /// Whether the client has heard something since; if not, that is noted.
    fn is_open(&mut self, before: u32) -> bool {
        let now = self.client.load(Ordering::Relaxed);
        if now == before {
            self.cut = Some([now, self.server.load(Ordering::Relaxed)]);
            self.talks.store(true, Ordering::Relaxed);
        }
        now != before
    }
}

/// Whom the permission on a port is for.
fn client(scene: &Scene, port: u16) -> &Party {
    if port == CHANGES[0].1 { &scene.attacker } else { &scene.visitor }
}

/// Waits until connections that are new do not come about: the change is known everywhere.
fn refused_anew(scene: &Scene, port: u16) -> Result<()> {
    for (server, family) in scene.victims().into_iter().flat_map(|server| FAMILIES.map(|family| (server, family))) {
        let at = SocketAddr::new(server.addresses[family], port);
        let _listener = server.netns.run(|| Ok(TcpListener::bind(at)?))?;
        eventually(LIMIT, "new connections are refused", || {
            let limit = Duration::from_millis(500);
            let open = client(scene, port).netns.run(|| Ok(TcpStream::connect_timeout(&at, limit).is_ok()))?;
            ensure!(!open, "one to {at} comes about");
            Ok(())
        })?;
    }
    Ok(())
}

fn tcp(client: &Party, server: &Party, at: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = server.netns.run(|| Ok(TcpListener::bind(at)?))?;
    let near = client.netns.connect(at)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PACE))?;
        end.set_write_timeout(Some(PACE))?;
    }
    Ok((near, far))
}

fn udp(client: &Party, server: &Party, at: SocketAddr) -> Result<(UdpSocket, UdpSocket)> {
    let far = server.netns.datagrams(at)?;
    let near = client.netns.run(|| {
        let socket = UdpSocket::bind(if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(at)?;
        Ok(socket)
    })?;
    near.send(b"hello")?;
    let (_, from) = far.recv_from(&mut [0; 16])?;
    far.connect(from)?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(PACE))?;
    }
    Ok((near, far))
}
