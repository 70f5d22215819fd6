// SPDX-License-Identifier: Apache-2.0
//! A node in a network namespace: an agent without programs behind a unix socket, and pods' namespaces. Needs root.

use super::agent::{Agent, Setup};
use super::local_node;
use crate::cni::{self, Environment};
use crate::host::{HostInterfaces, Links};
use datapath::bpf::{BPFFS, Datapath, Options};
use datapath::netlink::{Address, LinkChange, Netlink, Scope, VethEnd};
use datapath::{Hooks, fake};
use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs a test on a thread in a network namespace of its own, which has the router's addresses.
pub(crate) fn on_a_node(test: impl FnOnce(Node) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        block_on(async {
            let netlink = Netlink::open().unwrap();
            let end = |name| VethEnd { name, ..VethEnd::default() };
            netlink.create_veth(end("cilium_host"), end("cilium_net")).await.unwrap();
            for name in ["lo", "cilium_host", "cilium_net"] {
                let index = netlink.link(name).await.unwrap().unwrap().index;
                netlink.change_link(index, LinkChange { up: Some(true), ..LinkChange::default() }).await.unwrap();
            }
            let ifindex = netlink.link("cilium_host").await.unwrap().unwrap().index;
            for ip in routers() {
                netlink
                    .replace_address(Address { ifindex, net: IpNet::from(ip), scope: Scope::Universe })
                    .await
                    .unwrap();
            }
        });
        test(Node { folder: tempfile::tempdir().unwrap(), hooks: fake::Hooks::default() });
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn routers() -> [IpAddr; 2] {
    [local_node().router_ipv6.unwrap().into(), local_node().router_ipv4.unwrap().into()]
}

/// Runs something on this thread, in its namespace.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) hooks: fake::Hooks,
}

/// An agent that serves on the node's socket until it is dropped.
pub(crate) struct Serving {
    pub(crate) agent: Agent,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.agent.kill();
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Node {
    pub(crate) fn runtime(&self) -> &Path {
        self.folder.path()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("cilium.sock")
    }

    /// Starts an agent in this thread's namespace.
    pub(crate) fn serve(&self, setup: Setup) -> Serving {
        self.serve_with(setup, Arc::new(self.hooks.clone()))
    }

    /// The same, with the real programs and maps.
    pub(crate) fn serve_programs(&self, setup: Setup) -> Serving {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).unwrap();
        let datapath = Arc::new(Datapath::load(&Options::default()).unwrap());
        let maps = Some((crate::Maps::open(&datapath).unwrap(), datapath::Epochs::open(&datapath).unwrap()));
        self.serve_with(Setup { maps, ..setup }, datapath)
    }

    fn serve_with(&self, setup: Setup, hooks: Arc<dyn Hooks>) -> Serving {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let stop = CancellationToken::new();
        let (started, agent) = mpsc::channel();
        let until = stop.clone();
        let thread = thread::spawn(move || {
            block_on(async {
                let netlink = Netlink::open().unwrap();
                let (interfaces, settler) = HostInterfaces::new(hooks, netlink.clone(), Duration::from_millis(50));
                tokio::spawn(settler.run());
                let agent = setup.start_with(interfaces, Links(netlink));
                let healthz = axum::routing::get(|| async { "{}" });
                let router = agent.router.clone().route("/v1/healthz", healthz);
                let listener = tokio::net::UnixListener::bind(socket).unwrap();
                started.send(agent).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    () = until.cancelled() => {}
                }
            });
        });
        Serving { agent: agent.recv_timeout(Duration::from_secs(10)).unwrap(), stop, thread: Some(thread) }
    }

    /// Calls the plugin for pod `default/NAME`, whose container id is its name.
    pub(crate) fn call(&self, command: &str, name: &str, netns: &str, config: &Value) -> Result<Value, Value> {
        let environment = Environment {
            command: command.into(),
            container_id: name.into(),
            netns: netns.into(),
            interface: "eth0".into(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}"),
            socket: self.socket(),
            queue: self.folder.path().join("deleteQueue"),
            patience: Duration::from_millis(100),
        };
        self.call_with(&environment, config)
    }

    pub(crate) fn call_with(&self, environment: &Environment, config: &Value) -> Result<Value, Value> {
        let parse = |text: String| if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        cni::run(environment, config.to_string().as_bytes()).map(parse).map_err(parse)
    }

    /// Waits until something holds.
    pub(crate) fn until(&self, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        block_on(async { tokio::time::timeout(Duration::from_secs(10), wait).await }).unwrap();
    }

    /// Names of the pods' interfaces on the host.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let links = block_on(async { Netlink::open().unwrap().links().await.unwrap() });
        links.into_iter().map(|link| link.name).filter(|name| name.starts_with("lxc")).collect()
    }
}

/// The configuration as the agent writes it.
pub(crate) fn config() -> Value {
    json!({"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni"})
}

/// A pod's network namespace; it goes when this is dropped, with its interfaces.
pub(crate) struct Sandbox(OwnedFd);

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self(datapath::netns::create().unwrap())
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Runs something in it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        datapath::netns::run(self.0.as_fd(), work).unwrap()
    }

    /// Asks netlink in it.
    pub(crate) fn ask<T: Send, F: Future<Output = T>>(&self, ask: impl FnOnce(Netlink) -> F + Send) -> T {
        self.run(|| block_on(async { ask(Netlink::open().unwrap()).await }))
    }
}
