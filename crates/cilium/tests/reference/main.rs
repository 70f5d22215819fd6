// SPDX-License-Identifier: Apache-2.0
//! `docs/reference` and the chart are what the code says: each page, and the chart's values with what it makes of them, follow from the
//! declarations that the programs themselves use, and are compared with what is in the tree. This stands here because only the binary's
//! crate sees all the others.
//!
//! With `CILIUM_WRITE_REFERENCE=1` (`make docs`) the files are written instead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod chart;
mod cli;
mod config;
mod crds;
mod dashboards;
mod drop_reasons;
mod maps;
mod metrics;
mod page;

use page::Page;
use std::path::{Path, PathBuf};

/// Every file that is written, by its path in the tree.
fn files() -> Vec<(String, String)> {
    let pages: [(&str, Page); 6] = [
        ("cli.md", cli::page()),
        ("config.md", config::page()),
        ("crds.md", crds::page()),
        ("drop-reasons.md", drop_reasons::page()),
        ("maps.md", maps::page()),
        ("metrics.md", metrics::page()),
    ];
    let pages = pages.map(|(name, page)| (format!("docs/reference/{name}"), page.finish()));
    pages.into_iter().chain(chart::files()).collect()
}

/// A file or folder of the tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn the_reference_is_what_the_code_says() {
    let write = std::env::var_os("CILIUM_WRITE_REFERENCE").is_some_and(|value| value == "1");
    let mut stale = String::new();
    for (name, text) in files() {
        let path = tree(&name);
        if write {
            std::fs::write(&path, text).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            stale.extend(page::difference(&found, &text).map(|lines| format!("{name}:\n{lines}")));
        }
    }
    assert!(stale.is_empty(), "what is generated is not what the code says; `make docs` writes it anew\n{stale}");
}
