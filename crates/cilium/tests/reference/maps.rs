// SPDX-License-Identifier: Apache-2.0
//! The maps of the datapath.

use crate::page::{Page, code};
use abi::MapKind;
use abi::maps::{ALL, Facts};

const TEXT: &str = "\
State that the kernel programs and user space share. Sizes are in bytes; the key of a trie is preceded by its prefix length, which its size includes.
Capacities are entries, those of ring buffers bytes of all of them. Types are those of `crates/abi`.";

pub(crate) fn page() -> Page {
    let mut page = Page::new("Maps", TEXT);
    page.text(&format!(
        "They are pinned under `/sys/fs/bpf/cilium/v{}/maps` and outlive the agent: a map of version 1 by its name, of a later version N as \
         `NAME_vN`. A map of a new version takes over what the older one holds.",
        abi::ABI_VERSION
    ));
    page.table(["map", "version", "kind", "key", "value", "capacity", "purpose"], ALL.iter().map(row));
    page
}

fn row(map: &Facts) -> [String; 7] {
    let value = if map.kind == MapKind::PerCpuArray { " per processor" } else { "" };
    [
        code(map.name),
        map.version.to_string(),
        format!("{:?}", map.kind),
        sized(map.key, map.key_size),
        sized(map.value, map.value_size) + value,
        map.capacity.to_string(),
        map.purpose.trim().to_owned(),
    ]
}

fn sized(kind: &str, size: usize) -> String {
    if size == 0 { "none".to_owned() } else { format!("{}, {size}", code(kind)) }
}
