// SPDX-License-Identifier: Apache-2.0
//! One flow, and the state of its connection.

use std::net::IpAddr;

use super::super::talk::{Answers, By, End, Message, Outcome, Place, Proto, Record, Slot, Stage, Talk, Way, Words};
use super::service::Served;
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

/// Among whose latest a flow is.
pub(crate) fn ring(opener: &Party, served: Option<Served>, target: &Party) -> Option<Ring> {
    match (opener.pod, served, target.pod) {
        (Some((slot, _)), _, _) => Some(Ring::OpenedBy(slot)),
        (None, Some(served), _) => Some(Ring::Service(served.service)),
        (None, None, target) => target.map(|(slot, _)| Ring::OpenedTo(slot)),
    }
}

/// What one end has said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    packets: u64,
    greeted: bool,
    acknowledged: bool,
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
    /// By whom, if a service was spoken to.
    pub(crate) served: Option<Served>,
    pub(crate) answers: Answers,
    /// Who answers directly gets what its client has sent, in a packet.
    pub(crate) inside: bool,
    pub(crate) opener: Party,
    /// The pod whose packets the stack forwards, if it is one.
    pub(crate) forwarded: Option<IpAddr>,
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

    /// What has these ends is of the reply direction. Answers that do not come by here are known by the frontend's.
    pub(crate) fn replies(&self) -> Talk {
        if self.answers == Answers::Asked { self.answer() } else { self.opening.back() }
    }

    pub(crate) fn is_translated(&self) -> bool {
        self.replies() != self.opening.back()
    }

    /// What its client has asked.
    pub(crate) fn frontend(&self) -> End {
        if let Answers::Here(frontend) = self.answers { frontend } else { self.opening.to }
    }

    /// Among whose latest it is.
    pub(crate) fn ring(&self) -> Option<Ring> {
        ring(&self.opener, self.served, &self.target)
    }

    /// Whether the flow stands on what that address is.
    pub(crate) fn is_about(&self, ip: IpAddr) -> bool {
        let client = self.opener.pod.is_none() && self.opening.from.ip == ip;
        let forwarded = self.served.is_none() && self.forwarded == Some(ip);
        client || forwarded || ((self.opener.pod.is_some() || self.served.is_some()) && self.to.ip == ip)
    }

    /// Whether the packet may be one of the flow, by the frontend that it tells of, or the backend that it was sent to.
    pub(crate) fn is_told_of(&self, message: &Message, reply: bool) -> bool {
        if let Some(backend) = message.inside {
            return !reply && self.served.is_some() && self.answers == Answers::Asked && self.to.ip == backend;
        }
        message.tells.is_none_or(|frontend| self.answers == Answers::Here(frontend))
    }

    /// Whether it keeps its ends from others.
    pub(crate) fn keeps_place(&self) -> bool {
        self.stage() != Stage::Opening && !self.has_ended()
    }

    /// Whether its connection stands, as far as one can tell who sees one half of it.
    pub(crate) fn goes_on_as_far_as_is_seen(&self) -> bool {
        let forth = &self.said[0];
        let is_half = self.answers == Answers::There && self.opening.proto == Proto::Tcp;
        is_half && forth.acknowledged && !forth.reset && !forth.finished
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

    /// Whether its opener goes on with it, under ends that the other end knows as well.
    pub(crate) fn is_held(&self) -> bool {
        !self.is_translated() && !self.said[0].finished && !self.said[0].reset
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
            && self.is_told_of(message, reply)
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
        said.acknowledged |= message.flags & ACK != 0;
        // Who opens the connection has not said goodbye, and who goes on has not reset it.
        said.finished = (said.finished && message.flags & SYN == 0) || message.flags & FIN != 0;
        said.reset = message.flags & RST != 0;
        self.confirmed |= !reply && answered && message.flags & (SYN | ACK | RST) == ACK;
        let news = message.flags & (SYN | FIN | RST) & !self.told;
        self.told |= news;
        news
    }

    /// The frontend that a packet names when it goes on: of a connection the first segment does, and one that was decided about.
    fn tells(&self, message: &Message, reply: bool, decided: bool) -> Option<End> {
        let may = self.answers == Answers::There && !reply && !self.inside;
        let must = message.talk.proto != Proto::Tcp || message.flags & SYN != 0;
        (may && (must || decided)).then_some(self.opening.to)
    }

    /// What becomes of a packet of the flow, and whether it has been decided about.
    pub(crate) fn carry(&self, message: &Message, reply: bool, decided: bool) -> Outcome {
        let inside = (self.inside && self.answers == Answers::There && !reply).then_some(self.to.ip);
        let talk = if reply { Talk { from: self.frontend(), ..self.opening.back() } } else { self.answer().back() };
        let words = match message.about {
            // As its client has sent it.
            _ if inside.is_some() => Words { inside, ..message.words() },
            None => Words { talk, about: None, tells: self.tells(message, reply, decided), inside },
            Some(about) => {
                // Somebody on the way speaks under their own address.
                let from = if message.talk.from.ip == about.to.ip { talk.from.ip } else { message.talk.from.ip };
                Words { talk: Talk::error(from, talk.to.ip), about: Some(talk.back()), tells: None, inside }
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
            answers: self.answers,
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
