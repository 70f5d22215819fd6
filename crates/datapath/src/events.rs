// SPDX-License-Identifier: Apache-2.0
//! Events of the programs, from the ring buffer.
//!
//! The programs wake the reader only when much is unread (a wake-up costs a packet more than the event), so the reader
//! looks by itself every 50 ms.

use std::io;
use std::path::Path;
use std::time::Duration;

use abi::event::Event;
use abi::maps::{Events, EventsLost};
use aya::maps::{Map, MapData, MapError, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::bpf::{Pinned, pin_of_map};
use crate::map::raw::from_bytes;
use crate::{Error, Kernel, MapSpec, PerCpuMap, Result};

/// How long an event may wait.
const TICK: Duration = Duration::from_millis(50);
/// Events per round, so that one task cannot keep a thread forever.
const ROUND: usize = 4096;

/// Reads events. There is one ring: an event goes to one reader only.
#[derive(Debug)]
pub struct Reader {
    /// None where no program runs.
    ring: Option<AsyncFd<Ring>>,
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

impl Reader {
    /// Opens the ring that is pinned below that bpf file system. Events from before are still in it.
    pub fn open(bpffs: &Path) -> Result<Self> {
        // Says by name when nothing is pinned, or by another build.
        let spec = MapSpec::of::<Events>();
        Kernel::open(&Pinned::open(bpffs), spec)?;
        let failed = |source: MapError| Error::Events { source: source.into() };
        let map = MapData::from_pin(pin_of_map(bpffs, &spec)).map_err(failed)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(failed)?;
        let ring = register(Ring(ring)).map_err(|source| Error::Events { source: source.into() })?;
        Self::new(Some(ring), &Pinned::open(bpffs))
    }

    /// A reader of events where no program runs: there are none.
    pub(crate) fn without_events(kernel: &dyn Kernel) -> Result<Self> {
        Self::new(None, &kernel)
    }

    fn new(ring: Option<AsyncFd<Ring>>, kernel: &impl Kernel) -> Result<Self> {
        let lost = kernel.per_cpu::<EventsLost>()?;
        let lost_before = lost.get(&0)?.unwrap_or_default();
        Ok(Self { ring, lost, lost_before })
    }

    /// Waits for events and hands each to `take`, in order. Returns how many there were: at least one.
    pub async fn read(&mut self, mut take: impl FnMut(&Event)) -> Result<usize> {
        loop {
            let count = self.read_present(&mut take);
            if count > 0 {
                return Ok(count);
            }
            let Some(ring) = &mut self.ring else { return std::future::pending().await };
            tokio::select! {
                ready = ring.readable() => {
                    ready.map_err(|source| Error::Events { source: source.into() })?.clear_ready();
                }
                () = sleep(TICK) => {}
            }
        }
    }

    /// Hands over the events that are there, without waiting. Returns how many there were.
    pub fn read_present(&mut self, mut take: impl FnMut(&Event)) -> usize {
        let Some(ring) = &mut self.ring else { return 0 };
        let ring = &mut ring.get_mut().0;
        let mut count = 0;
        while count < ROUND
            && let Some(record) = ring.next()
        {
            take(&from_bytes(&record));
            count += 1;
        }
        count
    }

    /// How many events found the ring full since the last call.
    pub fn lost(&mut self) -> Result<u64> {
        let total = self.lost.get(&0)?.unwrap_or_default();
        Ok(total.wrapping_sub(std::mem::replace(&mut self.lost_before, total)))
    }
}

/// Has the runtime watch the ring.
#[allow(unsafe_code, reason = "the runtime must be promised that the descriptor stays open")]
fn register(ring: Ring) -> io::Result<AsyncFd<Ring>> {
    // SAFETY: `Ring` owns its descriptor and never replaces or closes it.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE).map_err(io::Error::from) }
}
