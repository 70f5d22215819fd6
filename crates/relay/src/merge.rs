// SPDX-License-Identifier: Apache-2.0
//! Streams of all nodes as one, in the order of time.
//!
//! Each node's stream is in that order already, so the oldest answer at hand is the next one, provided that every node has one at hand.
//! A node that has sent nothing for a while is not waited for. What is held back is bounded: a node whose answers wait is not read from, which
//! slows it down, and when the stream is live and would fall behind by that, order gives way.

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
    /// How many answers may be held back; at least one of each node.
    pub(crate) buffer: usize,
    /// How long a node that sends nothing is waited for.
    pub(crate) drain: Duration,
    /// How long a node may take to begin to answer.
    pub(crate) opening: Duration,
    /// How long a node may be silent that is not asked to go on for ever.
    pub(crate) silence: Duration,
    /// Longest time between two attempts to ask a node again.
    pub(crate) retry: Duration,
}

/// How many unavailable nodes the client is told the reasons of.
const REASONS: usize = 10;

/// The client went away.
struct Gone;

type Reading<C> = Pin<Box<dyn Future<Output = Heard<C>> + Send>>;

/// Asks all nodes and sends the client what they answer, until they have answered everything or the client goes away.
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
    // The client is gone: nobody is left to tell.
    let _ = merge.run().await;
}

struct Merge<C: Call> {
    call: C,
    began: Time,
    rules: Rules,
    nodes: Nodes,
    sender: Sender<Result<C::Answer, Status>>,
    /// The nodes that were asked, by name.
    sources: BTreeMap<String, Source<C>>,
    /// Those of which no answer is held, by the time at which the last one was taken.
    awaited: BTreeSet<(Instant, String)>,
    /// Reads of their streams.
    reading: FuturesUnordered<Reading<C>>,
    /// What was read, with the names of the nodes.
    held: BTreeMap<(Time, u64), (String, C::Answer)>,
    /// Tells answers of the same time apart.
    numbers: u64,
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

    /// Whether nodes that come, or come back, are asked too.
    fn goes_on(&self) -> bool {
        self.call.goes_on()
    }

    /// When something is to be done although nothing is heard.
    fn due(&self) -> Option<Instant> {
        let patience = self.awaited.last().map(|(since, _)| *since + self.rules.drain);
        let patience = patience.filter(|_| !self.held.is_empty());
        let again = self.sources.values().filter_map(Source::again).min();
        patience.into_iter().chain(again).min()
    }

    /// Begins to read from a node, if it is connected.
    fn ask(&mut self, name: &str, node: &Node, again: bool) {
        let Some(channel) = node.channel() else { return };
        let source = self.sources.entry(name.to_owned()).or_insert_with(|| Source::new(self.rules.retry));
        let call = if again { self.call.after(source.last().unwrap_or(self.began)) } else { self.call.clone() };
        let generation = source.begin();
        let stream = source::open(call, channel.clone(), self.rules.opening);
        self.awaited.insert((source.waiting_since(), name.to_owned()));
        self.read(name, generation, stream);
    }

    fn read(&mut self, name: &str, generation: u64, stream: source::Answers<C>) {
        let patience = (!self.goes_on()).then_some(self.rules.silence);
        self.reading.push(Box::pin(next(name.to_owned(), generation, stream, patience)));
    }

    /// Takes in what was read.
    async fn take(&mut self, heard: Heard<C>) -> Result<(), Gone> {
        let Heard { name, generation, stream, result } = heard;
        let goes_on = self.goes_on();
        let Some(source) = self.sources.get_mut(&name).filter(|source| source.is(generation)) else { return Ok(()) };
        match result {
            Some(Ok(answer)) => {
                self.awaited.remove(&(source.waiting_since(), name.clone()));
                let time = source.hold(C::time(&answer));
                self.held.insert((time, self.numbers), (name.clone(), answer));
                self.numbers += 1;
                if source.held() < self.share() {
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

    /// How many answers of one node are held at most.
    fn share(&self) -> usize {
        (self.rules.buffer / self.sources.len().max(1)).max(1)
    }

    /// Tells the client that a node does not answer any more; the others go on.
    async fn lose(&mut self, name: &str, message: &str) -> Result<(), Gone> {
        let Some(source) = self.sources.get_mut(name) else { return Ok(()) };
        self.awaited.remove(&(source.waiting_since(), name.to_owned()));
        if source.fail(message, self.call.goes_on()) {
            self.tell(NodeState::NodeError, vec![name.to_owned()], message).await?;
        }
        Ok(())
    }

    /// Sends the oldest answer if it may go; says whether it did.
    async fn send_oldest(&mut self) -> Result<bool, Gone> {
        let patient = self.awaited.last().is_some_and(|(since, _)| *since + self.rules.drain > Instant::now());
        let behind = self.goes_on() && self.sources.values().any(Source::is_parked);
        if patient && !behind {
            return Ok(false);
        }
        let Some((_, (name, answer))) = self.held.pop_first() else { return Ok(false) };
        self.send(answer).await?;
        if let Some(source) = self.sources.get_mut(&name) {
            if source.release() {
                self.awaited.insert((source.waiting_since(), name.clone()));
            }
            if let Some((generation, stream)) = source.unpark() {
                self.read(&name, generation, stream);
            }
        }
        Ok(true)
    }

    /// Asks nodes that have come, and lets go of those that are no more.
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

    /// Asks the nodes again whose time has come.
    fn ask_again(&mut self) {
        let now = Instant::now();
        let nodes = self.nodes.borrow().clone();
        let due = self.sources.iter().filter(|(_, source)| source.again().is_some_and(|again| again <= now));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            match nodes.get(&name).filter(|node| node.channel().is_some()) {
                Some(node) => self.ask(&name, node, true),
                // It is up to the pool to reach it first.
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
