// SPDX-License-Identifier: Apache-2.0
//! Reading flows out of the store for one client: first what only the disk has, then the ring.

mod past;

use crate::decode::Decoder;
use crate::decode::Record;
use crate::filter::Filters;
use crate::history::Stored;
use crate::mask::Mask;
use crate::proto::flow::{Flow, LostEvent, LostEventSource};
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::timestamp;
use crate::ring::Read;
use crate::store::{Entry, Store, lost, now};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::Instant;
use tonic::Status;

/// What a client asked for.
pub(crate) struct Query {
    pub(crate) filters: Filters,
    pub(crate) mask: Option<Mask>,
    /// Nanoseconds since 1970.
    pub(crate) since: Option<i64>,
    /// Nanoseconds since 1970.
    pub(crate) until: Option<i64>,
    pub(crate) number: u64,
    pub(crate) first: bool,
    pub(crate) follow: bool,
}

/// The client went away.
struct Gone;

/// Responses buffered for a slow client.
const QUEUE: usize = 64;

/// Serves a client's request until it is complete or the client goes away.
pub(crate) fn subscribe(
    store: Arc<Store>,
    query: Query,
    lost_interval: Duration,
) -> Receiver<Result<GetFlowsResponse, Status>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
    tokio::spawn(stream(store, query, lost_interval, sender));
    receiver
}

async fn stream(
    store: Arc<Store>,
    query: Query,
    lost_interval: Duration,
    sender: Sender<Result<GetFlowsResponse, Status>>,
) {
    let (_, end) = store.bounds();
    let start = start(&store, &query, end).await;
    let left = if query.follow || query.number == 0 { u64::MAX } else { query.number };
    let lost = Lost { interval: lost_interval, sent: None, count: 0, first: 0 };
    let mut reader = Reader { store: &store, query: &query, sender: &sender, left, lost };
    // The client is gone.
    let _ = reader.run(start, end).await;
}

/// Where to begin: an event of the ring, and how many of its flows to pass over; before it, what the disk has.
#[derive(Clone, Default)]
struct Position {
    past: Vec<Stored>,
    /// How many entries of the first of these to pass over.
    entries: usize,
    number: u64,
    skip: usize,
}

async fn start(store: &Store, query: &Query, end: u64) -> Position {
    let (oldest, _) = store.bounds();
    let number = match query.since {
        Some(time) => return past::since(store, query, time, oldest),
        None if query.asks_for_all() => return past::since(store, query, i64::MIN, oldest),
        None if query.first || (query.number == 0 && !query.follow) => oldest,
        None if query.number == 0 => end,
        None => return rewind(store, query, end).await,
    };
    Position { number, ..Position::default() }
}

/// Where the last `query.number` matching flows begin.
async fn rewind(store: &Store, query: &Query, end: u64) -> Position {
    let mut missing = query.number;
    let mut number = end;
    while let Some(before) = number.checked_sub(1) {
        let Read::Entry(entry) = store.read(before) else { break };
        number = before;
        let Entry::Event(record) = entry else { continue };
        if let Some(skip) = last(&store.decoder, number, &record, query, &mut missing) {
            return Position { number, skip, ..Position::default() };
        }
        pause(number).await;
    }
    past::rewind(store, query, number, missing).await
}

/// Counts the flows of an event that are wanted, from its last on; when none is missing any more, how many are before that.
fn last(decoder: &Decoder, number: u64, record: &Record, query: &Query, missing: &mut u64) -> Option<usize> {
    for (index, flow) in decoder.decode(number, record).iter().enumerate().rev() {
        *missing -= u64::from(query.wants(flow, record.time));
        if *missing == 0 {
            return Some(index);
        }
    }
    None
}

/// Yields now and then, however many events do not match.
async fn pause(number: u64) {
    if number.is_multiple_of(64) {
        tokio::task::yield_now().await;
    }
}

impl Query {
    /// All flows from now on.
    pub(crate) fn live(filters: Filters, mask: Option<Mask>) -> Self {
        Self { filters, mask, since: None, until: None, number: 0, first: false, follow: true }
    }

    pub(crate) fn wants(&self, flow: &Flow, time: i64) -> bool {
        self.is_of_time(time) && self.filters.matches(flow)
    }

    fn is_of_time(&self, time: i64) -> bool {
        let (earliest, latest) = self.times();
        earliest <= time && time <= latest
    }

    /// The earliest and latest time that is asked for.
    fn times(&self) -> (i64, i64) {
        (self.since.unwrap_or(i64::MIN), self.until.unwrap_or(i64::MAX))
    }

    /// Whether it asks for all there is, or for all up to a time.
    fn asks_for_all(&self) -> bool {
        let unbounded = self.number == u64::MAX || (self.number == 0 && self.until.is_some() && !self.follow);
        self.since.is_none() && !self.first && unbounded
    }

    /// Whether it asks for more than the ring and what comes: for a time, or for the last so many.
    fn reaches_back(&self) -> bool {
        self.since.is_some() || self.until.is_some() || (self.number > 0 && !self.first)
    }
}

struct Reader<'a> {
    store: &'a Store,
    query: &'a Query,
    sender: &'a Sender<Result<GetFlowsResponse, Status>>,
    left: u64,
    lost: Lost,
}

impl Reader<'_> {
    async fn run(&mut self, start: Position, end: u64) -> Result<(), Gone> {
        let mut number = start.number;
        let mut skip = if start.past.is_empty() { start.skip } else { 0 };
        self.past(start, 0..number).await?;
        while self.left > 0 && (self.query.follow || number < end) {
            let arrived = self.store.arrived.notified();
            match self.store.read(number) {
                Read::Entry(entry) => {
                    // One that follows has all it asked for; else a clock may have been set back since.
                    if self.query.follow && self.query.until.is_some_and(|until| entry.time() > until) {
                        break;
                    }
                    self.entry(&self.store.decoder, number, &entry, skip).await?;
                    number += 1;
                    skip = 0;
                }
                Read::Lost { count, oldest } => {
                    if number < end
                        && let Some(reached) = self.catch_up(number..oldest).await?
                    {
                        number = reached;
                        continue;
                    }
                    self.lost.add(count);
                    self.report(false).await?;
                    number = oldest;
                    skip = 0;
                }
                Read::End => {
                    self.wait(arrived).await?;
                }
            }
            pause(number).await;
        }
        self.report(true).await
    }

    /// Waits for the next event, the time to report lost ones, or the end of the client.
    async fn wait(&mut self, arrived: impl Future<Output = ()>) -> Result<(), Gone> {
        let due = self.lost.due();
        tokio::select! {
            () = arrived => Ok(()),
            () = self.sender.closed() => Err(Gone),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.report(false).await,
        }
    }

    async fn entry(&mut self, decoder: &Decoder, number: u64, entry: &Entry, skip: usize) -> Result<(), Gone> {
        if !self.query.is_of_time(entry.time()) {
            return Ok(());
        }
        match entry {
            Entry::Event(record) => {
                for flow in decoder.decode(number, record).into_iter().skip(skip) {
                    if self.left > 0 && self.query.wants(&flow, record.time) {
                        self.left -= 1;
                        let time = record.time;
                        let flow =
                            self.query.mask.as_ref().map_or_else(|| flow.clone(), |mask| mask.apply(flow.clone()));
                        self.send(time, ResponseTypes::Flow(flow)).await?;
                    }
                }
                Ok(())
            }
            Entry::Lost { time, count } => self.send(*time, ResponseTypes::LostEvents(lost(*time, *count))).await,
        }
    }

    /// Tells the client how many events it missed, unless it was just told.
    async fn report(&mut self, last: bool) -> Result<(), Gone> {
        match self.lost.take(last) {
            Some(lost) => self.send(now(), ResponseTypes::LostEvents(lost)).await,
            None => Ok(()),
        }
    }

    async fn send(&self, time: i64, response: ResponseTypes) -> Result<(), Gone> {
        let response = GetFlowsResponse {
            node_name: self.store.decoder.node_name.clone(),
            time: Some(timestamp(time)),
            response_types: Some(response),
        };
        self.sender.send(Ok(response)).await.map_err(|_| Gone)
    }
}

/// Lost events not yet reported to the client.
struct Lost {
    interval: Duration,
    sent: Option<Instant>,
    count: u64,
    first: i64,
}

impl Lost {
    fn add(&mut self, count: u64) {
        if self.count == 0 {
            self.first = now();
        }
        self.count += count;
    }

    /// When the next report may be sent, if there is something to report.
    fn due(&self) -> Option<Instant> {
        (self.count > 0).then(|| self.sent.map_or_else(Instant::now, |sent| sent + self.interval))
    }

    fn take(&mut self, last: bool) -> Option<LostEvent> {
        let due = self.due()?;
        if !last && due > Instant::now() {
            return None;
        }
        self.sent = Some(Instant::now());
        Some(LostEvent {
            source: LostEventSource::HubbleRingBuffer.into(),
            num_events_lost: std::mem::take(&mut self.count),
            cpu: None,
            first: Some(timestamp(self.first)),
            last: Some(timestamp(now())),
        })
    }
}
