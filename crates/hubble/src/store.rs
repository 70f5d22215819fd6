// SPDX-License-Identifier: Apache-2.0
//! Buffers events for readers. Adding one costs a copy and a lookup per name; flows are built only when somebody reads.

use crate::application::Request;
use crate::chatter::Chatter;
use crate::config::Config;
use crate::decode::{Decoder, Record, namespace};
use crate::history::{History, Stored};
use crate::names::{Names, Resolver, Tables};
use crate::proto::flow::{LostEvent, LostEventSource};
use crate::proto::timestamp;
use crate::redact::Redaction;
use crate::ring::{Read, Ring, Weigh};
use abi::event::Event;
use l7::Exchange;
use model::{NodeName, PodName, ServiceName};
use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const SECOND: i64 = 1_000_000_000;
/// How long a namespace counts as seen.
const SEEN: i64 = 3600 * SECOND;
/// Window of the flow rate.
const RATE: i64 = 60 * SECOND;

/// What the ring holds.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events, and a box would be an allocation for each")]
pub(crate) enum Entry {
    /// An event.
    Event(Record),
    /// This many events are not there.
    Lost {
        /// When it was noticed, in nanoseconds since 1970.
        time: i64,
        /// How many.
        count: u64,
        by: Loser,
    },
}

/// Who could not deliver events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loser {
    /// The kernel, or for history the ring.
    Kernel,
    /// The node's proxy, to which events are requests.
    Proxy,
}

impl Entry {
    pub(crate) fn time(&self) -> i64 {
        match self {
            Self::Event(record) => record.time,
            Self::Lost { time, .. } => *time,
        }
    }
}

impl Weigh for Entry {
    fn own(&self) -> usize {
        let Self::Event(record) = self else { return 0 };
        record.names.own() + record.request.as_deref().map_or(0, Request::size)
    }

    fn shared(&self, each: &mut impl FnMut(usize, &dyn Fn() -> usize)) {
        if let Self::Event(record) = self {
            record.names.shared(each);
        }
    }
}

/// The events of this node.
pub(crate) struct Store {
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) history: Option<History>,
    /// Wakes readers that wait for the next event.
    pub(crate) arrived: Notify,
    pub(crate) chatter: Chatter,
    state: Mutex<State>,
    resolver: Resolver,
    redaction: Redaction,
    /// What is added to the kernel's clock to get nanoseconds since 1970.
    offset: AtomicI64,
    started: Instant,
}

struct State {
    ring: Ring<Entry>,
    seen_flows: u64,
    /// When an identity was last seen in an event.
    identities: HashMap<u32, i64>,
}

/// Figures of the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Events held.
    pub current: u64,
    /// Events that can be held.
    pub max: u64,
    /// Bytes that the events take with their names.
    pub bytes: usize,
    /// Flows seen since the start.
    pub seen: u64,
    /// Flows per second over the last minute.
    pub rate: f64,
    /// Time since the start.
    pub uptime: Duration,
}

impl Store {
    pub(crate) fn new(config: &Config, node: &str, tables: Tables) -> Self {
        let node = NodeName { cluster: config.cluster.clone(), name: node.to_owned() };
        let decoder = Arc::new(Decoder {
            node_name: node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            correlate_policies: config.correlate_policies,
            instance: uuid::Uuid::new_v4().as_u64_pair().0,
        });
        let history = config.history().map(|limits| History::new(limits, Arc::clone(&decoder)));
        let ring = Ring::new(config.capacity.0, config.size());
        Self {
            decoder,
            history,
            arrived: Notify::new(),
            chatter: Chatter::default(),
            state: Mutex::new(State { ring, seen_flows: 0, identities: HashMap::new() }),
            resolver: Resolver::new(tables, node),
            redaction: config.redaction(),
            offset: AtomicI64::new(clock_offset()),
            started: Instant::now(),
        }
    }

    /// Adds an event.
    pub(crate) fn push(&self, event: &Event) {
        if self.chatter.takes(event) {
            return;
        }
        let time = event.time.cast_signed().saturating_add(self.offset.load(Ordering::Relaxed));
        if let Some((event, names)) = self.resolver.complete(event) {
            self.add(Record { time, event, names, request: None });
        }
    }

    /// Adds a request, and the Service that it went to.
    pub(crate) fn push_exchange(&self, exchange: Exchange, service: Option<ServiceName>) {
        let time = exchange.time.min(now());
        let (event, mut names) = self.resolver.exchange(&exchange);
        names.destination.service = service.or(names.destination.service);
        let request = Some(Arc::new(Request::new(exchange, &self.redaction)));
        self.add(Record { time, event, names, request });
    }

    fn add(&self, record: Record) {
        let Names { source, destination, .. } = &record.names;
        let mut state = self.state.lock();
        state.seen_flows += record.flow_count() as u64;
        // Who sends on the wire may name any number.
        for identity in [&source.identity, &destination.identity].into_iter().flatten() {
            if !identity.id.is_reserved() && !identity.id.is_node_local() {
                state.identities.insert(identity.id.0, record.time);
            }
        }
        state.ring.push(Entry::Event(record));
        std::mem::drop(state);
        self.arrived.notify_waiters();
    }

    /// Records events that could not be delivered.
    pub(crate) fn push_lost(&self, count: u64, by: Loser) {
        self.state.lock().ring.push(Entry::Lost { time: now(), count, by });
        self.arrived.notify_waiters();
    }

    /// Follows the wall clock when it is set.
    pub(crate) fn adjust_clock(&self) {
        self.offset.store(clock_offset(), Ordering::Relaxed);
    }

    pub(crate) fn read(&self, number: u64) -> Read<Entry> {
        self.state.lock().ring.read(number)
    }

    /// Whether a block of history is of this run of the agent.
    pub(crate) fn is_own(&self, stored: &Stored) -> bool {
        stored.decoder.instance == self.decoder.instance
    }

    /// The numbers of the oldest event and of the next one.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let ring = &self.state.lock().ring;
        (ring.oldest(), ring.next())
    }

    /// The numbers of the oldest event, and of the oldest one that is not older than the time.
    pub(crate) fn since(&self, time: i64) -> (u64, u64) {
        let ring = &self.state.lock().ring;
        let older = ring.iter().take_while(|entry| entry.time() < time).count() as u64;
        (ring.oldest(), ring.oldest() + older)
    }

    /// The pods that flows may be of now.
    pub(crate) fn pods(&self) -> impl Iterator<Item = PodName> {
        self.resolver.pods()
    }

    /// The namespaces of the flows of the last hour, with their clusters.
    pub(crate) fn namespaces(&self) -> BTreeSet<(String, String)> {
        let oldest = now() - SEEN;
        let identities: Vec<u32> = {
            let mut state = self.state.lock();
            state.identities.retain(|_, seen| *seen >= oldest);
            state.identities.keys().copied().collect()
        };
        let known = identities.into_iter().filter_map(|identity| self.resolver.identity(identity));
        known.filter_map(|identity| namespace(&identity)).collect()
    }

    /// How many identities of the last hour are remembered.
    #[cfg(test)]
    pub(crate) fn identities(&self) -> usize {
        self.state.lock().identities.len()
    }

    pub(crate) fn figures(&self) -> Figures {
        let now = now();
        let state = self.state.lock();
        let recent = state.ring.iter().rev().take_while(|entry| entry.time() > now - RATE);
        let (mut flows, mut oldest) = (0_u64, now);
        for entry in recent {
            if let Entry::Event(record) = entry {
                flows += record.flow_count() as u64;
                oldest = record.time;
            }
        }
        // A ring that filled up in less than a minute gives the rate over that time only.
        let whole = state.ring.len() < state.ring.capacity();
        let span = if whole { RATE } else { (now - oldest).clamp(SECOND, RATE) };
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = flows as f64 / (span as f64 / SECOND as f64);
        let (current, max, seen) = (state.ring.len(), state.ring.capacity(), state.seen_flows);
        Figures { current, max, bytes: state.ring.bytes(), seen, rate, uptime: self.started.elapsed() }
    }
}

/// What clients are told of events that could not be delivered.
pub(crate) fn lost(time: i64, count: u64, by: Loser) -> LostEvent {
    let source = match by {
        Loser::Kernel => LostEventSource::PerfEventRingBuffer,
        Loser::Proxy => LostEventSource::ObserverEventsQueue,
    };
    let (source, at) = (source.into(), Some(timestamp(time)));
    LostEvent { source, num_events_lost: count, cpu: None, first: at, last: at }
}

/// Nanoseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    clock(ClockId::CLOCK_REALTIME)
}

fn clock_offset() -> i64 {
    clock(ClockId::CLOCK_REALTIME) - clock(ClockId::CLOCK_MONOTONIC)
}

fn clock(id: ClockId) -> i64 {
    clock_gettime(id).map_or(0, |t| t.tv_sec() * SECOND + t.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_namespace_counts_as_seen_for_an_hour() {
        let store = Store::new(&Config::default(), "n1", fixture::tables().tables);
        let seen = |ago| {
            let [client, server] = [([10, 0, 0, 10], 41000).into(), ([10, 0, 1, 20], 80).into()];
            store.push_exchange(Exchange { time: now() - ago, client, server, ..Exchange::default() }, None);
            store.namespaces()
        };
        assert_eq!(seen(SEEN + SECOND), BTreeSet::new());
        assert_eq!(seen(SEEN - 60 * SECOND), BTreeSet::from([("blue".to_owned(), "shop".to_owned())]));
    }
}
