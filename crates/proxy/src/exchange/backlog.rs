// SPDX-License-Identifier: Apache-2.0
//! What of answers waits in this process for clients that do not read. There is room for so much of it: where it is full, the connection
//! for which the most waits ends, so that clients who take nothing cost others nothing.

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// The part of the machine's memory that is room for it, unless it is said.
const SHARE: u64 = 4;

/// All that waits.
#[derive(Debug)]
pub(crate) struct Backlog {
    most: usize,
    bytes: AtomicUsize,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    all: HashMap<u64, Weak<Unread>>,
}

/// What waits for a connection's client.
#[derive(Debug)]
pub(crate) struct Unread {
    backlog: Arc<Backlog>,
    number: u64,
    bytes: AtomicUsize,
    /// Cancelled when it is to make room.
    pub(crate) displaced: CancellationToken,
}

/// Bytes that count as long as this is there.
#[derive(Debug)]
pub(crate) struct Part {
    of: Arc<Unread>,
    bytes: usize,
}

impl Backlog {
    /// Room for so many bytes; for none: for a part of the memory that there is.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let most = if most == 0 { share_of_memory() } else { most };
        Arc::new(Self { most, bytes: AtomicUsize::default(), connections: Mutex::default() })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn connection(self: &Arc<Self>) -> Arc<Unread> {
        let mut connections = self.connections.lock();
        let number = connections.next;
        connections.next += 1;
        let (bytes, displaced) = (AtomicUsize::default(), CancellationToken::new());
        let unread = Arc::new(Unread { backlog: Arc::clone(self), number, bytes, displaced });
        connections.all.insert(number, Arc::downgrade(&unread));
        unread
    }

    /// Ends connections until what the others have fits, those with the most first.
    fn make_room(&self) {
        // Whoever is upgraded last here is dropped after the lock.
        let all: Vec<Arc<Unread>> = self.connections.lock().all.values().filter_map(Weak::upgrade).collect();
        let (leaving, mut staying): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.displaced.is_cancelled());
        let bytes = |one: &&Arc<Unread>| one.bytes.load(Relaxed);
        let leaving: usize = leaving.iter().map(bytes).sum();
        let mut too_many = self.bytes().saturating_sub(self.most).saturating_sub(leaving);
        while too_many > 0 {
            let Some(at) = (0..staying.len()).max_by_key(|at| staying.get(*at).map(bytes)) else { break };
            let largest = staying.swap_remove(at);
            largest.displaced.cancel();
            too_many = too_many.saturating_sub(bytes(&largest));
        }
    }
}

/// A part of what this process may have, which may be less than the machine has.
fn share_of_memory() -> usize {
    let number = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(number).map(|kib| kib << 10);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().as_deref().and_then(number);
    let memory = machine.into_iter().chain(group).min().unwrap_or(u64::MAX);
    usize::try_from(memory / SHARE).unwrap_or(usize::MAX)
}

impl Unread {
    /// Counts bytes that the client has not taken.
    pub(crate) fn count(self: &Arc<Self>, bytes: usize) -> Part {
        self.bytes.fetch_add(bytes, Relaxed);
        if self.backlog.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.backlog.most {
            self.backlog.make_room();
        }
        Part { of: Arc::clone(self), bytes }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.backlog.connections.lock().all.remove(&self.number);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Relaxed);
        self.of.backlog.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Data that counts until it has been written.
#[derive(Debug)]
pub(crate) struct Data {
    bytes: Bytes,
    _part: Option<Part>,
}

impl Data {
    pub(super) fn new(bytes: Bytes, part: Option<Part>) -> Self {
        Self { bytes, _part: part }
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_the_least_makes_room_for_the_others() {
        let backlog = Backlog::new(100);
        let [slow, other, new] = [(); 3].map(|()| backlog.connection());
        let displaced = || [&slow, &other, &new].map(|one| one.displaced.is_cancelled());
        let (first, second, third) = (slow.count(30), slow.count(30), other.count(40));
        assert_eq!(displaced(), [false; 3], "it fits");
        let fourth = new.count(10);
        assert_eq!(displaced(), [true, false, false]);
        // It is about to leave: nobody else need go.
        let fifth = new.count(20);
        assert_eq!(displaced(), [true, false, false]);
        drop((first, second));
        assert_eq!(backlog.bytes(), 70);
        let sixth = new.count(40);
        assert_eq!(displaced(), [true, false, true], "by now it has the most itself");
        drop((third, fourth, fifth, sixth, slow, other, new));
        assert_eq!((backlog.bytes(), backlog.connections.lock().all.len()), (0, 0));
    }

    #[test]
    fn there_is_room_without_being_told_how_much() {
        assert!((1 << 20..usize::MAX).contains(&Backlog::new(0).most));
    }
}
