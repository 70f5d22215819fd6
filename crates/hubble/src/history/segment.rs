// SPDX-License-Identifier: Apache-2.0
//! Files of history: a header that says who wrote it, then chunks, of which some begin a block. Nothing that was written is written again.
//!
//! Each chunk has a checksum, and so has its header, which tells where the next chunk is. Whatever a crash leaves at the end of a file is no chunk, and is passed over.

use super::codec::{Decoder as Lines, Malformed};

use crate::decode::Decoder;
use crate::store::Entry;
use nix::libc::{ELOOP, O_NOFOLLOW, O_NONBLOCK};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"CILFLOW1";
/// Length of a chunk's header.
const HEAD: usize = 48;
const MARK: u16 = 0x6c46;
const FRESH: u16 = 1;
/// How far back compression looks.
const WINDOW: usize = 64 << 10;
/// More than a writer puts into a chunk.
const LONGEST: u32 = 16 << 20;

/// Who wrote a file.
#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    node_name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(fixed64, tag = "3")]
    instance: u64,
}

/// The beginning of a file of this agent.
pub(super) fn header(decoder: &Decoder) -> Vec<u8> {
    let header =
        Header { node_name: decoder.node_name.clone(), version: decoder.version.clone(), instance: decoder.instance };
    let mut out = MAGIC.to_vec();
    let body = header.encode_to_vec();
    out.extend(u32::try_from(body.len()).unwrap_or_default().to_le_bytes());
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
    out
}

/// Which entries there are: numbers that follow each other, and their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) first: u64,
    pub(super) count: u32,
    /// Nanoseconds since 1970.
    pub(super) earliest: i64,
    pub(super) latest: i64,
}

impl Entries {
    /// None so far; the first will have this number.
    pub(super) fn none(first: u64) -> Self {
        Self { first, count: 0, earliest: i64::MAX, latest: i64::MIN }
    }

    /// Adds one of this time.
    pub(super) fn add(&mut self, time: i64) {
        self.count += 1;
        self.earliest = self.earliest.min(time);
        self.latest = self.latest.max(time);
    }

    /// The number after the last one.
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// What the header of a chunk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whether it begins a block.
    fresh: bool,
    /// Bytes that follow the header.
    stored: u32,
    /// Bytes of lines.
    raw: u32,
    entries: Entries,
}

impl Chunk {
    /// A chunk, as it is and as bytes, of the lines after `sealed`; those before are stored already.
    pub(super) fn store(lines: &[u8], sealed: usize, entries: Entries) -> (Self, Vec<u8>) {
        let (before, now) = lines.split_at(sealed);
        let window = before.get(sealed.saturating_sub(WINDOW)..).unwrap_or_default();
        let mut out = vec![0; HEAD + lz4_flex::block::get_maximum_output_size(now.len())];
        // There is room for whatever comes.
        let body = out.get_mut(HEAD..).unwrap_or_default();
        let stored = lz4_flex::block::compress_into_with_dict(now, body, window).unwrap_or_default();
        out.truncate(HEAD + stored);
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or_default();
        let chunk = Self { fresh: sealed == 0, stored: length(stored), raw: length(now.len()), entries };
        let head = chunk.head(crc32fast::hash(out.get(HEAD..).unwrap_or_default()));
        out.splice(..HEAD, head);
        (chunk, out)
    }

    /// Its header, with the checksum of what follows.
    fn head(&self, crc: u32) -> Vec<u8> {
        let Entries { first, count, earliest, latest } = self.entries;
        let mut head = Vec::with_capacity(HEAD);
        head.extend(MARK.to_le_bytes());
        head.extend(if self.fresh { FRESH } else { 0 }.to_le_bytes());
        [self.stored, self.raw, count].iter().for_each(|word| head.extend(word.to_le_bytes()));
        head.extend(first.to_le_bytes());
        [earliest, latest].iter().for_each(|time| head.extend(time.to_le_bytes()));
        head.extend(crc.to_le_bytes());
        head.extend(crc32fast::hash(&head).to_le_bytes());
        head
    }

    /// The header that these bytes are, and the checksum of what follows.
    fn parse(head: &[u8; HEAD]) -> Option<(Self, u32)> {
        let mut rest = head.as_slice();
        let mark = u16::from_le_bytes(take(&mut rest)?);
        let flags = u16::from_le_bytes(take(&mut rest)?);
        let mut word = || take(&mut rest).map(u32::from_le_bytes);
        let (stored, raw, count) = (word()?, word()?, word()?);
        let first = u64::from_le_bytes(take(&mut rest)?);
        let (earliest, latest) = (i64::from_le_bytes(take(&mut rest)?), i64::from_le_bytes(take(&mut rest)?));
        let crc = u32::from_le_bytes(take(&mut rest)?);
        let sound = crc32fast::hash(head.split_last_chunk::<4>()?.0) == u32::from_le_bytes(take(&mut rest)?);
        let entries = Entries { first, count, earliest, latest };
        let chunk = Self { fresh: flags & FRESH != 0, stored, raw, entries };
        let numbered = first.checked_add(u64::from(count)).is_some();
        (sound && mark == MARK && raw <= LONGEST && stored <= LONGEST && numbered).then_some((chunk, crc))
    }

    fn len(&self) -> u64 {
        HEAD as u64 + u64::from(self.stored)
    }

    /// The number after its last entry.
    pub(super) fn end(&self) -> u64 {
        self.entries.end()
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// Chunks that are read together, and nothing before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    offset: u64,
    len: u64,
    /// The number of its first entry, and the one after its last.
    pub(super) numbers: (u64, u64),
    /// Its earliest and latest time.
    pub(super) times: (i64, i64),
}

/// What a file is.
pub(super) enum Scanned {
    Segment(Segment),
    /// One of ours that was never begun.
    Empty,
    /// None that this version knows.
    Foreign,
}

/// A file and what is in it.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) path: Arc<Path>,
    /// Makes flows as whoever wrote it did.
    pub(super) decoder: Arc<Decoder>,
    pub(super) len: u64,
    pub(super) blocks: Vec<Block>,
}

impl Segment {
    /// Notes the next chunk.
    pub(super) fn note(&mut self, chunk: &Chunk) {
        let Entries { first, earliest, latest, .. } = chunk.entries;
        match self.blocks.last_mut().filter(|_| !chunk.fresh) {
            Some(block) => {
                block.len += chunk.len();
                block.numbers.1 = chunk.entries.end();
                block.times = (block.times.0.min(earliest), block.times.1.max(latest));
            }
            None => self.blocks.push(Block {
                offset: self.len,
                len: chunk.len(),
                numbers: (first, chunk.entries.end()),
                times: (earliest, latest),
            }),
        }
        self.len += chunk.len();
    }

    /// Looks through a file. Headers of chunks are read, not the chunks.
    pub(super) fn scan(path: &Path, correlate_policies: bool) -> io::Result<Scanned> {
        let Some(file) = open(path)? else { return Ok(Scanned::Foreign) };
        let end = file.metadata()?.len();
        let mut start = Vec::new();
        (&file).take(16).read_to_end(&mut start)?;
        if !start.iter().zip(&MAGIC).all(|(found, wanted)| found == wanted) {
            // Another version's, perhaps.
            return Ok(Scanned::Foreign);
        }
        let Ok([_, _, _, _, _, _, _, _, l0, l1, l2, l3, c0, c1, c2, c3]) = <[u8; 16]>::try_from(start) else {
            return Ok(Scanned::Empty);
        };
        let len = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        if len > end - 16 {
            return Ok(Scanned::Empty);
        }
        let mut body = Vec::new();
        (&file).take(len).read_to_end(&mut body)?;
        let sound = crc32fast::hash(&body) == u32::from_le_bytes([c0, c1, c2, c3]);
        let Some(header) = Header::decode(body.as_slice()).ok().filter(|_| sound) else { return Ok(Scanned::Empty) };
        let Header { node_name, version, instance } = header;
        let decoder = Arc::new(Decoder { node_name, version, instance, correlate_policies });
        let mut segment = Self { path: path.into(), decoder, len: 16 + len, blocks: Vec::new() };
        let mut head = [0; HEAD];
        while segment.len + HEAD as u64 <= end {
            file.read_exact_at(&mut head, segment.len)?;
            match Chunk::parse(&head) {
                Some((chunk, _)) if segment.len + chunk.len() <= end => segment.note(&chunk),
                _ => break,
            }
        }
        segment.len = end;
        Ok(Scanned::Segment(segment))
    }
}

/// Opens a file, none if it is a link or something else. Nobody waits for a writer of a pipe.
fn open(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path) {
        Err(error) if error.raw_os_error() == Some(ELOOP) => return Ok(None),
        file => file?,
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// A block that may be read.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(super) path: Arc<Path>,
    pub(super) block: Block,
    pub(crate) decoder: Arc<Decoder>,
}

impl Stored {
    /// Reads it into memory: some hundred kilobytes. A file that has gone is empty.
    pub(crate) fn open(&self) -> io::Result<BlockReader> {
        let mut stored = vec![0; usize::try_from(self.block.len).unwrap_or_default()];
        match open(&self.path) {
            Ok(Some(file)) => file.read_exact_at(&mut stored, self.block.offset)?,
            Ok(None) => stored.clear(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => stored.clear(),
            Err(error) => return Err(error),
        }
        Ok(BlockReader { stored, at: 0, lines: Vec::new(), read: 0, number: 0, decoder: Lines::default() })
    }

    /// Whether it may hold entries of these times, the ends included.
    pub(crate) fn overlaps(&self, times: (i64, i64)) -> bool {
        self.block.times.0 <= times.1 && self.block.times.1 >= times.0
    }

    /// The numbers of its entries.
    pub(crate) fn numbers(&self) -> Range<u64> {
        self.block.numbers.0..self.block.numbers.1
    }
}

/// The entries of a block, up to the first chunk that is damaged.
pub(crate) struct BlockReader {
    stored: Vec<u8>,
    at: usize,
    lines: Vec<u8>,
    read: usize,
    /// Of the next entry.
    number: u64,
    decoder: Lines,
}

impl Iterator for BlockReader {
    /// Entries with their numbers.
    type Item = (u64, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut rest = self.lines.get(self.read..)?;
            let found = self.decoder.next(&mut rest);
            self.read = self.lines.len() - rest.len();
            match found {
                Ok(Some(entry)) => {
                    self.number += 1;
                    return Some((self.number - 1, entry));
                }
                Ok(None) => self.chunk()?,
                Err(Malformed) => return None,
            }
        }
    }
}

impl BlockReader {
    /// Takes in the next chunk.
    fn chunk(&mut self) -> Option<()> {
        let (head, rest) = self.stored.get(self.at..)?.split_first_chunk()?;
        let (chunk, crc) = Chunk::parse(head)?;
        let body = rest.get(..usize::try_from(chunk.stored).ok()?)?;
        if crc32fast::hash(body) != crc {
            return None;
        }
        let sealed = self.lines.len();
        let raw = usize::try_from(chunk.raw).ok()?;
        if sealed + raw > LONGEST as usize {
            // No writer makes such a block.
            return None;
        }
        let mut lines = vec![0; raw];
        let window = self.lines.get(sealed.saturating_sub(WINDOW)..).unwrap_or_default();
        let len = lz4_flex::block::decompress_into_with_dict(body, &mut lines, window).ok()?;
        self.lines.extend(lines.get(..len)?);
        self.at += HEAD + body.len();
        self.number = chunk.entries.first;
        Some(())
    }
}

#[cfg(test)]
mod tests;
