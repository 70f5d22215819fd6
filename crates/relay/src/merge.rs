// SPDX-License-Identifier: Apache-2.0
//! Merges the streams of all nodes by time.
//!
//! Each node's stream is already ordered, so the oldest buffered response is next, provided every node has one
//! buffered. A node that has sent nothing for a while is not waited for. The buffer is bounded: a node with buffered
//! responses is not read from, which slows it down, and if a live stream would fall behind because of that, ordering
//! gives way.

mod call;
mod source;
#[cfg(test)]
mod tests;

pub(crate) use call::Call;

use crate::pool::{Link, Node, Nodes};
use call::Time;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hubble::proto::relay::NodeState;
use prost::Message;
use source::{Heard, Source, next};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

/// How streams are merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How many responses may be buffered; at least [`EACH`] per node.
    pub(crate) buffer: usize,
    /// How long to wait for a silent node.
    pub(crate) drain: Duration,
    /// How long a node may take to begin responding.
    pub(crate) opening: Duration,
    /// How long a node may be silent in a request that is not live.
    pub(crate) silence: Duration,
    /// Maximum delay between attempts to query a node again.
    pub(crate) retry: Duration,
}

/// Responses of a node that may be buffered among however many: nodes tell of flows in bursts, and with less than a burst ordering would give way
/// all the time.
const EACH: usize = 16;
/// Bytes of responses that may be buffered; at least one response per node.
const BYTES: usize = 16 << 20;
/// For how many unavailable nodes the client gets the reason.
const REASONS: usize = 10;

/// The client went away.
struct Gone;

/// None of a node that has gone meanwhile.
type Reading<C> = Pin<Box<dyn Future<Output = Option<Heard<C>>> + Send>>;

/// Queries all nodes and sends their responses to the client, until all are done or the client goes away.
pub(crate) async fn merge<C: Call>(call: C, nodes: Nodes, rules: Rules, sender: Sender<Result<C::Answer, Status>>) {
    let merge = Merge {
        began: call::now(),
        call,
        rules,
        nodes,
        sender,
        sources: BTreeMap::new(),
        awaited: BTreeSet::new(),
        reading: FuturesUnordered::new(),
        held: BTreeMap::new(),
        numbers: 0,
    };
    // The client is gone.
    let _ = merge.run().await;
}

struct Merge<C: Call> {
    call: C,
    began: Time,
    rules: Rules,
    nodes: Nodes,
    sender: Sender<Result<C::Answer, Status>>,
    /// Queried nodes, by name.
    sources: BTreeMap<String, Source<C>>,
    /// Those with no buffered response, by the time the last one was taken.
    awaited: BTreeSet<(Instant, String)>,
    /// Reads of their streams.
    reading: FuturesUnordered<Reading<C>>,
    /// What was read.
    held: BTreeMap<(Time, u64), Held<C>>,
    /// Marks reads, and breaks ties between responses with the same time.
    numbers: u64,
}

/// A response that waits for older ones.
struct Held<C: Call> {
    name: String,
    generation: u64,
    answer: C::Answer,
}

impl<C: Call> Merge<C> {
    async fn run(mut self) -> Result<(), Gone> {
        let nodes = self.nodes.borrow_and_update().clone();
        let (mut up, mut away, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for (name, node) in &nodes {
            match &node.link {
                Link::Connected(_) => up.push(name.clone()),
                Link::Away(reason) => {
                    away.push(name.clone());
                    reasons.push(format!("{name}: {reason}"));
                }
            }
        }
        reasons.truncate(REASONS);
        self.tell(NodeState::NodeConnected, up, "").await?;
        self.tell(NodeState::NodeUnavailable, away, &reasons.join("; ")).await?;
        for (name, node) in &nodes {
            self.ask(name, node, false);
        }
        loop {
            while let Some(Some(heard)) = self.reading.next().now_or_never() {
                self.take(heard).await?;
            }
            if self.send_oldest().await? {
                continue;
            }
            if self.held.is_empty() && self.reading.is_empty() && !self.goes_on() {
                return Ok(());
            }
            let changes = self.goes_on();
            let due = self.due();
            tokio::select! {
                Some(heard) = self.reading.next() => self.take(heard).await?,
                Ok(()) = self.nodes.changed(), if changes => self.follow_nodes().await?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.ask_again(),
                () = self.sender.closed() => return Err(Gone),
            }
        }
    }

    /// Whether to query nodes that appear or come back.
    fn goes_on(&self) -> bool {
        self.call.goes_on()
    }

    /// When to act even if nothing arrives.
    fn due(&self) -> Option<Instant> {
        let patience = self.awaited.last().map(|(since, _)| *since + self.rules.drain);
        let patience = patience.filter(|_| !self.held.is_empty());
        let again = self.sources.values().filter_map(Source::again).min();
        patience.into_iter().chain(again).min()
    }

    /// Starts reading from a node, if it is connected.
    fn ask(&mut self, name: &str, node: &Node, again: bool) {
        let Some(channel) = node.channel() else { return };
        self.numbers += 1;
        let generation = self.numbers;
        let new = || Source::new(self.rules.retry, self.call.past(), generation);
        let source = self.sources.entry(name.to_owned()).or_insert_with(new);
        let call = if again { self.call.after(source.last().unwrap_or(self.began)) } else { self.call.clone() };
        source.begin(generation);
        let stream = source::open(call, channel.clone(), self.rules.opening);
        if source.held().0 == 0 {
            self.awaited.insert((source.waiting_since(), name.to_owned()));
        }
        self.read(name, generation, stream);
    }

    fn read(&mut self, name: &str, generation: u64, stream: source::Answers<C>) {
        let Some(gone) = self.sources.get(name).map(Source::gone) else { return };
        let patience = (!self.goes_on()).then_some(self.rules.silence);
        let next = next(name.to_owned(), generation, stream, patience);
        self.reading.push(Box::pin(async move { gone.run_until_cancelled(next).await }));
    }

    /// Handles what was read.
    async fn take(&mut self, heard: Option<Heard<C>>) -> Result<(), Gone> {
        let Some(Heard { name, generation, stream, result }) = heard else { return Ok(()) };
        let goes_on = self.goes_on();
        let Some(source) = self.sources.get_mut(&name).filter(|source| source.is(generation)) else { return Ok(()) };
        match result {
            Some(Ok(answer)) => {
                let Some(answer) = C::of_node(answer, &name) else {
                    return self.lose(&name, "it speaks of nodes").await;
                };
                self.awaited.remove(&(source.waiting_since(), name.clone()));
                let time = source.hold(C::time(&answer), answer.encoded_len(), self.began);
                self.numbers += 1;
                self.held.insert((time, self.numbers), Held { name: name.clone(), generation, answer });
                let (held, bytes) = source.held();
                if held < self.share(self.rules.buffer).max(EACH) && bytes < self.share(BYTES) {
                    self.read(&name, generation, stream);
                } else if let Some(source) = self.sources.get_mut(&name) {
                    source.park(stream);
                }
                Ok(())
            }
            Some(Err(status)) => self.lose(&name, status.message()).await,
            None if goes_on => self.lose(&name, "the node has ended the stream").await,
            None => {
                self.awaited.remove(&(source.waiting_since(), name));
                source.end();
                Ok(())
            }
        }
    }

    /// What each node may have of something; at least one.
    fn share(&self, all: usize) -> usize {
        (all / self.sources.len().max(1)).max(1)
    }

    /// Tells the client that a node no longer responds; the others continue.
    async fn lose(&mut self, name: &str, message: &str) -> Result<(), Gone> {
        let Some(source) = self.sources.get_mut(name) else { return Ok(()) };
        self.awaited.remove(&(source.waiting_since(), name.to_owned()));
        if source.fail(message, self.call.goes_on()) {
            self.tell(NodeState::NodeError, vec![name.to_owned()], message).await?;
        }
        Ok(())
    }

    /// Sends the oldest response if possible; returns whether it did.
    async fn send_oldest(&mut self) -> Result<bool, Gone> {
        let patient = self.awaited.last().is_some_and(|(since, _)| *since + self.rules.drain > Instant::now());
        let behind = self.goes_on() && self.sources.values().any(Source::is_parked);
        if patient && !behind {
            return Ok(false);
        }
        let Some((_, Held { name, generation, answer })) = self.held.pop_first() else { return Ok(false) };
        let size = answer.encoded_len();
        self.send(answer).await?;
        if let Some(source) = self.sources.get_mut(&name).filter(|source| source.has_read(generation)) {
            if source.release(size) {
                self.awaited.insert((source.waiting_since(), name.clone()));
            }
            if let Some((generation, stream)) = source.unpark() {
                self.read(&name, generation, stream);
            }
        }
        Ok(true)
    }

    /// Queries new nodes, and drops those that are gone.
    async fn follow_nodes(&mut self) -> Result<(), Gone> {
        let nodes = self.nodes.borrow_and_update().clone();
        let gone: Vec<String> = self.sources.keys().filter(|name| !nodes.contains_key(*name)).cloned().collect();
        for name in &gone {
            if let Some(source) = self.sources.remove(name) {
                self.awaited.remove(&(source.waiting_since(), name.clone()));
            }
        }
        self.tell(NodeState::NodeGone, gone, "").await?;
        let new = nodes.iter().filter(|(name, node)| node.channel().is_some() && !self.sources.contains_key(*name));
        let new: Vec<_> = new.collect();
        self.tell(NodeState::NodeConnected, new.iter().map(|(name, _)| (*name).clone()).collect(), "").await?;
        for (name, node) in new {
            self.ask(name, node, true);
        }
        Ok(())
    }

    /// Retries the nodes that are due.
    fn ask_again(&mut self) {
        let now = Instant::now();
        let nodes = self.nodes.borrow().clone();
        let due = self.sources.iter().filter(|(_, source)| source.again().is_some_and(|again| again <= now));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            match nodes.get(&name).filter(|node| node.channel().is_some()) {
                Some(node) => self.ask(&name, node, true),
                // The pool must reconnect first.
                None => drop(self.sources.get_mut(&name).map(Source::put_off)),
            }
        }
    }

    async fn tell(&mut self, state: NodeState, names: Vec<String>, message: &str) -> Result<(), Gone> {
        match C::node_status(state, &names, message).filter(|_| !names.is_empty()) {
            Some(answer) => self.send(answer).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, answer: C::Answer) -> Result<(), Gone> {
        self.sender.send(Ok(answer)).await.map_err(|_| Gone)
    }
}
