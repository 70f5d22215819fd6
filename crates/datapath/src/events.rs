// SPDX-License-Identifier: Apache-2.0
//! Events of the programs, from the ring buffers of all processors.
//!
//! The programs wake the reader only when much is unread (a wake-up costs a packet more than the event), so the reader
//! looks by itself every 50 ms.

mod merge;

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use abi::event::Event;
use abi::maps::{Events, EventsLost};
use aya::maps::{MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use self::merge::{Merge, Source};
use crate::bpf::{Pinned, event_rings};
use crate::map::raw::from_bytes;
use crate::{Error, Kernel, MapSpec, PerCpuMap, Result};

/// How long an event may wait.
const TICK: Duration = Duration::from_millis(50);
/// Events per round, so that one task cannot keep a thread forever.
const ROUND: usize = 4096;

/// Reads events. An event goes to one reader only.
#[derive(Debug)]
pub struct Reader {
    /// Empty where no program runs.
    rings: Merge<AsyncFd<Ring>>,
    ring_bytes: u32,
    lost: PerCpuMap<EventsLost>,
    lost_before: u64,
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Source for AsyncFd<Ring> {
    fn next(&mut self) -> Option<Event> {
        self.get_mut().0.next().map(|record| from_bytes(&record))
    }
}

impl Reader {
    /// Opens the rings that are pinned below that bpf file system. Events from before are still in them.
    pub fn open(bpffs: &Path) -> Result<Self> {
        let kernel = Pinned::open(bpffs);
        let rings = event_rings::pinned(&kernel)?.into_iter().map(|ring| register(Ring(ring)).map_err(unreadable));
        let rings = rings.collect::<Result<_>>()?;
        let ring_bytes = event_rings::length(&*kernel.open(MapSpec::of::<Events>())?)?;
        Ok(Self { ring_bytes, ..Self::new(rings, &kernel)? })
    }

    /// A reader of events where no program runs: there are none.
    pub(crate) fn without_events(kernel: &dyn Kernel) -> Result<Self> {
        Self::new(Vec::new(), &kernel)
    }

    fn new(rings: Vec<AsyncFd<Ring>>, kernel: &impl Kernel) -> Result<Self> {
        let lost = kernel.per_cpu::<EventsLost>()?;
        let lost_before = lost.get(&0)?.unwrap_or_default();
        Ok(Self { rings: Merge::new(rings), ring_bytes: 0, lost, lost_before })
    }

    /// How much of events a processor may tell until they are read; 0 where no program runs.
    #[must_use]
    pub fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    /// Waits for events and hands each to `take`, in the order of time. Returns how many there were: at least one.
    pub async fn read(&mut self, mut take: impl FnMut(&Event)) -> Result<usize> {
        loop {
            let count = self.read_present(&mut take);
            if count > 0 {
                return Ok(count);
            }
            if self.rings.sources().next().is_none() {
                return std::future::pending().await;
            }
            tokio::select! {
                woken = poll_fn(|context| self.poll_woken(context)) => woken.map_err(unreadable)?,
                () = sleep(TICK) => {}
            }
        }
    }

    /// Until the programs of some processor have woken the reader.
    fn poll_woken(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for ring in self.rings.sources() {
            if let Poll::Ready(ready) = ring.poll_read_ready(context) {
                ready?.clear_ready();
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Hands over the events that are there, without waiting, in the order of time but for one that was still being written while a
    /// later one was read: that follows. Returns how many there were.
    pub fn read_present(&mut self, take: impl FnMut(&Event)) -> usize {
        // The clock of the events.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or(Duration::MAX);
        self.rings.drain(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), ROUND, take)
    }

    /// How many events found their ring full since the last call.
    pub fn lost(&mut self) -> Result<u64> {
        let total = self.lost.get(&0)?.unwrap_or_default();
        Ok(total.wrapping_sub(std::mem::replace(&mut self.lost_before, total)))
    }
}

fn unreadable(source: io::Error) -> Error {
    Error::Events { source: source.into() }
}

/// Has the runtime watch the ring.
#[allow(unsafe_code, reason = "the runtime must be promised that the descriptor stays open")]
fn register(ring: Ring) -> io::Result<AsyncFd<Ring>> {
    // SAFETY: `Ring` owns its descriptor and never replaces or closes it.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE).map_err(io::Error::from) }
}
