// SPDX-License-Identifier: Apache-2.0
//! Packet counters by reason and direction.

use super::Output;
use crate::table::Table;
use abi::drop_reason::DropReason;
use abi::maps::Metrics;
use abi::metrics::reason_and_direction;
use anyhow::Result;
use datapath::Kernel;
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Counter {
    reason: u8,
    description: String,
    direction: &'static str,
    packets: u64,
    bytes: u64,
}

pub(super) fn show<K: Kernel>(maps: &K, output: &Output) -> Result<()> {
    let counters = list(maps)?;
    output.format().print(&counters, || table(&counters).to_string())
}

fn list<K: Kernel>(maps: &K) -> Result<Vec<Counter>> {
    let mut entries = maps.per_cpu::<Metrics>()?.entries()?;
    entries.retain(|(_, value)| value.packets > 0);
    entries.sort_by_key(|(slot, _)| *slot);
    let counter = |(slot, value): (u32, abi::metrics::MetricsValue)| {
        let (reason, direction) = reason_and_direction(slot);
        let known = DropReason::from_code(reason).map(|known| known.text().to_owned());
        Counter {
            reason,
            description: if reason == 0 { "Success".to_owned() } else { known.unwrap_or_else(|| reason.to_string()) },
            direction: match direction {
                abi::policy::INGRESS => "INGRESS",
                abi::policy::EGRESS => "EGRESS",
                _ => "UNKNOWN",
            },
            packets: value.packets,
            bytes: value.bytes,
        }
    };
    Ok(entries.into_iter().map(counter).collect())
}

fn table(counters: &[Counter]) -> Table {
    let mut table = Table::new(["REASON", "DIRECTION", "PACKETS", "BYTES"]);
    for c in counters {
        table.row([c.description.clone(), c.direction.to_owned(), c.packets.to_string(), c.bytes.to_string()]);
    }
    table
}
