// SPDX-License-Identifier: Apache-2.0
//! What the ring held, on disk: in files that are only ever appended to, and of which the oldest go when there are too many bytes of them,
//! or when they are too old.
//!
//! History is written by a client of the ring: whoever writes events never waits for a disk. While nothing can be written the ring keeps
//! them, and what it could not keep is counted in history.

mod codec;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use segment::{BlockReader, Stored};
#[cfg(test)]
pub(crate) use tests::ByHand;

use crate::decode::Decoder;
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::timestamp;
use crate::ring::Read;
use crate::server::{Problems, report};
use crate::store::{Entry, Loser, Store, lost, now};
use parking_lot::Mutex;
use segment::{Block, Chunk, Scanned, Segment};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use writer::Writer;

/// How long an entry may wait for the disk.
const DELAY: Duration = Duration::from_secs(1);
/// How long whoever reads waits for an entry that is on its way to the disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long entries are left to gather before they are looked at.
const GATHER: Duration = Duration::from_millis(2);
/// Between attempts to write, and between looks for files that are too old.
const PACE: Duration = Duration::from_secs(5);
/// Into how many files history is divided, about: so much of it goes at once.
const FILES: u32 = 16;

/// Where history is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) path: PathBuf,
    /// Bytes of all files.
    pub(crate) size: u64,
    pub(crate) age: Duration,
}

/// The history of this node. Clones share it.
#[derive(Clone)]
pub(crate) struct History {
    folder: Folder,
    decoder: Arc<Decoder>,
}

impl History {
    /// It is empty before [`run`](Self::run).
    pub(crate) fn new(limits: Limits, decoder: Arc<Decoder>) -> Self {
        let (limits, written) = (Arc::new(limits), Arc::new(watch::Sender::new(None)));
        Self { folder: Folder { limits, index: Arc::default(), written }, decoder }
    }

    /// The blocks of earlier runs of the agent, and those of this one with entries of these numbers, oldest first.
    pub(crate) fn select(&self, numbers: Range<u64>) -> Vec<Stored> {
        self.select_of(&numbers, true)
    }

    /// The blocks of this run with entries of these numbers.
    pub(crate) fn select_own(&self, numbers: Range<u64>) -> Vec<Stored> {
        self.select_of(&numbers, false)
    }

    fn select_of(&self, numbers: &Range<u64>, earlier: bool) -> Vec<Stored> {
        let index = self.folder.index.lock();
        let mut found = Vec::new();
        for segment in index.segments.values() {
            let own = segment.decoder.instance == self.decoder.instance;
            let numbered = |block: &&Block| block.numbers.0 < numbers.end && block.numbers.1 > numbers.start;
            for block in segment.blocks.iter().filter(|block| if own { numbered(block) } else { earlier }) {
                let (path, decoder) = (Arc::clone(&segment.path), Arc::clone(&segment.decoder));
                found.push(Stored { path, block: *block, decoder });
            }
        }
        found
    }

    /// How many events of this run are on disk, those that have gone again included.
    pub(crate) fn kept(&self) -> u64 {
        self.folder.written.borrow().unwrap_or_default()
    }

    /// Whether events of this run are written, but none has been.
    pub(crate) fn is_empty(&self) -> bool {
        *self.folder.written.borrow() == Some(0)
    }

    /// Whether the event with this number is still to be written.
    pub(crate) fn lags(&self, number: u64) -> bool {
        self.folder.written.borrow().is_some_and(|end| end <= number)
    }

    /// Waits until the event with this number is written, for a while.
    pub(crate) async fn reaches(&self, number: u64) {
        let mut written = self.folder.written.subscribe();
        let is_there = written.wait_for(|end| end.is_none_or(|end| end > number));
        // Whoever waited looks whether it is there.
        let _ = tokio::time::timeout(PATIENCE, is_there).await;
    }

    /// Writes down what the ring gets until the token is cancelled, on a thread of its own: disks are slow.
    pub(crate) async fn run(self, store: Arc<Store>, problems: Problems, end: CancellationToken) {
        let runtime = Handle::current();
        let keep = move || runtime.block_on(self.keep(store, &problems, &end));
        // It ends with the token, and does not panic.
        let _ = tokio::task::spawn_blocking(keep).await;
    }

    async fn keep(self, store: Arc<Store>, problems: &Problems, end: &CancellationToken) {
        let path = self.folder.limits.path.display();
        let problem = |error: Option<io::Error>| report(problems, "history", error.map(|e| format!("{path}: {e}")));
        let _lock = loop {
            match self.folder.open(self.decoder.correlate_policies) {
                Ok(lock) => break lock,
                Err(error) => problem(Some(error)),
            }
            if end.run_until_cancelled(tokio::time::sleep(PACE)).await.is_none() {
                return;
            }
        };
        let writer = Writer::new(self.folder.clone(), Arc::clone(&self.decoder));
        let mut keeper = Keeper { store, writer, next: 0, safe: 0, due: None, pruned: Instant::now() };
        loop {
            let ends = end.run_until_cancelled(keeper.wait()).await.is_none();
            let result = keeper.round(ends);
            let failed = result.is_err();
            problem(result.err());
            if ends {
                return;
            }
            if failed {
                end.run_until_cancelled(tokio::time::sleep(PACE)).await;
            }
        }
    }
}

/// The flows in a folder that an agent writes, or wrote, oldest first. Damaged parts are passed over.
///
/// # Errors
///
/// When the folder, or the beginning of a file in it, cannot be read.
pub fn read_history(folder: &Path) -> io::Result<impl Iterator<Item = GetFlowsResponse>> {
    let (index, _) = Index::look(folder, true, |_, error| Err(error))?;
    let blocks = index.segments.into_values().flat_map(|segment| {
        let Segment { path, decoder, blocks, .. } = segment;
        blocks.into_iter().map(move |block| Stored { path: Arc::clone(&path), block, decoder: Arc::clone(&decoder) })
    });
    Ok(blocks.flat_map(|stored| {
        let entries = stored.open().into_iter().flatten();
        entries.flat_map(move |(number, entry)| responses(&stored.decoder, number, &entry))
    }))
}

fn responses(decoder: &Decoder, number: u64, entry: &Entry) -> Vec<GetFlowsResponse> {
    let types = match entry {
        Entry::Event(record) => decoder.decode(number, record).into_iter().map(ResponseTypes::Flow).collect(),
        Entry::Lost { time, count, by } => vec![ResponseTypes::LostEvents(lost(*time, *count, *by))],
    };
    let response = |response_types| GetFlowsResponse {
        node_name: decoder.node_name.clone(),
        time: Some(timestamp(entry.time())),
        response_types: Some(response_types),
    };
    types.into_iter().map(response).collect()
}

/// Brings entries from the ring to the disk.
struct Keeper {
    store: Arc<Store>,
    writer: Writer,
    /// The number of the next entry to take.
    next: u64,
    /// All before this one are on disk.
    safe: u64,
    /// When what was taken has to be on disk.
    due: Option<Instant>,
    /// When files that are too old were looked for.
    pruned: Instant,
}

impl Keeper {
    /// Waits until there is something to do.
    async fn wait(&self) {
        let arrived = self.store.arrived.notified();
        if self.store.bounds().1 == self.next {
            let due = self.due.unwrap_or_else(|| Instant::now() + PACE);
            tokio::select! {
                () = arrived => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
        tokio::time::sleep(GATHER).await;
    }

    /// Takes what is there, and writes what has gathered. After an error all of it is taken again.
    fn round(&mut self, all: bool) -> io::Result<()> {
        loop {
            match self.store.read(self.next) {
                Read::Entry(entry) => self.take(&entry, self.next + 1),
                Read::Lost { count, oldest } => {
                    self.flush()?;
                    self.take(&Entry::Lost { time: now(), count, by: Loser::Kernel }, oldest);
                    self.flush()?;
                }
                Read::End => break,
            }
            if self.writer.is_full() {
                self.flush()?;
            }
        }
        if all || self.due.is_some_and(|due| due <= Instant::now()) {
            self.flush()?;
        }
        if self.due.is_none() && self.pruned.elapsed() >= PACE {
            self.pruned = Instant::now();
            self.writer.prune()?;
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry, next: u64) {
        self.writer.push(self.next, entry);
        self.next = next;
        self.due.get_or_insert_with(|| Instant::now() + DELAY);
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.writer.flush();
        self.due = None;
        if written.is_ok() {
            self.safe = self.next;
        } else {
            self.next = self.safe;
        }
        written
    }
}

/// The files of history.
#[derive(Clone)]
struct Folder {
    limits: Arc<Limits>,
    index: Arc<Mutex<Index>>,
    /// Up to which number events of this run are written; none while the folder cannot be used.
    written: Arc<watch::Sender<Option<u64>>>,
}

#[derive(Default)]
struct Index {
    segments: BTreeMap<u64, Segment>,
    next: u64,
}

impl Index {
    /// The files of a folder, and those that were never begun. What is not ours is passed over, and so is a file that cannot be read if
    /// `unreadable` says so.
    fn look(
        folder: &Path,
        correlate_policies: bool,
        unreadable: impl Fn(&Path, io::Error) -> io::Result<()>,
    ) -> io::Result<(Self, Vec<PathBuf>)> {
        let (mut found, mut empty) = (Self::default(), Vec::new());
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let Some(id) = id(&path) else { continue };
            found.next = found.next.max(id + 1);
            match Segment::scan(&path, correlate_policies) {
                Ok(Scanned::Segment(segment)) => drop(found.segments.insert(id, segment)),
                Ok(Scanned::Empty) => empty.push(path),
                Ok(Scanned::Foreign) => {}
                // Its agent deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => unreadable(&path, error)?,
            }
        }
        Ok((found, empty))
    }
}

impl Folder {
    /// Looks at what is there, and deletes what was never begun. Until the file is dropped no other agent writes there: two would not know
    /// of each other's files, and delete them.
    fn open(&self, correlate_policies: bool) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.limits.path)?;
        let lock = File::open(&self.limits.path)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another agent writes there"),
            TryLockError::Error(error) => error,
        })?;
        let (found, empty) = Index::look(&self.limits.path, correlate_policies, |path, error| {
            tracing::warn!(path = %path.display(), %error, "a file of history cannot be read");
            Ok(())
        })?;
        empty.iter().try_for_each(std::fs::remove_file)?;
        *self.index.lock() = found;
        self.written.send_replace(Some(0));
        self.make_room()?;
        Ok(lock)
    }

    /// The number and path of the next file.
    fn next(&self) -> (u64, PathBuf) {
        let mut index = self.index.lock();
        let id = index.next;
        index.next += 1;
        (id, self.limits.path.join(format!("{id:016x}.flows")))
    }

    fn add(&self, id: u64, segment: Segment) {
        self.index.lock().segments.insert(id, segment);
    }

    fn note(&self, id: u64, chunk: &Chunk) {
        if let Some(segment) = self.index.lock().segments.get_mut(&id) {
            segment.note(chunk);
        }
        self.written.send_replace(Some(chunk.end()));
    }

    /// Whether a file is to be written on: it is neither large nor old.
    fn has_room(&self, id: u64) -> bool {
        let index = self.index.lock();
        let Some(segment) = index.segments.get(&id) else { return false };
        let age = self.limits.age / FILES;
        segment.len < self.share() && segment.blocks.first().is_none_or(|block| block.times.0 > before(age))
    }

    /// Deletes the oldest files, such that there is room for one more.
    fn make_room(&self) -> io::Result<()> {
        let mut index = self.index.lock();
        let oldest = before(self.limits.age);
        let mut total: u64 = index.segments.values().map(|segment| segment.len).sum();
        let (mut gone, mut result) = (Vec::new(), Ok(()));
        for (id, segment) in &index.segments {
            let old = segment.blocks.iter().all(|block| block.times.1 < oldest);
            if old || total + self.share() > self.limits.size {
                match std::fs::remove_file(&segment.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
                    _ => {
                        gone.push(*id);
                        total -= segment.len;
                    }
                }
            }
        }
        gone.iter().for_each(|id| drop(index.segments.remove(id)));
        result
    }

    /// Bytes of one file.
    fn share(&self) -> u64 {
        self.limits.size / u64::from(FILES)
    }
}

fn before(age: Duration) -> i64 {
    now().saturating_sub(age.as_nanos().try_into().unwrap_or(i64::MAX))
}

/// The number of a file of history.
fn id(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".flows")?;
    let id = (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok())??;
    // Nobody has counted so far, and others follow it.
    (id < 1 << 63).then_some(id)
}
