// SPDX-License-Identifier: Apache-2.0
//! Taking in an event allocates nothing: nodes see many, and mostly nobody looks.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "tests")]

use hubble::{Config, Inputs, Tables, start};
use statedb::{Reader, Row, Tasks};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use tokio_util::sync::CancellationToken;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counter is a plain cell of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn empty<R: Row>() -> Reader<R> {
    statedb::table("test").1
}

#[tokio::test]
async fn an_event_is_taken_in_without_an_allocation() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { enabled: true, socket: dir.path().join("hubble.sock"), ..Config::default() };
    let tables = Tables {
        ipcache: empty(),
        endpoints: empty(),
        pods: empty(),
        identities: empty(),
        frontends: empty(),
        provenance: empty(),
        nodes: empty(),
    };
    let outputs = start(config, Inputs { tables }, &Tasks::new(CancellationToken::new()));
    let event = abi::event::Event { src_identity: 300, dst_identity: 301, ..Default::default() };
    // The first event of an identity may make room for it.
    outputs.sink.push(&event);
    let before = COUNT.with(Cell::get);
    // More than the ring holds, so that old events are overwritten, too.
    for _ in 0..10_000 {
        outputs.sink.push(&event);
    }
    assert_eq!(COUNT.with(Cell::get) - before, 0);
    assert_eq!(outputs.status.figures().unwrap().seen, 10_001);
}
