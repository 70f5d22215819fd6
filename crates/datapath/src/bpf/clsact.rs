// SPDX-License-Identifier: Apache-2.0
//! Attaching by a filter below clsact, for kernels without tcx (before 6.6).
//!
//! The kernel keeps the filter until the interface goes or somebody removes it. As it cannot be pinned, an empty folder
//! `filters/NAME@IFINDEX@DIRECTION` remembers it, so that a later agent can list and remove it.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use super::attach::remove_all;
use super::pins::{self, Pins, escape, failed};
use super::{Direction, LinkPin, Program};
use crate::sys::tc;
use crate::{Error, Result};

/// What a folder remembers.
struct Record {
    name: String,
    ifindex: u32,
    direction: Direction,
}

impl Record {
    fn file(&self) -> String {
        escape(&format!("{}@{}@{}", self.name, self.ifindex, self.direction.name()))
    }

    fn parse(file: &str) -> Option<Self> {
        let mut parts = file.rsplitn(3, '@');
        let direction = match parts.next()? {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => return None,
        };
        let ifindex = parts.next()?.parse().ok()?;
        Some(Self { name: parts.next()?.to_owned(), ifindex, direction })
    }
}

fn records(folder: &Path) -> Result<Vec<Record>> {
    Ok(pins::list(folder)?.iter().filter_map(|file| Record::parse(file)).collect())
}

/// Attaches, or replaces what is attached there under the same name.
pub(super) fn attach(
    pins: &Pins,
    program: Program,
    fd: BorrowedFd<'_>,
    (ifindex, direction): (u32, Direction),
    pin_name: &str,
) -> Result<()> {
    let failed_at = |source| Error::Attach {
        program: program.name(),
        target: format!("{} of interface {ifindex}", direction.name()),
        source,
    };
    let record = Record { name: pin_name.to_owned(), ifindex, direction };
    for old in records(&pins.filters())?.iter().filter(|old| old.name == record.name && old.file() != record.file()) {
        remove(&pins.filters(), old)?;
    }
    let path = pins.filters().join(record.file());
    fs::create_dir_all(&path).map_err(|source| failed("make", &path, source))?;
    tc::add_clsact(ifindex).map_err(failed_at)?;
    tc::replace_filter(ifindex, direction, fd.as_raw_fd(), program.name()).map_err(failed_at)
}

/// Detaches; false when there was nothing of that name.
pub(super) fn detach(pins: &Pins, pin_name: &str) -> Result<bool> {
    let mut found = false;
    for record in records(&pins.filters())?.iter().filter(|record| record.name == pin_name) {
        remove(&pins.filters(), record)?;
        found = true;
    }
    Ok(found)
}

/// All that is attached this way.
pub(super) fn attached(pins: &Pins) -> Result<Vec<LinkPin>> {
    let links = records(&pins.filters())?.into_iter().map(|record| LinkPin {
        name: record.name,
        ifindex: Some(if exists(record.ifindex) { record.ifindex } else { 0 }),
    });
    Ok(links.collect())
}

/// Whether the calling thread's network namespace has that interface.
fn exists(ifindex: u32) -> bool {
    // `if_indextoname` of this version answers with an empty name instead of an error.
    nix::net::if_::if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// Removes all filters that a folder of one version remembers. One that cannot be removed does not keep the others; the first such
/// error is returned.
pub(super) fn remove_recorded(filters: &Path) -> Result<()> {
    let mut result = Ok(());
    for record in &records(filters)? {
        result = result.and(remove(filters, record));
    }
    result
}

fn remove(filters: &Path, record: &Record) -> Result<()> {
    let path = filters.join(record.file());
    tc::remove_filter(record.ifindex, record.direction)
        .and_then(|()| tc::remove_empty_clsact(record.ifindex))
        .map_err(|source| failed("detach the filter of", &path, source))?;
    remove_all(&path).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Direction, Record};
    use crate::bpf::pins::unescape;

    #[test]
    fn a_record_survives_being_a_file_name() {
        let record = Record { name: "dev_eth0.1@x_ingress".into(), ifindex: 7, direction: Direction::Egress };
        let read = Record::parse(&unescape(&record.file())).unwrap();
        assert_eq!((read.name, read.ifindex, read.direction), (record.name, 7, Direction::Egress));
        assert!(Record::parse("something").is_none());
    }
}
