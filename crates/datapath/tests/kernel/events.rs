// SPDX-License-Identifier: Apache-2.0
//! Reading what the programs tell.

use std::future::Future;
use std::time::Duration;

use abi::DropReason;
use abi::event::kind;
use datapath::bpf::{Datapath, Program};
use datapath::events::Reader;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::older::pin_ring_of_events;
use crate::sandbox::{Sandbox, chain};

/// The loopback device, which is no pod's: all that comes from it is dropped, with an event.
const LO: u32 = 1;

fn with_reader<F: Future<Output = ()>>(test: impl FnOnce(Datapath, Reader) -> F + Send + 'static) {
    Sandbox::run(|sandbox| {
        let datapath = sandbox.load();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reader = Reader::open(&sandbox.bpffs).unwrap();
            tokio::time::timeout(Duration::from_secs(20), test(datapath, reader)).await.expect("no events in time");
        });
    });
}

/// Has `count` packets dropped.
pub(crate) fn drop_packets(datapath: &Datapath, count: u32) {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x12, 0x34, 0, 53, 0, 8, 0, 0]);
    datapath.test_run(Program::PodEgress, &frame, LO, count).unwrap();
}

#[test]
fn a_few_events_arrive_though_nobody_is_woken() {
    with_reader(|datapath, mut reader| async move {
        drop_packets(&datapath, 3);
        let mut events = Vec::new();
        while events.len() < 3 {
            reader.read(|event| events.push(*event)).await.unwrap();
        }
        assert_eq!(events.len(), 3);
        let event = events[0];
        assert_eq!((event.kind, event.reason), (kind::DROP, DropReason::DropEpNotReady as u8));
        assert_eq!((event.src.to_string(), event.dport.to_be()), ("10.0.0.1".into(), 53));
        assert_eq!((event.ifindex, event.len), (LO, 28));
        assert!(events.is_sorted_by_key(|event| event.time));
        assert_eq!(reader.lost().unwrap(), 0);
    });
}

#[test]
fn what_does_not_fit_is_counted_as_lost() {
    with_reader(|datapath, mut reader| async move {
        const SENT: u32 = 10_000;
        drop_packets(&datapath, SENT);
        let lost = reader.lost().unwrap();
        assert!(lost > 0);
        let (mut received, expected) = (0, SENT as usize - lost as usize);
        while received < expected {
            received += reader.read(|_| ()).await.unwrap();
        }
        assert_eq!((received, reader.lost().unwrap()), (expected, 0));
    });
}

/// The processors that the calling thread may run on.
pub(crate) fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|processor| allowed.is_set(*processor).unwrap()).collect()
}

/// Bytes that an event takes, with its header.
pub(crate) const RECORD: u64 = 136 + 8;

/// Has the calling thread run on that processor.
pub(crate) fn move_to(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

#[test]
fn what_processors_tell_in_turns_is_in_order() {
    with_reader(|datapath, mut reader| async move {
        let processors = processors();
        let mut turns = processors.iter().cycle();
        for _ in 0..40 {
            move_to(*turns.next().unwrap());
            drop_packets(&datapath, 1);
        }
        let mut times = Vec::new();
        while times.len() < 40 {
            reader.read(|event| times.push(event.time)).await.unwrap();
        }
        assert!(times.is_sorted(), "{times:?}");
        assert_eq!((times.len(), reader.lost().unwrap()), (40, 0));
    });
}

#[test]
fn a_processor_that_tells_too_much_costs_no_other_one_any_event() {
    with_reader(|datapath, mut reader| async move {
        let processors = processors();
        move_to(processors[0]);
        drop_packets(&datapath, 10_000);
        let lost = reader.lost().unwrap();
        assert_eq!(lost, 10_000 - u64::from(reader.ring_bytes()) / RECORD);
        // One alone has the whole memory, and those from the ninth on share.
        let Some(other) = processors.iter().find(|other| **other % 8 != processors[0] % 8) else { return };
        move_to(*other);
        drop_packets(&datapath, 100);
        assert_eq!(reader.lost().unwrap(), 0);
        let (mut received, expected) = (0, 10_100 - lost as usize);
        while received < expected {
            received += reader.read(|_| ()).await.unwrap();
        }
        assert_eq!((received, reader.read_present(|_| ())), (expected, 0));
    });
}

#[test]
fn what_was_told_before_the_agent_started_again_is_still_there() {
    Sandbox::run(|sandbox| {
        drop_packets(&sandbox.load(), 3);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let datapath = sandbox.load();
            let mut reader = Reader::open(&sandbox.bpffs).unwrap();
            drop_packets(&datapath, 4);
            assert_eq!(reader.read_present(|_| ()), 7);
        });
    });
}

#[test]
fn what_an_older_build_has_told_is_read_too() {
    Sandbox::run(|sandbox| {
        pin_ring_of_events(sandbox, 1234);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let datapath = sandbox.load();
            drop_packets(&datapath, 1);
            let mut reader = Reader::open(&sandbox.bpffs).unwrap();
            let mut times = Vec::new();
            reader.read_present(|event| times.push(event.time));
            assert_eq!((times.len(), times[0]), (2, 1234));
        });
    });
}

#[test]
fn a_reader_without_an_agent_says_so() {
    Sandbox::run(|sandbox| {
        let error = chain(&Reader::open(&sandbox.bpffs).unwrap_err());
        assert!(error.contains("cilium_events") && error.contains("is the agent running"), "{error}");
    });
}
