// SPDX-License-Identifier: Apache-2.0
//! The real kernel, for an agent that runs on a node.

use crate::config::Config;
use anyhow::Context;
use datapath::bpf::{Datapath, Options};
use datapath::{Host, sysctl};

/// Loads the programs, or adopts those already there.
///
/// # Errors
///
/// The kernel rejects a program or a map.
pub(crate) fn open(config: &Config) -> anyhow::Result<Host> {
    if config.procfs.join("sys/net").is_dir() {
        sysctl::use_procfs(&config.procfs);
    }
    let options = Options {
        bpffs: config.bpf_root.clone(),
        config: config.programs(),
        flows: flow_capacity(config.map_ratio),
        ..Options::default()
    };
    let datapath = Datapath::load(&options).context("load the kernel programs")?;
    Host::open(datapath, &config.bpf_root).context("open the kernel")
}

/// The flow table's share of the node's memory, within the bounds of the field.
fn flow_capacity(ratio: f64) -> u32 {
    /// Key, value, the kernel's overhead, and the entry's share of the rings.
    const ENTRY_BYTES: f64 = 344.0;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let entries = total.map_or(0.0, |kib: f64| kib * 1024.0 * ratio / ENTRY_BYTES);
    entries.clamp(131_072.0, 8_388_608.0) as u32
}
