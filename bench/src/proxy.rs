// SPDX-License-Identifier: Apache-2.0
//! The proxy beside others that do the same: requests per second of processor, the tail at half load, memory, and how soon a route is in
//! force. All of them have one worker, on the first processor; backend and load share the last.

mod load;
mod ours;
mod rivals;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::Figure;
use crate::{clock, run, stats};
use load::{Load, Measured};
use ours::Ours;

pub(crate) use ours::serve;

/// Connections at a time.
const CONNECTIONS: [usize; 3] = [1, 16, 512];
/// With so many the tail is looked at.
const HALF_LOAD: usize = 16;
/// Routes of a large configuration.
const ROUTES: usize = 5000;
/// Rounds are many short runs each.
const ROUNDS: usize = 3;
/// How long a program may take until it serves.
const DEADLINE: Duration = Duration::from_secs(60);
/// The one that ratios are to.
const REFERENCE: &str = "Envoy";

/// What is spoken with clients. Backends are always spoken to by HTTP/1.1 in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// HTTP/2 in TLS.
    Tls,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Tls];

    const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Tls => "TLS",
        }
    }
}

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
struct Ports {
    http1: u16,
    http2: u16,
    tls: u16,
}

impl Ports {
    const fn of(self, protocol: Protocol) -> u16 {
        match protocol {
            Protocol::Http1 => self.http1,
            Protocol::Http2 => self.http2,
            Protocol::Tls => self.tls,
        }
    }
}

/// One of those that are compared.
struct Contestant {
    name: &'static str,
    ports: Ports,
    /// Its process; none if nothing is in between.
    process: Option<u32>,
    _running: Box<dyn std::any::Any>,
}

/// A folder of the machine's temporary one, for all files.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A program on a processor, ready for its arguments.
fn on(cpu: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &cpu.to_string()]).arg(program);
    command
}

fn last_cpu() -> usize {
    std::thread::available_parallelism().map_or(0, |all| usize::from(all) - 1)
}

/// Measures.
pub(crate) fn measure(rounds: usize, span: Duration) -> Result<Vec<Figure>> {
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: say BENCH_PROFILE=lab for figures that are worth something");
    }
    let folder = Folder(std::env::temp_dir().join(format!("bench-proxy-{}", std::process::id())));
    fs::create_dir_all(&folder.0)?;
    rivals::certificate(&folder.0)?;
    let backend = rivals::Backend::start(&folder.0)?;
    let contestants = contestants(&folder.0, backend.address, 1)?;
    let mut figures = requests(&contestants, rounds.min(ROUNDS), span)?;
    drop(contestants);
    figures.extend(memory(&folder.0, backend.address)?);
    figures.extend(ours::routes(&folder.0, backend.address)?);
    Ok(figures)
}

/// All of them, each with so many routes to one backend.
fn contestants(folder: &Path, backend: SocketAddr, routes: usize) -> Result<Vec<Contestant>> {
    let ours = Ours::start(folder, backend, routes)?;
    let plain = Ports { http1: backend.port(), http2: backend.port() + 1, tls: backend.port() + 2 };
    let all = vec![
        Contestant { name: "no proxy", ports: plain, process: None, _running: Box::new(()) },
        rivals::envoy(folder, backend, routes)?,
        rivals::nginx(folder, backend, routes)?,
        Contestant { name: "ours", ports: ours.ports, process: Some(ours.process()), _running: Box::new(ours) },
    ];
    for one in &all {
        let answers = || Load::new(one.ports, Protocol::Http1, 1).run(Duration::from_millis(100)).map(drop);
        clock::poll(DEADLINE, Duration::from_millis(50), answers).with_context(|| format!("{} serves", one.name))?;
    }
    Ok(all)
}

/// What of a case was measured, by contestant and round.
type Rounds = Vec<Vec<f64>>;

fn requests(contestants: &[Contestant], rounds: usize, span: Duration) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for protocol in Protocol::ALL {
        for connections in CONNECTIONS {
            let case = format!("{}, {connections} connections", protocol.name());
            eprintln!("{case}");
            let mut rates: Rounds = vec![Vec::new(); contestants.len()];
            let mut per_second = rates.clone();
            for round in 0..rounds {
                for index in order(round, contestants.len()) {
                    let Some(one) = contestants.get(index) else { continue };
                    let before = one.process.map(processor).transpose()?;
                    let measured = Load::new(one.ports, protocol, connections).run(span)?;
                    let busy =
                        one.process.map(processor).transpose()?.zip(before).map(|(after, before)| after - before);
                    push(&mut rates, index, measured.rate);
                    push(&mut per_second, index, busy.map_or(f64::NAN, |busy| measured.requests / busy));
                }
            }
            let what = format!("{case}, requests per second of processor");
            figures.extend(compared(contestants, &what, "requests", &per_second, ">= 1.2 of Envoy, aim 2"));
            figures.extend(compared(contestants, &format!("{case}, rate"), "requests/s", &rates, ""));
            if connections == HALF_LOAD {
                figures.extend(tails(contestants, protocol, &rates, rounds, span)?);
            }
        }
    }
    Ok(figures)
}

/// The 99th percentile at half of what Envoy did.
fn tails(
    contestants: &[Contestant],
    protocol: Protocol,
    rates: &Rounds,
    rounds: usize,
    span: Duration,
) -> Result<Vec<Figure>> {
    let reference = contestants.iter().zip(rates).find(|(one, _)| one.name == REFERENCE);
    let pace = reference.map_or(f64::NAN, |(_, rates)| stats::median(rates)) / 2.0;
    let mut tails: Rounds = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for index in order(round, contestants.len()) {
            let Some(one) = contestants.get(index) else { continue };
            let Measured { p99, .. } = Load::new(one.ports, protocol, HALF_LOAD).paced(pace).run(span)?;
            push(&mut tails, index, p99);
        }
    }
    let what = format!("{}, {HALF_LOAD} connections, p99 at {pace:.0} requests/s", protocol.name());
    Ok(compared(contestants, &what, "ms", &tails, "<= 0.8 of Envoy"))
}

/// A B C, then C B A.
fn order(round: usize, count: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..count).collect() } else { (0..count).rev().collect() }
}

fn push(all: &mut Rounds, index: usize, value: f64) {
    if let Some(rounds) = all.get_mut(index) {
        rounds.push(value);
    }
}

/// Figures of all, with ratios to the reference round by round.
fn compared(contestants: &[Contestant], what: &str, unit: &str, all: &Rounds, target: &str) -> Vec<Figure> {
    let reference = contestants.iter().position(|one| one.name == REFERENCE).and_then(|index| all.get(index));
    let figure = |(one, rounds): (&Contestant, &Vec<f64>)| {
        let ratios: Vec<f64> = reference.iter().flat_map(|of| rounds.iter().zip(*of)).map(|(a, b)| a / b).collect();
        let figure = Figure {
            ratio: Some(stats::median(&ratios)),
            ratio_interval: Some(stats::interval(&ratios)),
            rounds: rounds.clone(),
            ..Figure::new(what, one.name, stats::median(rounds), unit)
        };
        if one.name == "ours" && !target.is_empty() { figure.target(target) } else { figure }
    };
    // Who has no process takes no processor.
    let known = contestants.iter().zip(all).filter(|(_, rounds)| !rounds.iter().any(|value| value.is_nan()));
    known.map(figure).collect()
}

/// Resident memory with many routes, after each has served.
fn memory(folder: &Path, backend: SocketAddr) -> Result<Vec<Figure>> {
    let contestants = contestants(folder, backend, ROUTES)?;
    let mut resident: Rounds = Vec::new();
    for one in &contestants {
        Load::new(one.ports, Protocol::Http1, HALF_LOAD).run(Duration::from_secs(1))?;
        resident.push(vec![one.process.map(mebibytes).transpose()?.unwrap_or(f64::NAN)]);
    }
    let what = format!("resident memory with {ROUTES} routes");
    Ok(compared(&contestants, &what, "MiB", &resident, "<= 0.2 of Envoy; < 100 MB, aim 30"))
}

/// Seconds of processor that a process has used.
fn processor(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).context("a proxy is gone")?;
    // What follows the name in parentheses, which may hold anything: the 12th and 13th are its ticks, in user mode and in the kernel.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn mebibytes(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).context("a proxy is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("no VmRSS")?;
    Ok(kib / 1024.0)
}

/// Something that another program makes in a folder.
fn made(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    run::output(Command::new(program).current_dir(folder).args(arguments)).map(drop)
}
