// SPDX-License-Identifier: Apache-2.0
//! An agent that is killed while it writes history: what had got to the disk is read, whole and once, by whoever comes next.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use abi::event::{Event, kind, point};
use hubble::proto::flow::Flow;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::{Capacity, Config, Inputs, Tables, read_history, start};
use nix::time::{ClockId, clock_gettime};
use statedb::{Reader, Row, Tasks};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAME: &str = "who_is_killed_while_writing_history_loses_nothing_that_was_written";
/// The folder of the history, for whoever writes it.
const FOLDER: &str = "HUBBLE_TEST_FOLDER";
/// Which of those it is.
const ROUND: &str = "HUBBLE_TEST_ROUND";
/// Identity of the flows' destination in the first round.
const FIRST: u32 = 1000;
/// Nobody writes for longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Half of what the ring holds: none is lost before it is written.
const AHEAD: u64 = 30_000;

#[test]
fn who_is_killed_while_writing_history_loses_nothing_that_was_written() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write(PathBuf::from(folder), std::env::var(ROUND).unwrap().parse().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for (round, least) in [1, 20_000, 45_678, 80_001].into_iter().enumerate() {
        told.push(write_until_killed(dir.path(), round, least));
        for (round, told) in told.iter().enumerate() {
            let found = numbers(dir.path(), round);
            assert!(found.len() as u64 >= *told, "{} of {told} of round {round}", found.len());
            assert!(found.iter().copied().eq(0..found.len() as u64), "round {round} has holes, or events twice");
        }
    }
}

/// Kills whoever writes when it says that so many are on disk; how many it had said.
fn write_until_killed(folder: &Path, round: usize, least: u64) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).env(FOLDER, folder).env(ROUND, round.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = 0;
    for line in lines {
        // The test runner has lines of its own.
        let Some(kept) = line.unwrap().strip_prefix("kept ").and_then(|kept| kept.parse().ok()) else { continue };
        told = kept;
        if told >= least {
            // What it has said since is in the pipe, and is read to its end.
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success() && told >= least, "it ended by itself, with {told}");
    told
}

/// Writes events with numbers, as fast as they get to the disk, and says how many have.
fn write(folder: PathBuf, round: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config {
            enabled: true,
            capacity: Capacity(65535),
            capacity_size: 256,
            socket: folder.join("hubble.sock"),
            history_path: Some(folder),
            ..Config::default()
        };
        let tables = Tables {
            ipcache: empty(),
            endpoints: empty(),
            pods: empty(),
            identities: empty(),
            frontends: empty(),
            provenance: empty(),
            nodes: empty(),
        };
        let tasks = Tasks::new(CancellationToken::new());
        let outputs = start(config, Inputs { node_name: "n1".to_owned(), tables }, &tasks);
        let (mut pushed, mut told) = (0, 0);
        let write = async {
            loop {
                let kept = outputs.status.kept().unwrap();
                if kept > told {
                    told = kept;
                    println!("kept {told}");
                }
                while pushed < kept + AHEAD {
                    outputs.sink.push(&event(round, pushed));
                    pushed += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, write).await.unwrap_or(());
    });
}

fn empty<R: Row>() -> Reader<R> {
    statedb::table("test").1
}

/// An event that is one flow, with its number in the ports.
fn event(round: u32, number: u64) -> Event {
    let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
    let [.., a, b, c, d] = number.to_be_bytes();
    Event {
        time: u64::try_from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec()).unwrap() * 1_000_000_000,
        src: address("10.0.0.1"),
        dst: address("10.0.0.2"),
        sport: u16::from_ne_bytes([a, b]),
        dport: u16::from_ne_bytes([c, d]),
        dst_identity: FIRST + round,
        kind: kind::TRACE,
        point: point::TO_OVERLAY,
        proto: 6,
        ..Event::default()
    }
}

/// The numbers of a round's events, as they are found.
fn numbers(folder: &Path, round: usize) -> Vec<u64> {
    let identity = FIRST + u32::try_from(round).unwrap();
    let responses = read_history(folder).unwrap();
    let flows = responses.filter_map(|response| match response.response_types? {
        ResponseTypes::Flow(flow) => Some(flow),
        other => panic!("{other:?}"),
    });
    flows.filter(|flow| flow.destination.as_ref().unwrap().identity == identity).map(|flow| number(&flow)).collect()
}

fn number(flow: &Flow) -> u64 {
    match flow.l4.as_ref().unwrap().protocol.as_ref().unwrap() {
        Protocol::Tcp(tcp) => u64::from(tcp.source_port) << 16 | u64::from(tcp.destination_port),
        other => panic!("{other:?}"),
    }
}
