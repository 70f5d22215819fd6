// SPDX-License-Identifier: Apache-2.0
//! The words that the steps, the model and what is observed have in common.

use std::net::IpAddr;

use abi::DropReason;

/// Which interface of a pod: there are three.
pub(crate) type Slot = usize;

/// One end of a conversation. Of an echo the end that asks has a port, its identifier, and the other has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proto {
    Tcp,
    Udp,
    Echo,
    /// An ICMP error, of which no end has a port.
    Error,
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Talk {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) proto: Proto,
}

/// Both ends, whoever speaks.
pub(crate) type Pair = (End, End, Proto);

impl Talk {
    pub(crate) fn error(from: IpAddr, to: IpAddr) -> Self {
        let end = |ip| End { ip, port: None };
        Self { from: end(from), to: end(to), proto: Proto::Error }
    }

    /// As a later fragment tells.
    pub(crate) fn without_ports(self) -> Self {
        let end = |end: End| End { port: None, ..end };
        Self { from: end(self.from), to: end(self.to), ..self }
    }

    pub(crate) fn back(self) -> Self {
        Self { from: self.to, to: self.from, ..self }
    }

    pub(crate) fn pair(self) -> Pair {
        (self.from.min(self.to), self.from.max(self.to), self.proto)
    }

    /// Whether it asks rather than answers, if it is an echo.
    pub(crate) fn asks(self) -> bool {
        self.from.port.is_some()
    }
}

/// By which way something has come to the node's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// It was made here.
    Itself,
    Wire,
    Tunnel,
    Pod(Slot),
}

/// Where a packet is when the programs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A pod sends it.
    Pod(Slot),
    /// The stack sends it to a pod.
    Stack { into: Slot, by: By },
    /// A node sends it through the tunnel.
    Tunnel { node: IpAddr, vni: u32 },
    /// It arrives at the native device.
    Wire,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) place: Place,
    pub(crate) talk: Talk,
    /// Of TCP; of an error the ICMP type.
    pub(crate) flags: u8,
    /// Of an error: the packet that it quotes.
    pub(crate) about: Option<Talk>,
    pub(crate) part: Part,
    /// The frontend that its client has asked, as the node says that has sent it on.
    pub(crate) tells: Option<End>,
    /// The backend to which that node has sent it, in a packet of its own.
    pub(crate) inside: Option<IpAddr>,
}

/// Which part of a datagram it is, by the datagram's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    First(u32),
    /// It names no ports.
    Later(u32),
}

impl Message {
    pub(crate) fn words(&self) -> Words {
        Words { talk: self.talk, about: self.about, tells: self.tells, inside: None }
    }
}

/// What a packet says: from whom to whom, of an error about which packet, which frontend was asked, and to which backend it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) talk: Talk,
    pub(crate) about: Option<Talk>,
    pub(crate) tells: Option<End>,
    /// Where the packet goes in which this one is.
    pub(crate) inside: Option<IpAddr>,
}

/// Where packets of one direction go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Stack,
    Pod(Slot),
    Node(IpAddr),
    Wire,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Dropped(DropReason),
    /// None of the datapath's business.
    Ignored,
    /// The stack has it, with these ends.
    Left(Words),
    /// Sent that way, with these ends; to a node under that identity.
    Sent(Way, Words, Option<u32>),
}

impl Outcome {
    /// As it is when what the packet tells has stayed in it.
    pub(crate) fn still_telling(self, tells: Option<End>) -> Self {
        match self {
            Self::Left(words) => Self::Left(Words { tells, ..words }),
            Self::Sent(way, words, identity) => Self::Sent(way, Words { tells, ..words }, identity),
            other => other,
        }
    }

    pub(crate) fn without_ports(self) -> Self {
        let strip = |words: Words| Words { talk: words.talk.without_ports(), ..words };
        match self {
            Self::Left(words) => Self::Left(strip(words)),
            Self::Sent(way, words, identity) => Self::Sent(way, strip(words), identity),
            other => other,
        }
    }
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Opening,
    Established,
    Closed,
}

/// Who answers the client of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Whoever was asked.
    Asked,
    /// The backend's node, which is told.
    There,
    /// This node, as that frontend, for which another was asked.
    Here(End),
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) opening: Talk,
    /// What its replies have for ends when they reach this node, if they do.
    pub(crate) answer: Talk,
    pub(crate) answers: Answers,
    pub(crate) identities: (u32, u32),
    /// Ids of the pods at its ends, or 0.
    pub(crate) pods: (u16, u16),
    pub(crate) ways: (Way, Way),
    pub(crate) packets: (u64, u64),
    pub(crate) stage: Stage,
    pub(crate) refused: bool,
    /// Nothing has moved that its decision was made from.
    pub(crate) stands: bool,
}
