// SPDX-License-Identifier: Apache-2.0
//! From the kernel's event ring to Hubble.

use datapath::events::Reader;
use rest::MonitorStatus;
use statedb::Tasks;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use surface::Surface;

/// Rings are measured in pages of so many bytes.
const PAGE: u32 = 4096;

/// Forwards events, and counts those the kernel could not deliver.
pub(crate) fn start(mut reader: Reader, sink: hubble::Sink, tasks: &Tasks) -> Surface {
    let npages = reader.ring_bytes() / PAGE;
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    tasks.spawn_fallible("events", async move {
        loop {
            reader.read(|event| sink.push(event)).await?;
            let missed = reader.lost()?;
            count.fetch_add(missed, Ordering::Relaxed);
            sink.lost(missed);
        }
        #[expect(unreachable_code, reason = "names the error type of the loop")]
        Ok::<(), datapath::Error>(())
    });
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    Surface::new().status(move |status| {
        let lost = lost.load(Ordering::Relaxed);
        status.node_monitor = Some(MonitorStatus { cpus, npages, pagesize: PAGE, lost, unknown: 0 });
    })
}
