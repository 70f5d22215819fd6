// SPDX-License-Identifier: Apache-2.0
//! One flow, and the state of its connection.

use std::net::IpAddr;

use super::super::talk::{By, End, Message, Outcome, Place, Proto, Record, Slot, Stage, Talk, Way, Words};
use super::{Pod, Ring, is_told_as};
use crate::packet::{ACK, FIN, RST, SYN};

/// Where packets of one direction come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Pod(Slot),
    Stack(By),
    Tunnel,
    Wire,
}

impl Source {
    pub(crate) fn of(place: Place) -> Self {
        match place {
            Place::Pod(slot) => Self::Pod(slot),
            Place::Stack { by, .. } => Self::Stack(by),
            Place::Tunnel { .. } => Self::Tunnel,
            Place::Wire => Self::Wire,
        }
    }

    /// Where answers to what goes that way come from.
    pub(crate) fn answering(way: Way) -> Self {
        match way {
            Way::Pod(slot) => Self::Pod(slot),
            Way::Node(_) => Self::Tunnel,
            Way::Wire => Self::Wire,
            Way::Stack => Self::Stack(By::Itself),
        }
    }
}

/// Who is at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) pod: Option<(Slot, Pod)>,
    pub(crate) identity: u32,
}

impl Party {
    pub(crate) fn id(&self) -> u16 {
        self.pod.map_or(0, |(_, pod)| pod.id)
    }
}

/// What one end has said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    packets: u64,
    greeted: bool,
    finished: bool,
    reset: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) opening: Talk,
    /// The ends of the forward direction after translation.
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) masqueraded: bool,
    /// The backend, if a service was spoken to.
    pub(crate) backend: Option<u32>,
    pub(crate) opener: Party,
    pub(crate) target: Party,
    /// Of the forward direction, and of replies.
    pub(crate) ways: [Way; 2],
    pub(crate) sources: [Source; 2],
    pub(crate) refused: bool,
    pub(crate) stands: bool,
    pub(crate) said: [Said; 2],
    /// The opener has gone on after it was answered.
    pub(crate) confirmed: bool,
    /// Flags of which somebody has been told.
    pub(crate) told: u8,
}

impl Flow {
    pub(crate) fn answer(&self) -> Talk {
        Talk { from: self.to, to: self.from, ..self.opening }
    }

    pub(crate) fn is_translated(&self) -> bool {
        self.answer() != self.opening.back()
    }

    /// Among whose latest it is.
    pub(crate) fn ring(&self) -> Option<Ring> {
        let opened = self.opener.pod.map(|(slot, _)| (slot, true));
        opened.or(self.target.pod.map(|(slot, _)| (slot, false)))
    }

    /// Whose address it is that the flow stands on.
    pub(crate) fn peer(&self) -> IpAddr {
        if self.opener.pod.is_some() { self.to.ip } else { self.opening.from.ip }
    }

    pub(crate) fn stage(&self) -> Stage {
        let [forth, back] = &self.said;
        if self.opening.proto != Proto::Tcp {
            return if back.packets > 0 { Stage::Established } else { Stage::Opening };
        }
        if forth.reset || back.reset || (forth.finished && back.finished) {
            Stage::Closed
        } else if self.confirmed {
            Stage::Established
        } else {
            Stage::Opening
        }
    }

    /// Whether the conversation is over for certain: a reset may be anybody's.
    pub(crate) fn has_ended(&self) -> bool {
        let farewell = self.said.iter().all(|said| said.finished);
        self.stage() == Stage::Closed && (farewell || !self.confirmed)
    }

    /// Whether the packet is the first of another connection on the same ends.
    pub(crate) fn is_over_by(&self, message: &Message, reply: bool) -> bool {
        message.talk.proto == Proto::Tcp
            && message.flags & (SYN | ACK | FIN | RST) == SYN
            && (reply || self.has_ended() || (self.said[0].finished && !self.confirmed))
    }

    /// Whether the packet is treated as those before it, and nobody is asked.
    pub(crate) fn is_replayed(&self, message: &Message, reply: bool) -> bool {
        let as_before = match message.place {
            Place::Tunnel { node, vni } => {
                let sender = if reply { self.target } else { self.opener };
                is_told_as(sender.identity, vni) && self.ways[usize::from(!reply)] == Way::Node(node)
            }
            _ => true,
        };
        as_before
            && self.stands
            && !self.refused
            && self.sources[usize::from(reply)] == Source::of(message.place)
            && !self.is_over_by(message, reply)
    }

    /// Follows the connection. Returns the flags of which nobody has been told yet.
    pub(crate) fn hear(&mut self, message: &Message, reply: bool) -> u8 {
        let back = self.said[1];
        // Who was only refused has been told nothing that they could acknowledge.
        let answered = back.packets > 0 && (back.greeted || !back.reset);
        let said = &mut self.said[usize::from(reply)];
        said.packets += 1;
        if message.talk.proto != Proto::Tcp {
            return 0;
        }
        said.greeted |= message.flags & SYN != 0;
        // Who opens the connection has not said goodbye, and who goes on has not reset it.
        said.finished = (said.finished && message.flags & SYN == 0) || message.flags & FIN != 0;
        said.reset = message.flags & RST != 0;
        self.confirmed |= !reply && answered && message.flags & (SYN | ACK | RST) == ACK;
        let news = message.flags & (SYN | FIN | RST) & !self.told;
        self.told |= news;
        news
    }

    /// What becomes of a packet of the flow.
    pub(crate) fn carry(&self, message: &Message, reply: bool) -> Outcome {
        let talk = if reply { self.opening.back() } else { self.answer().back() };
        let words = match message.about {
            None => Words { talk, about: None },
            Some(about) => {
                // Somebody on the way speaks under their own address.
                let from = if message.talk.from.ip == about.to.ip { talk.from.ip } else { message.talk.from.ip };
                Words { talk: Talk::error(from, talk.to.ip), about: Some(talk.back()) }
            }
        };
        // An error that belongs to no flow is carried as it is.
        let words = if self.opening.proto == Proto::Error { message.words() } else { words };
        let sender = if reply { self.target } else { self.opener };
        match self.ways[usize::from(reply)] {
            _ if matches!(message.place, Place::Stack { .. }) => Outcome::Left(words),
            Way::Stack => Outcome::Left(words),
            way @ Way::Node(_) => Outcome::Sent(way, words, Some(sender.identity)),
            way => Outcome::Sent(way, words, None),
        }
    }

    pub(crate) fn record(&self) -> Record {
        let [forth, back] = self.ways;
        Record {
            opening: self.opening,
            answer: self.answer(),
            identities: (self.opener.identity, self.target.identity),
            pods: (self.opener.id(), self.target.id()),
            ways: (forth, back),
            packets: (self.said[0].packets, self.said[1].packets),
            stage: self.stage(),
            refused: self.refused,
            stands: self.stands,
        }
    }
}
