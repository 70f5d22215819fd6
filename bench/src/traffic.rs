// SPDX-License-Identifier: Apache-2.0
//! RR, CRR and throughput of several networks, alternately: A B C, C B A, ... A round's ratio compares runs within seconds of
//! each other; the figure is the median over the rounds.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::clock;
use crate::load::{Kind, Measured, PORT};
use crate::place::Place;
use crate::report::Figure;
use crate::run::{self, Running};
use crate::stats;

/// Where client and server are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// On one node.
    OneNode,
    /// On two nodes.
    TwoNodes,
}

impl Shape {
    /// As it is printed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OneNode => "one node",
            Self::TwoNodes => "two nodes",
        }
    }
}

/// A network with a client and a server in it.
#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub(crate) shape: Shape,
    pub(crate) name: String,
    pub(crate) client: Place,
    pub(crate) server: Place,
    /// The server's addresses, IPv4 first.
    pub(crate) addresses: [IpAddr; 2],
    /// The addresses the client uses, if different: those of a Service or a node.
    pub(crate) asked: Option<[IpAddr; 2]>,
    /// The port the client uses.
    pub(crate) port: u16,
}

impl Arm {
    /// From the places of client and server, and their addresses.
    pub(crate) fn new(shape: Shape, name: &str, client: (Place, [IpAddr; 2]), server: (Place, [IpAddr; 2])) -> Self {
        // Each on its own processor, as on a machine with many.
        let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let (client, server, addresses) = (client.0.on(0), server.0.on(last), server.1);
        Self { shape, name: name.to_owned(), client, server, addresses, asked: None, port: PORT }
    }

    /// The same, through a Service.
    pub(crate) fn asking(mut self, addresses: [IpAddr; 2]) -> Self {
        self.asked = Some(addresses);
        self
    }

    /// The same, at another port than the server's.
    pub(crate) fn at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The same, with a load that takes precedence over everything else on the machine.
    pub(crate) fn ahead(mut self, ahead: bool) -> Self {
        (self.client.ahead, self.server.ahead) = (ahead, ahead);
        self
    }

    /// Starts the server for one family.
    pub(crate) fn serve(&self, address: IpAddr) -> Result<Running> {
        let mut command = ourselves("serve")?;
        self.server.arguments(&mut command);
        let mut server = Running::start(command.arg(address.to_string()))?;
        server.first_line().with_context(|| format!("server of {} ({})", self.name, self.shape.name()))?;
        Ok(server)
    }

    /// One measurement against a server that runs.
    pub(crate) fn load(&self, kind: Kind, address: IpAddr, span: Duration) -> Result<Measured> {
        let mut command = ourselves("load")?;
        self.client.arguments(&mut command);
        command.args(["--milliseconds", &span.as_millis().to_string(), "--port", &self.port.to_string()]);
        let client = Running::start(command.args([format!("{kind:?}").to_lowercase(), address.to_string()]))?;
        let said = client.finish(span + Duration::from_secs(20));
        let said = said.with_context(|| format!("client of {} ({})", self.name, self.shape.name()))?;
        serde_json::from_str(&said).context("the client did not answer in JSON")
    }

    /// The outcome of a connection from the client to a port of the server: `connected`, `refused` or, after that time, `silent`.
    pub(crate) fn connect(&self, address: IpAddr, port: u16, within: Duration) -> Result<String> {
        let mut command = ourselves("connect")?;
        self.client.arguments(&mut command);
        command.args(["--milliseconds", &within.as_millis().to_string()]);
        Ok(run::output(command.args([address.to_string(), port.to_string()]))?.trim().to_owned())
    }
}

/// This program, as another process.
pub(crate) fn ourselves(subcommand: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.arg(subcommand);
    Ok(command)
}

/// What is measured of each arm.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) rounds: usize,
    pub(crate) span: Duration,
    /// What is compared, where shape and family do not say it.
    pub(crate) what: Option<String>,
}

impl Plan {
    /// The same of something that is called so.
    pub(crate) fn named(self, what: &str) -> Self {
        Self { what: Some(what.to_owned()), ..self }
    }
}

/// Waits until the machine has less to do than when programs catch up with news; not longer than half a minute.
pub(crate) fn quiet() {
    const LOOK: Duration = Duration::from_secs(1);
    /// Of all processors, in a lab of three clusters at rest.
    const AT_REST: f64 = 0.4;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let looked = clock::poll(30 * LOOK, Duration::ZERO, || {
        let before = busy_us();
        clock::breathe(LOOK);
        let share = (busy_us() - before) / LOOK.as_secs_f64() / 1e6 / processors;
        ensure!(share < AT_REST, "processors are busy for {share:.2} of the time");
        Ok(())
    });
    if let Err(error) = looked {
        eprintln!("  measuring while other programs work: {error:#}");
    }
}

/// Time the machine's processors were busy, in microseconds.
fn busy_us() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq; steal is not ours.
    let sum: f64 = ticks.iter().enumerate().filter(|(at, _)| matches!(at, 0..=2 | 5 | 6)).map(|(_, ticks)| ticks).sum();
    sum * 1e4
}

struct Round {
    measured: Measured,
    cpu_us: f64,
}

/// Compares arms of one shape; the first is the reference.
pub(crate) fn compare(arms: &[Arm], family: usize, plan: &Plan) -> Result<Vec<Figure>> {
    let address = |arm: &Arm| {
        let asked = arm.asked.as_ref().unwrap_or(&arm.addresses);
        asked.get(family).copied().context("no address of that family")
    };
    let mut servers = Vec::new();
    for (number, arm) in arms.iter().enumerate() {
        // One server for all that ask it by different addresses.
        if !arms.iter().take(number).any(|other| other.server == arm.server && other.addresses == arm.addresses) {
            servers.push(arm.serve(*arm.addresses.get(family).context("no address of that family")?)?);
        }
        arm.load(Kind::Rr, address(arm)?, Duration::from_millis(200))?;
    }
    let mut figures = Vec::new();
    for kind in &plan.kinds {
        let mut rounds: Vec<Vec<Round>> = arms.iter().map(|_| Vec::new()).collect();
        for round in 0..plan.rounds {
            let forward = arms.iter().zip(&mut rounds);
            let turns: Vec<_> = if round % 2 == 0 { forward.collect() } else { forward.rev().collect() };
            for (arm, results) in turns {
                eprint!(
                    "\r\x1b[K  {kind:?}, {}, round {} of {}: {}",
                    arm.shape.name(),
                    round + 1,
                    plan.rounds,
                    arm.name
                );
                let before = busy_us();
                let measured = arm.load(*kind, address(arm)?, plan.span)?;
                let count = measured.rate * plan.span.as_secs_f64();
                results.push(Round { measured, cpu_us: (busy_us() - before) / count });
            }
        }
        eprint!("\r\x1b[K");
        let reference = rounds.first().map(Vec::as_slice).unwrap_or_default();
        let shape = |arm: &Arm| format!("{} IPv{}", arm.shape.name(), if family == 0 { 4 } else { 6 });
        let what = |arm: &Arm| plan.what.clone().unwrap_or_else(|| shape(arm));
        for (arm, results) in arms.iter().zip(&rounds) {
            let figure = figure(arm, *kind, &what(arm), results, reference);
            figures.push(Figure { target: figure.target.filter(|_| plan.what.is_none()), ..figure });
        }
        if *kind == Kind::Crr {
            let pairs = arms.iter().zip(&rounds);
            figures.extend(pairs.map(|(arm, results)| connecting(arm, &what(arm), results, reference)));
        }
    }
    Ok(figures)
}

/// The 99th percentile of what `connect()` took.
fn connecting(arm: &Arm, what: &str, rounds: &[Round], reference: &[Round]) -> Figure {
    let of = |rounds: &[Round]| rounds.iter().map(|round| round.measured.connect_p99_us).collect::<Vec<_>>();
    let (own, plain) = (of(rounds), of(reference));
    let ratios: Vec<f64> = own.iter().zip(&plain).map(|(own, plain)| plain / own).collect();
    let figure = Figure::new(format!("connect() p99 {what}"), arm.name.as_str(), stats::median(&own), "us");
    Figure {
        ratio: Some(stats::median(&ratios)),
        ratio_interval: Some(stats::interval(&ratios)),
        rounds: own,
        ..figure
    }
}

fn figure(arm: &Arm, kind: Kind, what: &str, rounds: &[Round], reference: &[Round]) -> Figure {
    let of = |get: fn(&Round) -> f64| rounds.iter().map(get).collect::<Vec<_>>();
    let rates = of(|round| round.measured.rate);
    let pairs = || rounds.iter().zip(reference).map(|(own, plain)| (own.measured, plain.measured));
    let ratios: Vec<f64> = pairs().map(|(own, plain)| own.rate / plain.rate).collect();
    let what = format!("{} {what}", format!("{kind:?}").to_uppercase());
    let mut figure = Figure::new(what, arm.name.as_str(), stats::median(&rates), kind.unit());
    if kind != Kind::Stream {
        figure.p50 = Some(stats::median(&of(|round| round.measured.p50_us)));
        figure.p99 = Some(stats::median(&of(|round| round.measured.p99_us)));
        figure.latency_unit = Some("us");
        let ratios: Vec<f64> = pairs().map(|(own, plain)| plain.p50_us / own.p50_us).collect();
        figure.latency_ratio = Some(stats::median(&ratios));
        figure.cpu_us = Some(stats::median(&of(|round| round.cpu_us)));
    }
    figure.ratio = Some(stats::median(&ratios));
    figure.ratio_interval = Some(stats::interval(&ratios));
    figure.rounds = rates;
    figure.target = (arm.name.starts_with("ours") && arm.shape == Shape::OneNode).then(|| target(kind)).flatten();
    figure
}

fn target(kind: Kind) -> Option<String> {
    match kind {
        Kind::Rr => Some(">= 1.0, aim 1.05".to_owned()),
        Kind::Crr => Some(">= 0.97, aim 1.1".to_owned()),
        Kind::Stream => None,
    }
}
