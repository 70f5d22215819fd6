// SPDX-License-Identifier: Apache-2.0
use super::{BlockReader, Chunk, Entries, LONGEST, Lines, Scanned, Segment, Stored, header};
use crate::fixture;
use crate::history::codec::Encoder;
use crate::store::{Entry, Loser};
use std::sync::Arc;

/// A file of chunks, of which those with a mark begin a block; each has so many entries.
fn file(chunks: &[(bool, u64)]) -> Vec<u8> {
    let mut file = header(&fixture::decoder());
    let (mut encoder, mut lines, mut sealed, mut number) = (Encoder::default(), Vec::new(), 0, 0);
    for (fresh, count) in chunks {
        if *fresh {
            (encoder, lines, sealed) = (Encoder::default(), Vec::new(), 0);
        }
        let mut entries = Entries::none(number);
        for _ in 0..*count {
            let time = 1000 + i64::try_from(number).unwrap();
            encoder.encode(&Entry::Lost { time, count: number, by: Loser::Kernel }, &mut lines);
            entries.add(time);
            number += 1;
        }
        file.extend(Chunk::store(&lines, sealed, entries).1);
        sealed = lines.len();
    }
    file
}

/// The numbers that are found in the file, and those that its index tells of.
fn read(bytes: &[u8]) -> (Vec<u64>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.flows");
    std::fs::write(&path, bytes).unwrap();
    let Scanned::Segment(segment) = Segment::scan(&path, true).unwrap() else { return (Vec::new(), 0) };
    let mut found = Vec::new();
    let mut told = 0;
    for block in &segment.blocks {
        told += block.numbers.1 - block.numbers.0;
        let stored = Stored { path: Arc::clone(&segment.path), block: *block, decoder: Arc::clone(&segment.decoder) };
        for (number, entry) in stored.open().unwrap() {
            assert!(matches!(entry, Entry::Lost { count, .. } if count == number), "{number}: {entry:?}");
            found.push(number);
        }
    }
    (found, told)
}

#[test]
fn a_file_that_is_cut_anywhere_is_read_up_to_its_last_whole_chunk() {
    let chunks = [(true, 40), (false, 3), (true, 30), (false, 20), (false, 2)];
    let whole = file(&chunks);
    assert_eq!(read(&whole), ((0..95).collect(), 95));
    // Where each chunk ends, and how many entries there are up to there.
    let ends: Vec<(usize, u64)> = (0..=chunks.len())
        .map(|n| (file(&chunks[..n]).len(), chunks[..n].iter().map(|(_, count)| count).sum()))
        .collect();
    for cut in 0..whole.len() {
        let want = ends.iter().rev().find(|(end, _)| *end <= cut).map_or(0, |(_, count)| *count);
        assert_eq!(read(&whole[..cut]), ((0..want).collect(), want), "cut at {cut}");
    }
}

#[test]
fn a_damaged_byte_costs_the_rest_of_its_block_at_most() {
    let chunks = [(true, 40), (false, 3), (true, 30), (false, 20), (false, 2)];
    let whole = file(&chunks);
    let blocks = [(file(&chunks[..0]).len(), 0..43), (file(&chunks[..2]).len(), 43..95)];
    for at in blocks[0].0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        let (found, _) = read(&damaged);
        // What is found is right, and whole before the block that is damaged.
        let before = if at >= blocks[1].0 { 43 } else { 0 };
        assert!((0..before).all(|number| found.contains(&number)), "damaged at {at}: {found:?}");
        assert!(found.len() < 95, "damaged at {at}, and nobody noticed");
    }
}

#[test]
fn what_no_writer_makes_is_not_read_whatever_its_checksums_say() {
    let mut lines = Vec::new();
    Encoder::default().encode(&Entry::Lost { time: 1, count: 1, by: Loser::Kernel }, &mut lines);
    let entries = Entries { first: u64::MAX, count: 1, earliest: 1, latest: 1 };
    let numbered = [header(&fixture::decoder()), Chunk::store(&lines, 0, entries).1].concat();
    assert_eq!(read(&numbered), (Vec::new(), 0), "numbers have an end");
    // Many chunks that each are as long as may be: together they would fill the memory.
    let zeros = vec![0; LONGEST as usize];
    let chunk = |first| Chunk::store(&zeros, 0, Entries { first, ..entries }).1;
    let mut reader = BlockReader {
        stored: [chunk(1), chunk(2), chunk(3)].concat(),
        at: 0,
        lines: Vec::new(),
        read: 0,
        number: 0,
        decoder: Lines::default(),
    };
    let taken = (0..3).filter(|_| reader.chunk().is_some()).count();
    assert_eq!((taken, reader.lines.len()), (1, zeros.len()));
}
