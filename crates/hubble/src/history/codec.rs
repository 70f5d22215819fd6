// SPDX-License-Identifier: Apache-2.0
//! Entries of the ring as few bytes, in blocks that each can be read alone.
//!
//! A block is a sequence of lines. What many events have in common (a side with its names, a rule, labels, and the combination of these)
//! is defined once by a line of its own, and events refer to it by number; so an event is about ten bytes.

mod definitions;
mod shared;

use crate::application::Request;
use crate::decode::Record;
use crate::names::Names;
use crate::store::{Entry, Loser};
use abi::event::Event;
use definitions::{Context, Labels, Rule, Side};
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use shared::{ByAddress, ContextKey, SideKey};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// What a line is; from [`EVENT`] on it is an event, and the rest the number of its context.
mod line {
    pub(super) const LOST: u64 = 0;
    pub(super) const SIDE: u64 = 1;
    pub(super) const RULE: u64 = 2;
    pub(super) const LABELS: u64 = 3;
    pub(super) const CONTEXT: u64 = 4;
    pub(super) const EVENT: u64 = 5;
}

/// Is added to a count of lost events if the proxy has lost them; nobody loses as many.
const BY_PROXY: u64 = 1 << 63;

/// The lines are not what an encoder writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a block of history")]
pub(super) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

/// Writes the lines of one block.
#[derive(Default)]
pub(super) struct Encoder {
    time: i64,
    sides: HashMap<SideKey, u64>,
    rules: HashMap<ByAddress<model::Provenance>, u64>,
    labels: HashMap<ByAddress<[String]>, u64>,
    contexts: HashMap<ContextKey, u64>,
}

impl Encoder {
    pub(super) fn encode(&mut self, entry: &Entry, out: &mut Vec<u8>) {
        let delta = zigzag(entry.time().wrapping_sub(self.time));
        self.time = entry.time();
        match entry {
            Entry::Lost { count, by, .. } => {
                let by = if *by == Loser::Proxy { BY_PROXY } else { 0 };
                varints(&[line::LOST, delta, *count | by], out);
            }
            Entry::Event(record) => {
                let context = self.context(record, out);
                let event = &record.event;
                let (sport, dport) = (u16::from_be(event.sport).into(), u16::from_be(event.dport).into());
                varints(&[line::EVENT + context, delta, sport, dport, event.len.into(), event.packets.into()], out);
            }
        }
    }

    fn context(&mut self, record: &Record, out: &mut Vec<u8>) -> u64 {
        let Names { source, destination, egress, ingress, node_labels, interface } = &record.names;
        let event = &record.event;
        let mut side = |key: SideKey| number(&mut self.sides, key, |key| define(line::SIDE, &key.definition(), out));
        let sides = [side(SideKey::source(event, source)), side(SideKey::destination(event, destination))];
        let mut rule = |rule: &Option<_>| {
            let Some(rule) = rule else { return 0 };
            let key = ByAddress(Arc::clone(rule));
            1 + number(&mut self.rules, key, |key| define(line::RULE, &Rule::from(&*key.0), out))
        };
        let rules = [rule(egress), rule(ingress)];
        let labels = node_labels.as_ref().map_or(0, |labels| {
            let key = ByAddress(Arc::clone(labels));
            1 + number(&mut self.labels, key, |key| define(line::LABELS, &Labels { labels: key.0.to_vec() }, out))
        });
        let key = ContextKey {
            sides,
            rules,
            labels,
            interface: *interface,
            event: shared::without_parts(event),
            request: record.request.clone().map(ByAddress),
        };
        number(&mut self.contexts, key, |key| define(line::CONTEXT, &key.definition(), out))
    }
}

/// The number of a definition; one that is new is defined.
fn number<K: Hash + Eq>(known: &mut HashMap<K, u64>, key: K, define: impl FnOnce(&K)) -> u64 {
    if let Some(number) = known.get(&key) {
        return *number;
    }
    define(&key);
    let number = known.len() as u64;
    known.insert(key, number);
    number
}

fn define(line: u64, definition: &impl Message, out: &mut Vec<u8>) {
    encode_varint(line, out);
    // A vector has room.
    let _ = definition.encode_length_delimited(out);
}

fn varints(values: &[u64], out: &mut Vec<u8>) {
    values.iter().for_each(|value| encode_varint(*value, out));
}

/// Reads the lines of one block.
#[derive(Default)]
pub(super) struct Decoder {
    time: i64,
    sides: Vec<definitions::SideRow>,
    rules: Vec<Arc<model::Provenance>>,
    labels: Vec<Arc<[String]>>,
    contexts: Vec<(Event, Names, Option<Arc<Request>>)>,
}

impl Decoder {
    /// The next entry; none at the end.
    pub(super) fn next(&mut self, lines: &mut &[u8]) -> Result<Option<Entry>, Malformed> {
        while !lines.is_empty() {
            match decode_varint(&mut *lines)? {
                line::LOST => {
                    let time = self.advance(lines)?;
                    let count = decode_varint(&mut *lines)?;
                    let by = if count & BY_PROXY == 0 { Loser::Kernel } else { Loser::Proxy };
                    return Ok(Some(Entry::Lost { time, count: count & !BY_PROXY, by }));
                }
                line::SIDE => self.sides.push(Side::decode_length_delimited(&mut *lines)?.try_into()?),
                line::RULE => self.rules.push(Arc::new(Rule::decode_length_delimited(&mut *lines)?.try_into()?)),
                line::LABELS => self.labels.push(Labels::decode_length_delimited(&mut *lines)?.labels.into()),
                line::CONTEXT => {
                    let context = Context::decode_length_delimited(&mut *lines)?;
                    let (event, names) = self.resolve(&context).ok_or(Malformed)?;
                    self.contexts.push((event, names, context.request.map(Arc::new)));
                }
                event => return self.event(event - line::EVENT, lines).map(|record| Some(Entry::Event(record))),
            }
        }
        Ok(None)
    }

    fn event(&mut self, context: u64, lines: &mut &[u8]) -> Result<Record, Malformed> {
        let time = self.advance(lines)?;
        let mut part = || decode_varint(&mut *lines);
        let (sport, dport, len, packets) = (part()?, part()?, part()?, part()?);
        let (event, names, request) = at(&self.contexts, context).ok_or(Malformed)?;
        let port = |port| u16::try_from(port).map(u16::to_be).map_err(|_| Malformed);
        let event = Event {
            sport: port(sport)?,
            dport: port(dport)?,
            len: len.try_into().map_err(|_| Malformed)?,
            packets: packets.try_into().map_err(|_| Malformed)?,
            ..*event
        };
        Ok(Record { time, event, names: names.clone(), request: request.clone() })
    }

    fn advance(&mut self, lines: &mut &[u8]) -> Result<i64, Malformed> {
        let delta = decode_varint(&mut *lines)?;
        self.time = self.time.wrapping_add((delta >> 1).cast_signed() ^ -(delta & 1).cast_signed());
        Ok(self.time)
    }

    fn resolve(&self, context: &Context) -> Option<(Event, Names)> {
        let source = at(&self.sides, context.source)?;
        let destination = at(&self.sides, context.destination)?;
        let rule = |number: u64| match number.checked_sub(1) {
            Some(number) => at(&self.rules, number).cloned().map(Some),
            None => Some(None),
        };
        let node_labels = match context.labels.checked_sub(1) {
            Some(number) => Some(Arc::clone(at(&self.labels, number)?)),
            None => None,
        };
        let names = Names {
            source: source.peer.clone(),
            destination: destination.peer.clone(),
            egress: rule(context.egress_rule)?,
            ingress: rule(context.ingress_rule)?,
            node_labels,
            interface: crate::names::InterfaceName::new(&context.interface),
        };
        Some((context.event(source, destination)?, names))
    }
}

fn at<T>(items: &[T], number: u64) -> Option<&T> {
    items.get(usize::try_from(number).ok()?)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
pub(super) mod tests;
