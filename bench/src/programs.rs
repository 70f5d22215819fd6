// SPDX-License-Identifier: Apache-2.0
//! Nanoseconds per run of each program, by `BPF_PROG_TEST_RUN`.
//!
//! Known flows are run in long series on one packet, whose hop limit counts down from 255. Packets that create a flow, or are refused,
//! are run once each, from different ports; such a run includes the kernel's two readings of the clock, as the figure of a
//! foreign frame shows. So does adding or removing the tunnel's headers. "Cold" means that each run begins with
//! empty processor caches, as after another program.

mod early;
mod world;

use std::net::IpAddr;

use abi::config::ProgramConfig;
use anyhow::{Result, bail};
use datapath::bpf::Program;
use frames::{ACK, Packet, SYN, foreign, vxlan};

use self::world::{DENIED_PORT, Family, NODE1, NODE2, PORT, REMOTE_IDENTITY, RULES, SERVICE_PORT, World};
use crate::report::Figure;
use crate::stats;

const SHOT: i32 = 2;
const REDIRECT: i32 = 7;
const IGNORED: i32 = -1;
const XDP_PASS: i32 = 2;

const NETNS: &str = "programs";

/// Runs per call in a series: fewer than a packet's hop limit.
const SERIES: u32 = 200;
/// Bytes that displace the contents of one processor's caches.
const CACHES: usize = 4 << 20;
/// Flows open at the same time: fewer than the ring of unanswered flows holds.
const OPEN: u16 = 200;
/// Runs with cold caches.
const COLD_CALLS: u32 = 1000;

/// An empty segment that survives a series.
fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    Packet::tcp(from, to, flags).payload(&[]).ttl(u8::MAX).bytes()
}

/// The frame in the tunnel between two nodes, under an identity.
fn tunnelled(from: IpAddr, to: IpAddr, identity: u32, frame: &[u8]) -> Vec<u8> {
    let port = ProgramConfig::default().tunnel_port;
    Packet::udp((from, 0xc001), (to, port)).payload(&vxlan(identity, frame)).bytes()
}

/// Measures on a thread that ends up in another network namespace.
pub(crate) fn measure(calls: u32) -> Result<Vec<Figure>> {
    let thread = std::thread::spawn(move || -> Result<Vec<Figure>> {
        let config = ProgramConfig { direct_tunnel: 1, ..ProgramConfig::default() };
        let mut world = World::new(NETNS, config)?;
        let mut figures = Vec::new();
        for (family, version) in Family::both().into_iter().zip([4, 6]) {
            let mut cases = Cases { world: &mut world, version, calls, cold: None, figures: Vec::new() };
            cases.established(family)?;
            cases.first(family)?;
            cases.tunnel(family)?;
            cases.cold = Some(vec![0; CACHES / size_of::<u64>()]);
            cases.calls = COLD_CALLS;
            cases.opened("pod to pod", (Program::PodEgress, cases.world.a()), |port, flags| {
                tcp((family.a, port), (family.b, PORT), flags)
            })?;
            cases.tunnel(family)?;
            figures.append(&mut cases.figures);
        }
        let mut cases = Cases { world: &mut world, version: 0, calls, cold: None, figures: Vec::new() };
        let nothing = cases.floor()?;
        figures.append(&mut cases.figures);
        figures.extend(early::measure(calls / 10, nothing)?);
        Ok(figures)
    });
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("the thread that runs the programs ended"),
    }
}

struct Cases<'a> {
    world: &'a mut World,
    version: u8,
    calls: u32,
    /// Read before each run to fill the caches with something else.
    cold: Option<Vec<u64>>,
    figures: Vec<Figure>,
}

impl Cases<'_> {
    fn established(&mut self, f: Family) -> Result<()> {
        let (a, b) = (self.world.a(), self.world.b());
        let (client, here) = ((f.a, 1000), (f.b, PORT));
        self.once(Program::PodEgress, a, &tcp(client, here, SYN), REDIRECT)?;
        self.once(Program::PodEgress, b, &tcp(here, client, SYN | ACK), REDIRECT)?;
        let target = "<= 450 by accounting";
        self.series("established TCP, pod to pod", Program::PodEgress, a, &tcp(client, here, ACK))?;
        self.target(target);
        self.series("reply, pod to pod", Program::PodEgress, b, &tcp(here, client, ACK))?;
        self.target(target);
        Ok(())
    }

    /// The tunnel changes a packet only once, so nothing here can be run in series.
    fn tunnel(&mut self, f: Family) -> Result<()> {
        let (out, arrive) = ((Program::PodEgress, self.world.a()), (Program::NetdevIngress, self.world.eth0));
        self.opened("into the tunnel", out, |port, flags| tcp((f.a, port), (f.remote, PORT), flags))?;
        self.opened("out of the tunnel", arrive, |port, flags| {
            tunnelled(NODE2, NODE1, REMOTE_IDENTITY, &tcp((f.remote, port), (f.b, PORT), flags))
        })
    }

    /// First packets of flows, and later ones of all open flows.
    fn opened(&mut self, what: &str, at: (Program, u32), frame: impl Fn(u16, u8) -> Vec<u8>) -> Result<()> {
        self.each_at(at, &format!("SYN, {what}"), REDIRECT, |call| frame(50_000 + call % 9000, SYN))?;
        for port in 0..OPEN {
            self.once(at.0, at.1, &frame(port, SYN), REDIRECT)?;
        }
        self.each_at(at, &format!("established TCP, {what}"), REDIRECT, |call| frame(call % OPEN, ACK))
    }

    fn first(&mut self, f: Family) -> Result<()> {
        let server = (f.b, PORT);
        self.each("SYN, pod to pod, no policy", 10_000, REDIRECT, |port| tcp((f.a, port), server, SYN))?;
        self.each("SYN to a Service, no policy", 20_000, REDIRECT, |port| {
            tcp((f.a, port), (f.service, SERVICE_PORT), SYN)
        })?;
        self.world.set_policy(true)?;
        let what = format!("SYN, allowed by one of {RULES} rules");
        self.each(&what, 30_000, REDIRECT, |port| tcp((f.a, port), server, SYN))?;
        self.each("SYN, denied, with its event", 40_000, SHOT, |port| tcp((f.a, port), (f.b, DENIED_PORT), SYN))?;
        self.world.set_policy(false)?;
        // The ring is full: from now on each new flow replaces an unanswered one.
        for port in 0..world::FLOWS {
            let (sport, dport) = (port as u16, 9000 + (port >> 16) as u16);
            for flags in [SYN, ACK] {
                self.once(Program::PodEgress, self.world.a(), &tcp((f.a, sport), (f.b, dport), flags), REDIRECT)?;
            }
            if port % 1000 == 0 {
                self.world.drain();
            }
        }
        self.each("SYN, pod to pod, ring full", 10_000, REDIRECT, |port| tcp((f.a, port), (f.b, 10_000), SYN))
    }

    /// Returns the time of a program that does nothing.
    fn floor(&mut self) -> Result<f64> {
        let eth0 = self.world.eth0;
        let (times, _) = self.timed(self.calls, |world, _| world.run(Program::NetdevIngress, eth0, &foreign(), 1))?;
        self.figure("foreign frame, run once", Program::NetdevIngress, &times);
        let (times, verdict) =
            self.timed(self.calls / 10, |world, _| world.run(Program::NetdevIngress, eth0, &foreign(), SERIES))?;
        self.expect("foreign frame", verdict, IGNORED)?;
        self.figure("foreign frame, run in series", Program::NetdevIngress, &times);
        // Where it is switched off it returns at its first instruction.
        let (times, verdict) =
            self.timed(self.calls / 10, |world, _| world.run(Program::NetdevXdp, eth0, &foreign(), SERIES))?;
        self.expect("program that does nothing", verdict, XDP_PASS)?;
        self.figure("program that does nothing, run in series", Program::NetdevXdp, &times);
        Ok(stats::percentile(&times, 0.1))
    }

    fn once(&mut self, program: Program, ifindex: u32, frame: &[u8], verdict: i32) -> Result<()> {
        let (seen, _) = self.world.run(program, ifindex, frame, 1)?;
        self.expect("first packet", seen, verdict)
    }

    fn series(&mut self, what: &str, program: Program, ifindex: u32, frame: &[u8]) -> Result<()> {
        let (times, verdict) = self.timed(self.calls / 10, |world, _| world.run(program, ifindex, frame, SERIES))?;
        self.expect(what, verdict, REDIRECT)?;
        self.figure(what, program, &times);
        Ok(())
    }

    /// Runs the program for packets of pods on one packet per port from `first` on.
    fn each(&mut self, what: &str, first: u16, expected: i32, frame: impl Fn(u16) -> Vec<u8>) -> Result<()> {
        self.each_at((Program::PodEgress, self.world.a()), what, expected, |call| frame(first + call % 9000))
    }

    fn each_at(
        &mut self,
        (program, ifindex): (Program, u32),
        what: &str,
        expected: i32,
        frame: impl Fn(u16) -> Vec<u8>,
    ) -> Result<()> {
        let cold = self.cold.take();
        let measured = self.timed(self.calls, |world, call| {
            let frame = frame(call as u16);
            if let Some(cold) = &cold {
                std::hint::black_box(cold.iter().step_by(8).sum::<u64>());
            }
            world.run(program, ifindex, &frame, 1)
        });
        self.cold = cold;
        let (times, verdict) = measured?;
        let what = if self.cold.is_some() { format!("{what}, cold") } else { what.to_owned() };
        self.expect(&what, verdict, expected)?;
        self.figure(&what, program, &times);
        Ok(())
    }

    fn timed(&mut self, calls: u32, mut run: impl FnMut(&World, u32) -> Result<(i32, f64)>) -> Result<(Vec<f64>, i32)> {
        let mut times = Vec::new();
        let mut verdict = 0;
        for call in 0..calls {
            let (seen, nanoseconds) = run(self.world, call)?;
            verdict = seen;
            times.push(nanoseconds);
            if call % 100 == 0 {
                self.world.drain();
            }
        }
        Ok((times, verdict))
    }

    fn expect(&self, what: &str, seen: i32, expected: i32) -> Result<()> {
        if seen != expected {
            bail!("{what}, IPv{}: the program returned {seen}, expected {expected}", self.version);
        }
        Ok(())
    }

    fn figure(&mut self, what: &str, program: Program, times: &[f64]) {
        let family = if self.version == 0 { String::new() } else { format!(" IPv{}", self.version) };
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let mut figure = Figure::new(format!("{what}{family}"), program.name(), mean, "ns");
        figure.p50 = Some(stats::percentile(times, 0.5));
        figure.p99 = Some(stats::percentile(times, 0.99));
        figure.latency_unit = Some("ns");
        self.figures.push(figure);
    }

    fn target(&mut self, target: &str) {
        if let Some(figure) = self.figures.last_mut() {
            figure.target = Some(target.to_owned());
        }
    }
}
