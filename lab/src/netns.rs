// SPDX-License-Identifier: Apache-2.0
//! For tests: sockets in the network namespace of a machine or of a pod, or of a stranger on the wire. A socket stays where it was made, so a test makes it there
//! and then uses it as any other.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::cgroup::{self, Hierarchy};
use crate::probe::Cluster;
use crate::state::Lab;
use crate::topology::{BRIDGE, CONTROL, mac, on_link};
use crate::{namespace, run};

/// A network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// The namespace of a machine: a node, or `control`.
    pub fn of_machine(cluster: &Cluster, name: &str) -> Result<Self> {
        Self::of_process(namespace::first_process(cluster.lab(), name)?)
    }

    /// The namespace of a pod whose first container runs.
    pub fn of_pod(cluster: &Cluster, namespace: &str, pod: &str) -> Result<Self> {
        let object = cluster.get(&["pod", "--namespace", namespace, pod])?;
        let text = |path| object.pointer(path).and_then(Value::as_str);
        let node = text("/spec/nodeName").with_context(|| format!("{namespace}/{pod} is on no node"))?;
        let container = text("/status/containerStatuses/0/containerID").and_then(|id| id.rsplit('/').next());
        let container = container.with_context(|| format!("{namespace}/{pod} has no container"))?;
        let process = process_of(cluster.lab(), node, container)?
            .with_context(|| format!("no process of {namespace}/{pod} on {node}"))?;
        Self::of_process(process)
    }

    /// A new one with a device `eth0` that is plugged into the lab's bridge: a machine that is no node, with addresses 192.168.77.HOST and fd77::HOST, HOST being
    /// each of the numbers given. It goes when nobody holds it any more.
    pub fn of_stranger(cluster: &Cluster, name: &str, hosts: &[u8]) -> Result<Self> {
        let topology = &cluster.lab().spec.topology;
        let mac = mac(hosts.first().copied().context("a machine without an address")?);
        let new = || {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("cannot open a network namespace")
        };
        let file = thread::scope(|scope| scope.spawn(new).join()).unwrap_or_else(|_| Err(anyhow!("a thread ended")))?;
        let stranger = Self { file };
        let control = Self::of_machine(cluster, CONTROL)?;
        // The remains of an earlier one may take a moment to vanish.
        let _ = control.command(&["ip", "link", "delete", name]);
        let there = stranger.path();
        let peer = ["peer", "name", "eth0", "address", &mac, "netns", &there];
        control.command(&[&["ip", "link", "add", name, "type", "veth"][..], &peer].concat())?;
        control.command(&["ip", "link", "set", name, "master", BRIDGE, "up"])?;
        for address in hosts.iter().flat_map(|host| topology.hosts(*host)) {
            let flag = if address.is_ipv6() { &["nodad"][..] } else { &[] };
            stranger.command(&[&["ip", "address", "add", &on_link(&address), "dev", "eth0"][..], flag].concat())?;
        }
        for device in ["lo", "eth0"] {
            stranger.command(&["ip", "link", "set", device, "up"])?;
        }
        Ok(stranger)
    }

    /// Another handle to the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { file: self.file.try_clone().context("cannot clone a descriptor")? })
    }

    fn of_process(process: i32) -> Result<Self> {
        let file = File::open(format!("/proc/{process}/ns/net")).context("cannot open a network namespace")?;
        Ok(Self { file })
    }

    /// A path at which other processes find it as long as this value exists.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A number that identifies it.
    pub fn identity(&self) -> Result<String> {
        let link = fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        Ok(link.display().to_string())
    }

    /// Runs a function in the namespace; sockets that it creates stay there.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| Err(anyhow!("a thread ended")))
    }

    /// Runs a command of this machine in the namespace, such as `ip`.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).args(words);
        run::output(&mut command)
    }

    /// A counter of the namespace's kernel: `RetransSegs` of `Tcp:` in `/proc/net/snmp`.
    pub fn counter(&self, file: &str, group: &str, name: &str) -> Result<u64> {
        let text = self.command(&["cat", &format!("/proc/net/{file}")])?;
        let mut lines = text.lines().filter(|line| line.starts_with(group)).map(str::split_whitespace);
        let (names, values) = (lines.next(), lines.next());
        let found = names.into_iter().flatten().zip(values.into_iter().flatten()).find(|(one, _)| *one == name);
        let (_, value) = found.with_context(|| format!("no {name} among the counters '{group}' of {file}"))?;
        value.parse().with_context(|| format!("{name} is '{value}'"))
    }

    /// A listener on a port of all addresses.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        self.run(|| TcpListener::bind(("::", port)).with_context(|| format!("cannot listen on port {port}")))
    }

    /// Connects from here, within five seconds.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.run(|| {
            let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("no connection to {to}"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// A datagram socket bound to an address of the namespace.
    pub fn datagrams(&self, at: SocketAddr) -> Result<UdpSocket> {
        self.run(|| {
            let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// A process of a container, found by its cgroup.
fn process_of(lab: &Lab, node: &str, container: &str) -> Result<Option<i32>> {
    let group = Hierarchy::find()?.group(&lab.spec.name, Some(node));
    let of_it = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default().contains(container);
    Ok(cgroup::processes(&group).into_iter().find(of_it))
}
