// SPDX-License-Identifier: Apache-2.0
//! The first process of a machine.
//!
//! It is this program, started twice. `boot` runs on the machine that hosts the lab: it enters the cgroup, opens what must be
//! opened outside, creates the namespaces, connects the veth pair, and starts `run`. That is process 1 inside: it mounts, sets up the
//! network, and then supervises services until it is killed, which ends every process of the machine.

mod forward;
mod mounts;

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{sethostname, setsid};

use crate::machine::{self, Machine, Plug, Role};
use crate::topology::{BRIDGE, on_link};
use crate::{clock, namespace, run, state, supervise};

/// Sets up a machine's namespaces from outside, and returns once its first process is ready.
pub(crate) fn boot(file: &Path) -> Result<()> {
    let machine = read(file)?;
    machine.hierarchy.join(&machine.lab, &machine.name)?;
    setsid().context("cannot leave the session of the terminal")?;
    let stdin = match &machine.role {
        Role::Control { .. } => Stdio::from(listen(&machine)?),
        Role::Node(_) => Stdio::null(),
    };
    // The first process forked after a new process namespace becomes its process 1, so this comes last.
    unshare(namespace::own() & !CloneFlags::CLONE_NEWPID).context("cannot create namespaces")?;
    if let Role::Node(plug) = &machine.role {
        plug_in(&machine, plug)?;
    }
    unshare(CloneFlags::CLONE_NEWPID).context("cannot create a process namespace")?;
    let mut command = machine::itself();
    let mut first = command.arg("init").arg("run").arg(file).stdin(stdin).spawn().context("cannot start process 1")?;
    state::write(&machine.folder.join("pid"), first.id().to_string())?;
    let ended = clock::poll(Duration::from_secs(20), &format!("setting up '{}'", machine.name), || {
        let ended = first.try_wait().context("cannot wait for process 1")?;
        if ended.is_some() || machine.folder.join("booted").exists() { Ok(ended) } else { bail!("not done") }
    })?;
    match ended {
        Some(status) => bail!("process 1 of '{}' ended with {status}", machine.name),
        None => Ok(()),
    }
}

/// Runs as process 1 of a machine. Returns only if the machine cannot be set up.
pub(crate) fn run(file: &Path) -> Result<()> {
    let machine = read(file)?;
    sethostname(&machine.name).context("cannot set the host name")?;
    match &machine.role {
        Role::Control { forward_to } => {
            mounts::control()?;
            run::ip(&[], &bridge(&machine))?;
            let listener = std::io::stdin().as_fd().try_clone_to_owned().context("no socket to forward from")?;
            forward::start(TcpListener::from(listener), *forward_to);
        }
        Role::Node(plug) => {
            mounts::node(&machine, plug)?;
            run::ip(&[], &interface(&machine, plug))?;
        }
    }
    state::write(&machine.folder.join("booted"), "")?;
    supervise::supervise(&machine.folder, &machine.services)
}

fn read(file: &Path) -> Result<Machine> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
}

/// A socket belongs to the network namespace it was created in: this one stays reachable from outside.
fn listen(machine: &Machine) -> Result<OwnedFd> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let port = listener.local_addr().context("no local address")?.port();
    state::write(&machine.folder.join("port"), port.to_string())?;
    Ok(listener.into())
}

/// A veth pair between the bridge and this process's network namespace.
fn plug_in(machine: &Machine, plug: &Plug) -> Result<()> {
    let bridge_side = format!("--net=/proc/{}/ns/net", plug.control);
    let (name, mac, here) = (&machine.name, &plug.mac, std::process::id());
    // The remains of an earlier machine may take a moment to vanish.
    let _ = run::ip(&["nsenter", &bridge_side], &format!("link del {name}\n"));
    let batch = format!(
        "link add {name} type veth peer name eth0 address {mac} netns {here}\nlink set {name} master {BRIDGE} up\n"
    );
    run::ip(&["nsenter", &bridge_side], &batch).with_context(|| format!("cannot plug '{name}' into the bridge"))
}

fn bridge(machine: &Machine) -> String {
    // Without an address of its own, a bridge takes the lowest of its ports', which changes as nodes come and go.
    let mut batch =
        format!("link set lo up\nlink add {BRIDGE} address 02:00:c0:a8:4d:01 type bridge forward_delay 0\n");
    addresses(&mut batch, machine, BRIDGE);
    batch
}

fn interface(machine: &Machine, plug: &Plug) -> String {
    let mut batch = "link set lo up\n".to_owned();
    addresses(&mut batch, machine, "eth0");
    for gateway in &plug.gateways {
        let _ = writeln!(batch, "route add default via {gateway} dev eth0");
    }
    batch
}

fn addresses(batch: &mut String, machine: &Machine, device: &str) {
    for address in &machine.addresses {
        // Duplicate address detection would keep an IPv6 address unusable for the first second.
        let flags = if matches!(address, IpAddr::V6(_)) { " nodad" } else { "" };
        let _ = writeln!(batch, "addr add {} dev {device}{flags}", on_link(address));
    }
    let _ = writeln!(batch, "link set {device} up");
}
