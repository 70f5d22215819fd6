// SPDX-License-Identifier: Apache-2.0
//! Makes batches of responses for one client.

use super::cursor::Cursor;
use super::lost::Lost;
use super::search::{Found, Search};
use super::{Batch, Query};
use crate::decode::Decoder;
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::timestamp;
use crate::ring::Read;
use crate::store::{Entry, Store, lost, now};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Responses of a batch.
const RESPONSES: usize = 64;
/// Bytes of a batch; flows of pods with many labels are large.
const BYTES: usize = 256 << 10;
/// Entries that are looked at for a batch.
const LOOK: usize = 1024;

pub(super) struct Reader {
    store: Arc<Store>,
    query: Query,
    place: Place,
    /// The number of the next event when the client asked.
    end: u64,
    /// How many flows may still be sent.
    left: u64,
    lost: Lost,
    disk: Disk,
    /// Whether it came to the latest time that is asked for.
    over: bool,
}

enum Place {
    Search(Search),
    Read(Cursor),
}

/// Whether what has a number was on its way to the disk.
enum Disk {
    Ready,
    /// It is to be waited for.
    Wanted(u64),
    /// It was.
    Waited(u64),
}

/// What to do next.
pub(super) enum Next {
    /// Read a batch.
    Batch,
    /// Wait for an event, or until a report is due.
    Event,
    /// Wait until history has the event with this number.
    Disk(u64),
    End,
}

#[derive(Default)]
struct Filling {
    batch: Batch,
    bytes: usize,
    looked: usize,
}

impl Reader {
    pub(super) fn new(store: Arc<Store>, query: Query, lost_interval: Duration) -> Self {
        let (_, end) = store.bounds();
        let left = if query.follow || query.number == 0 { u64::MAX } else { query.number };
        let place = place(&store, &query, end);
        Self { store, query, place, end, left, lost: Lost::new(lost_interval), disk: Disk::Ready, over: false }
    }

    pub(super) fn next(&self) -> Next {
        if self.over || self.left == 0 {
            return Next::End;
        }
        match (&self.disk, &self.place) {
            (Disk::Wanted(number), _) => Next::Disk(*number),
            (_, Place::Read(cursor)) if !cursor.is_on_disk() => {
                if !self.query.follow && cursor.ring >= self.end {
                    Next::End
                } else if cursor.ring == self.store.bounds().1 {
                    Next::Event
                } else {
                    Next::Batch
                }
            }
            _ => Next::Batch,
        }
    }

    /// The disk was waited for.
    pub(super) fn waited_for(&mut self, number: u64) {
        self.disk = Disk::Waited(number);
    }

    /// When the next report of lost events may be sent, if there is something to report.
    pub(super) fn report_due(&self) -> Option<Instant> {
        self.lost.due()
    }

    /// Tells the client how many events it missed, unless it was just told.
    pub(super) fn report(&mut self, last: bool) -> Batch {
        let lost = self.lost.take(last).map(ResponseTypes::LostEvents);
        lost.map(|lost| self.response(now(), lost)).into_iter().collect()
    }

    /// Reads until a batch is full, or there is nothing to read; it may be empty.
    pub(super) fn read(&mut self) -> Batch {
        let mut filling = Filling::default();
        while self.left > 0 && !filling.is_full() && self.step(&mut filling) {}
        filling.batch.extend(self.report(false));
        filling.batch
    }

    /// Reads one entry; whether to go on.
    fn step(&mut self, filling: &mut Filling) -> bool {
        filling.looked += 1;
        let cursor = match &mut self.place {
            Place::Search(search) => {
                let waited = matches!(self.disk, Disk::Waited(_));
                match search.go_on(&self.store, &self.query, waited) {
                    Found::Not => {}
                    Found::Later(number) => self.disk = Disk::Wanted(number),
                    Found::Here(cursor) => self.place = Place::Read(cursor),
                }
                return false;
            }
            Place::Read(cursor) => cursor,
        };
        if cursor.is_on_disk() {
            let (lost, past) = cursor.next_on_disk(|stored| self.store.is_own(stored), self.query.times());
            self.miss(lost, filling);
            if let Some(past) = past {
                self.entry(&past.decoder, past.number, &past.entry, past.skip, filling);
            }
            return true;
        }
        let number = cursor.ring;
        match self.store.read(number) {
            Read::End => false,
            Read::Entry(_) if !self.query.follow && number >= self.end => false,
            // One that follows has all it asked for; else a clock may have been set back since.
            Read::Entry(entry) if self.query.follow && self.query.until.is_some_and(|until| entry.time() > until) => {
                self.over = true;
                false
            }
            Read::Entry(entry) => {
                cursor.ring += 1;
                let (skip, decoder) = (cursor.take_skip(), Arc::clone(&self.store.decoder));
                self.entry(&decoder, number, &entry, skip, filling);
                true
            }
            Read::Lost { oldest, .. } => {
                let noted = cursor.noted();
                self.overtaken(number, noted, oldest, filling)
            }
        }
    }

    /// The ring has come round: what was there when the client asked may be on disk, but for losses noted there.
    fn overtaken(&mut self, number: u64, noted: u64, oldest: u64, filling: &mut Filling) -> bool {
        // What has come since is missing only to one that follows.
        let wanted = if self.query.follow { oldest } else { oldest.min(self.end) };
        if let Some(history) = self.query.history(&self.store).filter(|_| number < self.end) {
            let blocks = history.select_own(number..wanted);
            if !blocks.is_empty() {
                self.place = Place::Read(Cursor::of_disk(blocks, 0, 0, wanted).noting(noted).expecting(number));
                return true;
            }
            if history.lags(number) && !matches!(self.disk, Disk::Waited(waited) if waited == number) {
                self.disk = Disk::Wanted(number);
                return false;
            }
        }
        self.place = Place::Read(Cursor::of_ring(wanted, 0));
        self.miss(wanted.saturating_sub(number.max(noted)), filling);
        true
    }

    fn miss(&mut self, count: u64, filling: &mut Filling) {
        self.lost.add(count);
        filling.batch.extend(self.report(false));
    }

    fn entry(&mut self, decoder: &Decoder, number: u64, entry: &Entry, skip: usize, filling: &mut Filling) {
        if !self.query.is_of_time(entry.time()) {
            return;
        }
        match entry {
            Entry::Event(record) => {
                for flow in decoder.decode(number, record).into_iter().skip(skip) {
                    if self.left > 0 && self.query.wants(&flow, record.time) {
                        self.left -= 1;
                        let flow = match &self.query.mask {
                            Some(mask) => mask.apply(flow),
                            None => flow,
                        };
                        filling.push(self.response(record.time, ResponseTypes::Flow(flow)));
                    }
                }
            }
            Entry::Lost { time, count, by } => {
                filling.push(self.response(*time, ResponseTypes::LostEvents(lost(*time, *count, *by))));
            }
        }
    }

    fn response(&self, time: i64, response: ResponseTypes) -> GetFlowsResponse {
        GetFlowsResponse {
            node_name: self.store.decoder.node_name.clone(),
            time: Some(timestamp(time)),
            response_types: Some(response),
        }
    }
}

impl Filling {
    fn push(&mut self, response: GetFlowsResponse) {
        self.bytes += response.encoded_len();
        self.batch.push(response);
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= RESPONSES || self.bytes >= BYTES || self.looked >= LOOK
    }
}

/// Where to begin.
fn place(store: &Store, query: &Query, end: u64) -> Place {
    let (oldest, _) = store.bounds();
    let number = match query.since {
        Some(time) => return Place::Read(since(store, query, time)),
        None if query.asks_for_all() => return Place::Read(since(store, query, i64::MIN)),
        None if query.first || (query.number == 0 && !query.follow) => oldest,
        None if query.number == 0 => end,
        None => return Place::Search(Search::new(end, query.number)),
    };
    Place::Read(Cursor::of_ring(number, 0))
}

/// Where flows that are not older than the time begin.
fn since(store: &Store, query: &Query, time: i64) -> Cursor {
    let (oldest, number) = store.since(time);
    let Some(history) = query.history(store) else { return Cursor::of_ring(number, 0) };
    let cursor = Cursor::of_disk(history.select(0..oldest), 0, 0, oldest).but_ring_from(number);
    // All of this run is still on its way to the disk.
    if history.is_empty() { cursor.expecting(0) } else { cursor }
}
