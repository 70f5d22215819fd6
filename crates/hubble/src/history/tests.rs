// SPDX-License-Identifier: Apache-2.0
use super::writer::Writer;
use super::{History, Keeper, Limits};
use crate::decode::Decoder;
use crate::fixture;
use crate::store::{Entry, Loser, Store, now};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: i64 = 1_000_000_000;
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Writes a store's history when it is told to.
pub(crate) struct ByHand {
    keeper: Keeper,
    _lock: File,
}

impl ByHand {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        let history = store.history.clone().unwrap();
        let lock = history.folder.open(true).unwrap();
        let (store, writer) = (Arc::clone(store), writer(&history));
        let keeper = Keeper { store, writer, next: 0, safe: 0, due: None, pruned: Instant::now() };
        Self { keeper, _lock: lock }
    }

    /// Takes what the ring has, and writes none of it yet.
    pub(crate) fn take(&mut self) {
        self.keeper.round(false).unwrap();
    }

    /// Writes what it has taken.
    pub(crate) fn write(&mut self) {
        self.keeper.flush().unwrap();
    }

    /// Cannot write it, as the disk is full.
    pub(crate) fn fail(&mut self) {
        self.keeper.writer.write_to(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        assert_eq!(self.keeper.flush().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }
}

fn limits(path: &Path, size: u64) -> Limits {
    Limits { path: path.to_owned(), size, age: WEEK }
}

fn history(limits: Limits, instance: u64) -> History {
    let history = History::new(limits, Arc::new(Decoder { instance, ..fixture::decoder() }));
    drop(history.folder.open(true).unwrap());
    history
}

fn writer(history: &History) -> Writer {
    Writer::new(history.folder.clone(), Arc::clone(&history.decoder))
}

/// An entry that tells its own number, and takes some bytes that cannot be compressed.
fn entry(number: u64, time: i64) -> Entry {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Entry::Lost { time: time + i64::try_from(mixed >> 40).unwrap(), count: mixed >> 1, by: Loser::Kernel }
}

fn write(writer: &mut Writer, numbers: std::ops::Range<u64>, time: i64) {
    for number in numbers {
        writer.push(number, &entry(number, time));
        if number % 100 == 99 {
            writer.flush().unwrap();
        }
    }
    writer.flush().unwrap();
    writer.prune().unwrap();
}

fn all(history: &History) -> Vec<(u64, u64)> {
    let blocks = history.select(0..u64::MAX);
    let read = |block: super::Stored| {
        let instance = block.decoder.instance;
        block.open().unwrap().map(move |(number, _)| (instance, number))
    };
    blocks.into_iter().flat_map(read).collect()
}

fn bytes(path: &Path) -> u64 {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn the_oldest_go_when_there_are_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let size = 64 << 10;
    let history = history(limits(dir.path(), size), 1);
    let mut writer = writer(&history);
    for round in 0..100 {
        write(&mut writer, round * 200..(round + 1) * 200, now());
        assert!(bytes(dir.path()) <= size + 4096, "{} bytes in round {round}", bytes(dir.path()));
    }
    let found = all(&history);
    assert_eq!(found.last(), Some(&(1, 19_999)));
    let first = found[0].1;
    assert!(first > 0 && bytes(dir.path()) > size / 2, "{first}, {} bytes", bytes(dir.path()));
    assert_eq!(found.len() as u64, 20_000 - first, "there is a hole");
}

#[test]
fn the_oldest_go_when_they_are_too_old_even_if_nothing_else_comes() {
    let dir = tempfile::tempdir().unwrap();
    let week = i64::try_from(WEEK.as_nanos()).unwrap();
    let history = history(limits(dir.path(), 1 << 20), 1);
    let mut writer = writer(&history);
    write(&mut writer, 0..100, now() - week - SECOND);
    assert_eq!(all(&history).len(), 0);
    write(&mut writer, 100..200, now() - week / 2);
    write(&mut writer, 200..300, now());
    assert_eq!(all(&history).len(), 200);
}

#[test]
fn what_earlier_runs_wrote_is_there_and_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    for instance in 1..=3 {
        let history = history(limits(dir.path(), 1 << 20), instance);
        write(&mut writer(&history), 0..10, now());
        let want: Vec<_> = (1..=instance).flat_map(|run| (0..10).map(move |number| (run, number))).collect();
        assert_eq!(all(&history), want);
    }
}

#[test]
fn a_clock_that_was_set_back_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(limits(dir.path(), 1 << 20), 1);
    let mut writer = writer(&history);
    let now = now();
    write(&mut writer, 0..100, now);
    write(&mut writer, 100..200, now - 3600 * SECOND);
    let some = |times| -> Vec<u64> {
        let blocks = history.select(0..u64::MAX).into_iter().filter(|block| block.overlaps(times));
        blocks.flat_map(|block| block.open().unwrap()).map(|(number, _)| number).collect()
    };
    assert!(some((now - 3700 * SECOND, now - 3500 * SECOND)).contains(&150));
    assert!(some((now, now + SECOND)).contains(&50));
}

#[test]
fn what_could_not_be_written_is_written_later_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let history = history(limits(&path, 1 << 20), 1);
    let mut writer = writer(&history);
    write(&mut writer, 0..50, now());
    // As if the disk was full.
    writer.write_to(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    writer.push(50, &entry(50, now()));
    assert_eq!(writer.flush().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    // As if there was no disk at all.
    std::fs::rename(&path, dir.path().join("away")).unwrap();
    writer.push(50, &entry(50, now()));
    writer.flush().unwrap_err();
    std::fs::rename(dir.path().join("away"), &path).unwrap();
    write(&mut writer, 50..60, now());
    assert_eq!(all(&history), (0..60).map(|number| (1, number)).collect::<Vec<_>>());
}

#[test]
fn what_is_written_after_somebody_deleted_the_files_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let history = history(limits(dir.path(), 1 << 20), 1);
    let mut writer = writer(&history);
    write(&mut writer, 0..50, now());
    std::fs::remove_file(dir.path().join(format!("{:016x}.flows", 0))).unwrap();
    writer.push(50, &entry(50, now()));
    assert!(writer.flush().unwrap_err().to_string().contains("deleted"));
    write(&mut writer, 50..60, now());
    assert_eq!(all(&history), (50..60).map(|number| (1, number)).collect::<Vec<_>>());
}

#[test]
fn two_agents_do_not_write_to_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new] = [1, 2].map(|instance| {
        let decoder = Arc::new(Decoder { instance, ..fixture::decoder() });
        History::new(limits(dir.path(), 1 << 20), decoder)
    });
    let lock = old.folder.open(true).unwrap();
    assert!(new.folder.open(true).unwrap_err().to_string().contains("another agent"));
    assert!(!new.lags(0) && old.lags(0), "who does not write keeps nobody waiting");
    write(&mut writer(&old), 0..10, now());
    drop(lock);
    let _lock = new.folder.open(true).unwrap();
    assert_eq!(all(&new).len(), 10);
}

#[test]
fn what_is_no_file_of_ours_keeps_nobody_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    write(&mut writer(&history(limits(dir.path(), 1 << 20), 1)), 0..10, now());
    let path = |id: u64| dir.path().join(format!("{id:016x}.flows"));
    std::fs::create_dir(path(100)).unwrap();
    std::os::unix::fs::symlink(path(0), path(101)).unwrap();
    std::os::unix::fs::symlink("/nowhere", path(102)).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(path(103)).status().unwrap();
    assert!(pipe.success());
    std::fs::write(path(104), "CILFLOW2 of a later version").unwrap();
    [u64::MAX, u64::MAX - 1].iter().for_each(|id| std::fs::write(path(*id), "CILFLOW1").unwrap());
    let again = history(limits(dir.path(), 1 << 20), 2);
    assert_eq!(all(&again), (0..10).map(|number| (1, number)).collect::<Vec<_>>(), "each once");
    assert!([100, 104].iter().all(|id| path(*id).exists()));
    write(&mut writer(&again), 0..1, now());
    assert!(path(105).exists());
    assert_eq!(super::read_history(dir.path()).unwrap().count(), 11);
}

#[test]
fn files_of_others_are_left_alone_and_our_own_that_were_never_begun_go() {
    let dir = tempfile::tempdir().unwrap();
    let others = ["notes.flows", "0000000000000001.log"].map(|name| dir.path().join(name));
    others.iter().for_each(|path| std::fs::write(path, "x").unwrap());
    let ours = dir.path().join("0000000000000007.flows");
    std::fs::write(&ours, "CIL").unwrap();
    let history = history(limits(dir.path(), 1 << 20), 1);
    assert!(others.iter().all(|path| path.exists()));
    assert!(!ours.exists());
    write(&mut writer(&history), 0..1, now());
    assert!(dir.path().join("0000000000000008.flows").exists());
}
