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

use crate::decode::Decoder;
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::timestamp;
use crate::ring::Read;
use crate::server::{Problems, report};
use crate::store::{Entry, Store, lost, now};
use parking_lot::Mutex;
use segment::{Chunk, Segment};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use writer::Writer;

/// How long an entry may wait for the disk.
const DELAY: Duration = Duration::from_secs(1);
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
        Self { folder: Folder { limits: Arc::new(limits), index: Arc::default() }, decoder }
    }

    /// The blocks that may hold entries of these times (the ends included), oldest first: of this run of the agent those with entries of
    /// these numbers, and of earlier ones all if the numbers begin with 0.
    pub(crate) fn select(&self, times: (i64, i64), numbers: Range<u64>) -> Vec<Stored> {
        let index = self.folder.index.lock();
        let mut found = Vec::new();
        for segment in index.segments.values() {
            let own = segment.decoder.instance == self.decoder.instance;
            for block in &segment.blocks {
                let (first, end) = block.numbers;
                let numbered = if own { first < numbers.end && end > numbers.start } else { numbers.start == 0 };
                if numbered && block.times.0 <= times.1 && block.times.1 >= times.0 {
                    let (path, decoder) = (segment.path.clone(), Arc::clone(&segment.decoder));
                    found.push(Stored { path, block: *block, decoder });
                }
            }
        }
        found
    }

    /// How many events of this run are on disk, those that have gone again included.
    pub(crate) fn kept(&self) -> u64 {
        let index = self.folder.index.lock();
        let own = index.segments.values().rev().filter(|segment| segment.decoder.instance == self.decoder.instance);
        own.flat_map(|segment| segment.blocks.last()).map(|block| block.numbers.1).next().unwrap_or_default()
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
        while let Err(error) = self.folder.open(self.decoder.correlate_policies) {
            problem(Some(error));
            if end.run_until_cancelled(tokio::time::sleep(PACE)).await.is_none() {
                return;
            }
        }
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
    let (index, _) = Index::look(folder, true)?;
    let blocks = index.segments.into_values().flat_map(|segment| {
        let Segment { path, decoder, blocks, .. } = segment;
        blocks.into_iter().map(move |block| Stored { path: path.clone(), block, decoder: Arc::clone(&decoder) })
    });
    Ok(blocks.flat_map(|stored| {
        let entries = stored.open().into_iter().flatten();
        entries.flat_map(move |(number, entry)| responses(&stored.decoder, number, &entry))
    }))
}

fn responses(decoder: &Decoder, number: u64, entry: &Entry) -> Vec<GetFlowsResponse> {
    let types = match entry {
        Entry::Event(record) => decoder.decode(number, record).into_iter().map(ResponseTypes::Flow).collect(),
        Entry::Lost { time, count } => vec![ResponseTypes::LostEvents(lost(*time, *count))],
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
                    self.take(&Entry::Lost { time: now(), count }, oldest);
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
}

#[derive(Default)]
struct Index {
    segments: BTreeMap<u64, Segment>,
    next: u64,
}

impl Index {
    /// The files of a folder, and those that were never begun. Files of others are passed over.
    fn look(folder: &Path, correlate_policies: bool) -> io::Result<(Self, Vec<PathBuf>)> {
        let (mut found, mut empty) = (Self::default(), Vec::new());
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(id) = id(&path) else { continue };
            found.next = found.next.max(id + 1);
            match Segment::scan(path.clone(), correlate_policies)? {
                Some(segment) => drop(found.segments.insert(id, segment)),
                None => empty.push(path),
            }
        }
        Ok((found, empty))
    }
}

impl Folder {
    /// Looks at what is there, and deletes what was never begun.
    fn open(&self, correlate_policies: bool) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.limits.path)?;
        let (found, empty) = Index::look(&self.limits.path, correlate_policies)?;
        empty.iter().try_for_each(std::fs::remove_file)?;
        *self.index.lock() = found;
        self.make_room()
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
        let mut gone = Vec::new();
        for (id, segment) in &index.segments {
            let old = segment.blocks.iter().all(|block| block.times.1 < oldest);
            if old || total + self.share() > self.limits.size {
                match std::fs::remove_file(&segment.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => gone.push(*id),
                }
                total -= segment.len;
            }
        }
        gone.iter().for_each(|id| drop(index.segments.remove(id)));
        Ok(())
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
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok())?
}
