// SPDX-License-Identifier: Apache-2.0
//! `docs/reference` is what the code says: each page is made of the declarations that the programs themselves use, and
//! compared with what is in the tree. This stands here because only the binary's crate sees all the others.
//!
//! With `CILIUM_WRITE_REFERENCE=1` (`make docs`) the pages are written instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod chart;
mod cli;
mod config;
mod crds;
mod drop_reasons;
mod maps;
mod metrics;
mod page;

use page::Page;
use std::path::{Path, PathBuf};

/// Every page, by the name of its file.
fn pages() -> [(&'static str, Page); 6] {
    [
        ("cli.md", cli::page()),
        ("config.md", config::page()),
        ("crds.md", crds::page()),
        ("drop-reasons.md", drop_reasons::page()),
        ("maps.md", maps::page()),
        ("metrics.md", metrics::page()),
    ]
}

/// A file or folder of the tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_reference_is_what_the_code_says() {
    let write = std::env::var_os("CILIUM_WRITE_REFERENCE").is_some_and(|value| value == "1");
    let mut stale = String::new();
    for (name, page) in pages() {
        let (path, text) = (tree("docs/reference").join(name), page.finish());
        if write {
            std::fs::write(&path, text).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            stale.extend(page::difference(&found, &text).map(|lines| format!("docs/reference/{name}:\n{lines}")));
        }
    }
    assert!(stale.is_empty(), "the reference is not what the code says; `make docs` writes it anew\n{stale}");
}

#[test]
fn every_key_that_the_chart_writes_is_known() {
    let known = config::known();
    let strangers: Vec<_> = chart::keys().into_keys().filter(|key| !known.contains(key)).collect();
    assert_eq!(strangers, [""; 0], "keys of the chart's ConfigMap that nobody knows");
}
