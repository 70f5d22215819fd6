// SPDX-License-Identifier: Apache-2.0
//! Writes entries to files. What could not be written is to be pushed again: after an error there is nothing half done.

use super::Folder;
use super::codec::Encoder;
use super::segment::{Chunk, Entries, Segment, header};
use crate::decode::Decoder;
use crate::store::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of lines that a block has, about: so much is read for a single entry.
const BLOCK: usize = 128 << 10;
/// Bytes of lines that are worth a chunk.
const CHUNK: usize = 64 << 10;

/// Writes to a folder.
pub(super) struct Writer {
    folder: Folder,
    decoder: Arc<Decoder>,
    file: Option<Open>,
    encoder: Encoder,
    /// Lines of this block.
    lines: Vec<u8>,
    /// How many bytes of these are in the file.
    sealed: usize,
    /// Entries that are not in the file.
    pending: Option<Entries>,
}

struct Open {
    id: u64,
    file: File,
    len: u64,
}

impl Writer {
    pub(super) fn new(folder: Folder, decoder: Arc<Decoder>) -> Self {
        let (encoder, lines) = (Encoder::default(), Vec::new());
        Self { folder, decoder, file: None, encoder, lines, sealed: 0, pending: None }
    }

    /// Takes in an entry; numbers follow each other between two calls of [`flush`](Self::flush).
    pub(super) fn push(&mut self, number: u64, entry: &Entry) {
        self.encoder.encode(entry, &mut self.lines);
        self.pending.get_or_insert_with(|| Entries::none(number)).add(entry.time());
    }

    /// Whether it is time to [`flush`](Self::flush).
    pub(super) fn is_full(&self) -> bool {
        self.lines.len() - self.sealed >= CHUNK
    }

    /// Brings what was pushed to the file.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let result = self.append();
        if result.is_err() {
            if let Some(open) = self.file.take() {
                // What was written of the chunk has no sound checksum in any case.
                let _ = open.file.set_len(open.len);
            }
            self.begin_block();
            self.pending = None;
        }
        result
    }

    fn append(&mut self) -> io::Result<()> {
        let Some(entries) = self.pending else { return Ok(()) };
        let (chunk, bytes) = Chunk::store(&self.lines, self.sealed, entries);
        let open = match &mut self.file {
            Some(open) => open,
            None => self.file.insert(Open::create(&self.folder, &self.decoder)?),
        };
        if open.file.metadata()?.nlink() == 0 {
            return Err(io::Error::other("somebody deleted the file that was written to"));
        }
        open.file.write_all(&bytes)?;
        self.folder.note(open.id, &chunk);
        open.len += bytes.len() as u64;
        self.sealed = self.lines.len();
        self.pending = None;
        let has_room = self.folder.has_room(open.id);
        if !has_room {
            self.file = None;
        }
        if !has_room || self.sealed >= BLOCK {
            self.begin_block();
        }
        Ok(())
    }

    /// Lets go of files that are too old. What was pushed has to be flushed before.
    pub(super) fn prune(&mut self) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|open| !self.folder.has_room(open.id)) {
            self.file = None;
            self.begin_block();
        }
        self.folder.make_room()
    }

    /// Has what comes next written to this file.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) {
        self.file.iter_mut().for_each(|open| open.file = file.try_clone().unwrap());
    }

    fn begin_block(&mut self) {
        self.encoder = Encoder::default();
        self.lines.clear();
        self.sealed = 0;
    }
}

impl Open {
    fn create(folder: &Folder, decoder: &Arc<Decoder>) -> io::Result<Self> {
        folder.make_room()?;
        loop {
            let (id, path) = folder.next();
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match file {
                Ok(file) => return Self::begin(id, file, path, folder, decoder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn begin(id: u64, mut file: File, path: PathBuf, folder: &Folder, decoder: &Arc<Decoder>) -> io::Result<Self> {
        let header = header(decoder);
        if let Err(error) = file.write_all(&header) {
            // It would be no file of history.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let len = header.len() as u64;
        folder.add(id, Segment { path: path.into(), decoder: Arc::clone(decoder), len, blocks: Vec::new() });
        Ok(Self { id, file, len })
    }
}
