// SPDX-License-Identifier: Apache-2.0
//! Drop reasons: those that a program of ours gives, and those that only keep their number.

use crate::page::{Page, code};
use abi::DropReason;
use std::path::Path;

const TEXT: &str = "\
Why a packet was dropped. The code is in the events of the kernel programs, the name in Hubble's API (`hubble observe --drop-reason-desc NAME`), the
meaning is what `cilium-dbg monitor` prints and what the metrics have as label `reason`. Codes, names and meanings are those of Hubble's public API.";

pub(crate) fn page() -> Page {
    let mut programs = String::new();
    read(&crate::tree("bpf/src"), &mut programs);
    // As it is named in the source: followed by no further letter.
    let given = |reason: &DropReason| {
        let name = format!("DropReason::{reason:?}");
        programs.match_indices(&name).any(|(at, _)| !programs[at + name.len()..].starts_with(char::is_alphanumeric))
    };
    let (ours, others): (Vec<DropReason>, Vec<DropReason>) = DropReason::ALL.iter().partition(|reason| given(reason));
    let mut page = Page::new("Drop reasons", TEXT);
    page.heading(2, "Given by the programs");
    table(&mut page, &ours);
    page.heading(2, "Never given");
    page.text("They are known by number, so that flows of other sources can be read, but no program of this datapath names them.");
    table(&mut page, &others);
    page
}

fn table(page: &mut Page, reasons: &[DropReason]) {
    let row = |reason: &DropReason| [reason.code().to_string(), code(reason.proto_name()), reason.text().to_owned()];
    page.table(["code", "name", "meaning"], reasons.iter().map(row));
}

fn read(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
