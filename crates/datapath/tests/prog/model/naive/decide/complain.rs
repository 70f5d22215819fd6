// SPDX-License-Identifier: Apache-2.0
//! ICMP errors: each is about a packet, and belongs to that packet's flow.

use abi::DropReason;

use super::super::super::talk::{By, Message, Outcome, Place, Talk, Way};
use super::super::Model;
use super::super::flow::{Flow, Party, Source};
use super::turn::Turn;
use super::{Stop, dropped};

impl Model {
    /// What an error about that packet is decided as: a packet of the flow that it answers, or the first of one that nobody remembers.
    pub(super) fn complaint(&self, message: &Message, about: Talk, identity: u32) -> Result<Turn, Stop> {
        let turn = Turn {
            opening: message.talk,
            reply: false,
            opener: Party { pod: None, identity },
            known: None,
            replaced: None,
            remembered: false,
            clash: false,
        };
        let found = self.find(about.back()).flow.filter(|_| about.from.ip == message.talk.to.ip);
        if let Some((at, reply)) = found
            && let flow = &self.flows[at]
            && may_speak(message, about, flow, reply)
        {
            let opener = self.opener(flow)?;
            return Ok(Turn { opening: flow.opening, reply, opener, known: Some(flow.clone()), ..turn });
        }
        match message.place {
            Place::Pod(_) => dropped(DropReason::CtUnknownL4Protocol),
            Place::Wire if self.slot_of(message.talk.to.ip).is_none() => Err(Outcome::Ignored.into()),
            _ => Ok(turn),
        }
    }
}

/// Whether the error comes from where the packet went.
fn may_speak(message: &Message, about: Talk, flow: &Flow, reply: bool) -> bool {
    let source = flow.sources[usize::from(reply)];
    let speaker = if reply { flow.target } else { flow.opener };
    match message.place {
        Place::Pod(slot) => message.talk.from.ip == about.to.ip && source == Source::Pod(slot),
        Place::Tunnel { node, .. } => source == Source::Tunnel && flow.ways[usize::from(!reply)] == Way::Node(node),
        Place::Wire => speaker.pod.is_none() && source == Source::Wire,
        Place::Stack { by, .. } => by == By::Itself || source == Source::Stack(by),
    }
}
