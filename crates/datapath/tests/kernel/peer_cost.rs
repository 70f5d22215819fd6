// SPDX-License-Identifier: Apache-2.0
//! What `getpeername` costs. Nothing here is compared: the figures are for people, printed by
//! `cargo test -p datapath --test kernel peer_cost -- --ignored --nocapture`.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use abi::flow::proto;
use datapath::bpf::{Pinned, Program, RunTimeCount};

use crate::sandbox::{Cgroup, Sandbox};
use crate::sockets::serve;

/// The same socket is asked so often.
const CALLS: u32 = 100_000;
/// So many connections are made and each is asked once, as servers do.
const SOCKETS: u32 = 200;

/// The middle one of some rounds.
fn median(round: impl FnMut() -> u128) -> u128 {
    let mut rounds: Vec<_> = std::iter::repeat_with(round).take(15).collect();
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}

/// Time for each, in nanoseconds.
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn each<'a>(sockets: impl Iterator<Item = (&'a TcpStream, SocketAddr)>) -> u128 {
    let (start, mut count) = (Instant::now(), 0);
    for (socket, name) in sockets {
        assert_eq!(socket.peer_addr().unwrap(), name);
        count += 1;
    }
    start.elapsed().as_nanos() / count
}

fn again(socket: &TcpStream, name: SocketAddr) -> u128 {
    median(|| each((0..CALLS).map(|_| (socket, name))))
}

/// Prints the cost of connections to an address: how the client knows it, and where the listener is.
///
/// An accepted socket is in the control group of its listener.
fn print(what: &str, listener: &TcpListener, at: SocketAddr) {
    let pair = || {
        let client = TcpStream::connect(at).unwrap();
        (listener.accept().unwrap().0, client)
    };
    let (server, client) = pair();
    let of_server = again(&server, client.local_addr().unwrap());
    println!("{what:<32} accepted {of_server:>5} ns, connected {:>5} ns", again(&client, at));
    let first = |of_server: bool| {
        median(|| {
            let pairs: Vec<_> = (0..SOCKETS).map(|_| pair()).collect();
            let name = |client: &TcpStream| if of_server { client.local_addr().unwrap() } else { at };
            let names: Vec<_> = pairs.iter().map(|(_, client)| name(client)).collect();
            let asked = pairs.iter().map(|(server, client)| if of_server { server } else { client });
            each(asked.zip(names))
        })
    };
    println!("{what:<32} accepted {:>5} ns, connected {:>5} ns, asked once", first(true), first(false));
}

/// Prints what the kernel says that the programs alone take.
fn print_run_time(what: &str, listener: &TcpListener, at: SocketAddr, pinned: &Pinned) {
    let total = || {
        let times = pinned.run_times().unwrap();
        let names = times.iter().filter(|time| time.program.name().contains("getpeername"));
        names.fold((0, 0), |(ns, runs), time| (ns + time.nanoseconds, runs + time.runs))
    };
    let counting = RunTimeCount::start().unwrap();
    let of = |of_server: bool| {
        let pairs: Vec<_> = (0..SOCKETS)
            .map(|_| {
                let client = TcpStream::connect(at).unwrap();
                (listener.accept().unwrap().0, client)
            })
            .collect();
        let before = total();
        for (server, client) in &pairs {
            if of_server { server } else { client }.peer_addr().unwrap();
        }
        let after = total();
        (after.0 - before.0) / (after.1 - before.1)
    };
    let [server, client] = [true, false].map(|of_server| median(|| of(of_server).into()));
    println!("{what:<32} accepted {server:>5} ns, connected {client:>5} ns, asked once, the program alone");
    drop(counting);
}

#[test]
#[ignore = "for its figures"]
fn what_the_name_of_a_peer_costs() {
    Sandbox::run(|sandbox| {
        sandbox.loopback_up();
        let datapath = sandbox.load();
        let pinned = Pinned::open(&sandbox.bpffs);
        let cgroup = Cgroup::new("datapath-peer-cost");
        for program in Program::sockets() {
            datapath.attach_cgroup(program, cgroup.path(), program.name()).unwrap();
        }
        for (local, service) in [("127.0.0.1", "10.96.0.10"), ("::1", "fd00:96::10")] {
            let [local, service]: [IpAddr; 2] = [local, service].map(|ip| ip.parse().unwrap());
            let listen = || {
                let listener = TcpListener::bind((local, 0)).unwrap();
                let at = listener.local_addr().unwrap();
                (listener, at)
            };
            let (outside, at) = listen();
            print(&format!("{local}, no program"), &outside, at);
            let _inside = cgroup.enter();
            let (listener, at) = listen();
            print(&format!("{local}, no service"), &listener, at);
            let service = SocketAddr::new(service, 80);
            serve(&datapath, proto::TCP, service, Some(at));
            print(&format!("{local}, service"), &listener, service);
            print_run_time(&format!("{local}, service"), &listener, service, &pinned);
        }
    });
}
