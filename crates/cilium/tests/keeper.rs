// SPDX-License-Identifier: Apache-2.0
//! The proxy as processes: one that serves, and one that holds its sockets and starts it again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use anyhow::Context;
use l7::{HttpServer, Limits, Listener, Object, Serve};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

struct Proxy {
    keeper: Child,
    address: SocketAddr,
    _folder: TempDir,
}

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports::free()).into()
}

/// What there is after a while.
fn eventually<T>(what: &str, mut is: impl FnMut() -> Option<T>) -> T {
    lab::probe::eventually(DEADLINE, what, || is().context("not yet")).unwrap()
}

impl Proxy {
    /// One that answers on an address, without an agent and without a route.
    fn start() -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free());
        let path = |name: &str| folder.path().join(name);
        let listener = Listener {
            name: "l".into(),
            address,
            port: None,
            transparent: false,
            clear: None,
            node: false,
            proxy_protocol: false,
            limits: Limits::default(),
            serve: Serve::Http(HttpServer::default()),
            sources: Vec::new(),
        };
        std::fs::write(path("state.json"), serde_json::to_vec(&[Object::from(listener)]).unwrap()).unwrap();
        let keeper = Command::new(env!("CARGO_BIN_EXE_cilium"))
            .arg0("cilium-envoy-starter")
            .args(["--workers=1", "--drain-time=1"])
            .arg(format!("--metrics-address={}", free()))
            .arg(format!("--health-address={}", free()))
            .arg(format!("--agent-socket={}", path("agent.sock").display()))
            .arg(format!("--state-file={}", path("state.json").display()))
            .arg(format!("--hand-over-socket={}", path("hand-over.sock").display()))
            .spawn()
            .unwrap();
        let proxy = Self { keeper, address, _folder: folder };
        eventually("the proxy listens", || TcpStream::connect(address).ok());
        proxy
    }

    /// The process that serves.
    fn server(&self) -> Option<Pid> {
        let keeper = self.keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        children.split_whitespace().next().map(|pid| Pid::from_raw(pid.parse().unwrap()))
    }

    /// What a client gets that connects now.
    fn ask(&self) -> String {
        let mut stream = TcpStream::connect(self.address).expect("nobody is refused");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        eventually("the keeper has ended", || self.keeper.try_wait().unwrap())
    }

    fn refuses(&self) {
        eventually("nobody listens", || TcpStream::connect(self.address).err());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[test]
fn the_proxy_has_as_many_files_open_as_it_may() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(512), most).unwrap();
    let proxy = Proxy::start();
    let server = eventually("it runs", || proxy.server());
    let limits = std::fs::read_to_string(format!("/proc/{server}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), words.next(), "{line}");
}

/// Memory that a process has in large pages, and what the kernel calls it.
fn large_pages(process: u32) -> (String, String) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let large = read("smaps_rollup").lines().find_map(|line| line.strip_prefix("AnonHugePages:").map(str::to_owned));
    (large.unwrap().trim().to_owned(), read("comm").trim().to_owned())
}

#[test]
fn neither_process_has_large_pages_since_each_is_resident_as_a_whole() {
    let proxy = Proxy::start();
    let server = eventually("it runs", || proxy.server());
    let none = |name: &str| ("0 kB".to_owned(), name.to_owned());
    // The kernel keeps fifteen letters.
    assert_eq!(large_pages(proxy.keeper.id()), none("cilium-envoy-st"));
    assert_eq!(large_pages(u32::try_from(server.as_raw()).unwrap()), none("cilium-proxy"));
}

#[test]
fn who_connects_while_the_server_is_killed_waits_and_is_answered() {
    let proxy = Proxy::start();
    for _ in 0..4 {
        let server = eventually("one serves", || proxy.server());
        kill(server, Signal::SIGKILL).unwrap();
        assert!(proxy.ask().starts_with("HTTP/1.1 404"));
        let next = eventually("another serves", || proxy.server().filter(|next| *next != server));
        let name = eventually("it has its name", || {
            let name = std::fs::read_to_string(format!("/proc/{next}/comm")).unwrap();
            (name != "exe\n").then_some(name)
        });
        assert_eq!(name, "cilium-proxy\n");
    }
}

#[test]
fn who_is_told_to_end_ends_with_its_server() {
    let mut proxy = Proxy::start();
    kill(Pid::from_raw(i32::try_from(proxy.keeper.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(proxy.ended().code(), Some(0));
    proxy.refuses();
}

#[test]
fn a_server_does_not_outlive_its_keeper() {
    let mut proxy = Proxy::start();
    kill(Pid::from_raw(i32::try_from(proxy.keeper.id()).unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(proxy.ended().signal(), Some(9));
    proxy.refuses();
}

#[test]
fn a_server_that_cannot_run_is_not_tried_for_ever() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let within = file.path().join("state.json");
    let output = Command::new(env!("CARGO_BIN_EXE_cilium"))
        .arg0("cilium-envoy-starter")
        .arg("--hand-over-socket")
        .arg(within)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used"), "{output:?}");
}
