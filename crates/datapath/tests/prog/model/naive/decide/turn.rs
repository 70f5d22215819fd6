// SPDX-License-Identifier: Apache-2.0
//! Which way round a flow is.

use abi::{DropReason, identity};

use super::super::super::talk::{By, Message, Place, Proto, Talk};
use super::super::flow::{Flow, Party, Source};
use super::super::table::Found;
use super::super::{Model, is_first};
use super::{Stop, dropped};
use crate::packet::SYN;

/// Which way round the flow is, and what is remembered of it.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) opening: Talk,
    pub(super) reply: bool,
    pub(super) opener: Party,
    /// The flow that goes on.
    pub(super) known: Option<Flow>,
    /// The flow that this one takes the place of.
    pub(super) replaced: Option<Flow>,
    pub(super) remembered: bool,
    pub(super) clash: bool,
}

impl Model {
    /// A segment from the middle of a connection that its client has had with a frontend here: another node has taken that over, and does not
    /// tell any more.
    pub(super) fn recall(&self, message: &Message, found: Found) -> Message {
        let midway = message.talk.proto == Proto::Tcp && !is_first(message.flags) && message.place == Place::Wire;
        if self.returns && found.clash && midway && message.tells.is_none() && message.inside.is_none() {
            return Message { tells: self.asked_here(message.talk).map(|opening| opening.to), ..*message };
        }
        *message
    }

    pub(super) fn turn(&self, message: &Message, found: Found, identity: u32) -> Result<Turn, Stop> {
        let pod = match message.place {
            Place::Pod(slot) => self.pods[slot].map(|pod| (slot, pod)),
            _ => None,
        };
        let first = Turn {
            opening: message.talk,
            reply: false,
            opener: Party { pod, identity },
            known: None,
            replaced: None,
            // An answer to nothing opens nothing.
            remembered: message.talk.proto != Proto::Echo || message.talk.asks(),
            clash: found.clash && (pod.is_some() || message.place == Place::Wire),
        };
        let Some((at, reply)) = found.flow else {
            if found.occupied {
                return Ok(Turn { remembered: false, ..first });
            }
            return Ok(self.midway(message, &first, found.clash).unwrap_or(first));
        };
        let flow = self.flows[at].clone();
        // Where another flow has its ends, nothing can begin: it is for the flow that it seems to answer.
        let opens = flow.is_over_by(message, reply) && !found.occupied;
        if opens && reply && flow.is_held() {
            // It may be let through, but makes nobody's connection its own.
            return Ok(Turn { remembered: false, ..first });
        }
        if opens || !flow.is_told_of(message, reply) {
            if !opens && flow.keeps_place() {
                return dropped(DropReason::NoMappingForNatMasquerade);
            }
            return Ok(Turn { replaced: Some(flow), ..first });
        }
        // What the stack forwards in a roundabout way does not draw the flow onto that way.
        let strays = matches!(message.place, Place::Stack { .. })
            && !matches!(flow.sources[usize::from(reply)], Source::Stack(_));
        let opener = if reply { self.opener(&flow)? } else { first.opener };
        Ok(Turn { opening: flow.opening, reply, opener, known: Some(flow), remembered: !strays, ..first })
    }

    /// Who opened a flow of which a reply has come.
    pub(super) fn opener(&self, flow: &Flow) -> Result<Party, Stop> {
        let src = flow.opening.from.ip;
        if let Some((slot, then)) = flow.opener.pod {
            return match self.pods[slot] {
                Some(pod) if pod.id == then.id && pod.ip == src => {
                    Ok(Party { pod: Some((slot, pod)), identity: pod.identity })
                }
                _ => dropped(DropReason::StaleOrUnroutableIp),
            };
        }
        let identity = match flow.sources[0] {
            Source::Stack(By::Pod(slot)) if let Some(pod) = self.pods[slot] => pod.identity,
            Source::Stack(_) if self.is_local(src) => flow.opener.identity,
            Source::Tunnel if self.identity(src) == identity::WORLD => flow.opener.identity,
            _ => self.identity(src),
        };
        Ok(Party { pod: None, identity })
    }

    /// A segment from the middle of a connection that is not known, when it looks like a reply and may be taken for one.
    fn midway(&self, message: &Message, first: &Turn, clash: bool) -> Option<Turn> {
        let talk = message.talk;
        let is_reply = message.flags & SYN != 0 || talk.from.port < talk.to.port;
        // Whoever speaks to a service is no server, whatever its port.
        let asks = message.tells.is_some()
            || message.inside.is_some()
            || (message.place == Place::Wire && self.is_exposed(talk));
        if talk.proto != Proto::Tcp || is_first(message.flags) || !is_reply || asks {
            return None;
        }
        let opener = self.party(talk.to.ip);
        let trusted = first.opener.pod.is_none_or(|(_, pod)| !pod.enforced.egress)
            && opener.pod.is_none_or(|(_, pod)| !pod.enforced.ingress);
        let clash = clash && opener.pod.is_some();
        trusted.then(|| Turn { opening: talk.back(), reply: true, opener, clash, ..first.clone() })
    }
}
