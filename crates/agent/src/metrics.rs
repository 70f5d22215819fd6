// SPDX-License-Identifier: Apache-2.0
//! Metrics of the agent itself, under Cilium's names: packets as counted by the kernel, and reconcilers.

mod example;

pub use example::example_metrics;

use abi::maps::Metrics as Counters;
use abi::{DropReason, metrics::reason_and_direction};
use datapath::PerCpuMap;
use surface::{Families, Family, Surface};

/// Packets as counted by the kernel.
pub(crate) fn packets(counters: PerCpuMap<Counters>) -> Surface {
    Surface::new().metrics(|registry| registry.register_collector(Families::read(move || read_packets(&counters))))
}

/// The state of a surface's reconcilers.
pub(crate) fn reconcilers(of: Surface) -> Surface {
    Surface::new().metrics(|registry| registry.register_collector(Families::read(move || read_reconcilers(&of))))
}

/// A map that cannot be read yields no samples rather than zeros.
fn read_packets(counters: &PerCpuMap<Counters>) -> Vec<Family> {
    let mut drops = Family::counter("drop_count", "Packets dropped, by reason and direction");
    let mut drop_bytes = Family::counter("drop_bytes", "Bytes dropped, by reason and direction");
    let mut forwards = Family::counter("forward_count", "Packets forwarded, by direction");
    let mut forward_bytes = Family::counter("forward_bytes", "Bytes forwarded, by direction");
    for (slot, value) in counters.entries().unwrap_or_default() {
        if value.packets == 0 {
            continue;
        }
        let (reason, direction) = reason_and_direction(slot);
        let direction = ("direction", direction_name(direction));
        if reason == 0 {
            forwards.push(&[direction], value.packets);
            forward_bytes.push(&[direction], value.bytes);
        } else {
            let reason = ("reason", DropReason::from_code(reason).map_or("Unknown", DropReason::text));
            drops.push(&[reason, direction], value.packets);
            drop_bytes.push(&[reason, direction], value.bytes);
        }
    }
    vec![drops, drop_bytes, forwards, forward_bytes]
}

fn read_reconcilers(of: &Surface) -> Vec<Family> {
    let all = of.reconcilers();
    let failing = all.iter().filter(|r| r.failing > 0).count() as u64;
    vec![
        Family::gauge("controllers_failing", "Reconcilers that fail now").with(&[], failing),
        Family::counter("controllers_runs", "Operations of reconcilers")
            .with(&[("status", "success")], all.iter().map(|r| r.successes).sum())
            .with(&[("status", "failure")], all.iter().map(|r| r.failures).sum()),
    ]
}

const fn direction_name(direction: u8) -> &'static str {
    match direction {
        abi::policy::INGRESS => "INGRESS",
        abi::policy::EGRESS => "EGRESS",
        _ => "UNKNOWN",
    }
}
