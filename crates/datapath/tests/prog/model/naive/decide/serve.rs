// SPDX-License-Identifier: Apache-2.0
//! Whom a service leads a flow to.

use std::net::IpAddr;

use abi::DropReason;
use abi::lb::flags;

use super::super::super::talk::{Answers, End, Message, Outcome, Place, Proto, Stage};
use super::super::flow::Flow;
use super::super::service::{Served, Service};
use super::super::{Hint, Model, is_first};
use super::turn::Turn;
use super::{Stop, dropped};

/// What its service makes of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    pub(super) to: End,
    pub(super) served: Option<Served>,
    /// The frontend that another node was asked for.
    pub(super) asked_there: Option<End>,
    /// Bits of `abi::lb::flags`; what nobody serves any more keeps to this node.
    pub(super) flags: u32,
}

impl Model {
    /// Who the opener's words are for: a service's are for one of its backends.
    pub(super) fn lead(&mut self, message: &Message, turn: &Turn, hint: Hint<'_>) -> Result<Lead, Stop> {
        let asked = turn.opening.to;
        let plain = Lead { to: asked, served: None, asked_there: None, flags: 0 };
        let outside = turn.opener.pod.is_none();
        if outside && !self.is_from_outside(message, turn) {
            return Ok(plain);
        }
        if let Some(frontend) = asked_there(message, turn) {
            return self.accept(message, turn, frontend);
        }
        let service = self.services.get(&(asked, turn.opening.proto)).cloned();
        if let Some(service) = &service {
            admit(service, turn)?;
        }
        let flags = service.as_ref().map_or(flags::LOCAL_ONLY, |service| service.flags);
        if let Some((known, served)) = self.kept(message, turn) {
            return Ok(Lead { to: known.to, served: Some(served), flags, ..plain });
        }
        if let Some(backend) = message.inside {
            return Ok(Lead { flags, ..told(service.as_ref(), backend, plain)? });
        }
        let Some(service) = service else {
            return if self.is_unserved(asked.ip) { dropped(DropReason::ServiceBackendNotFound) } else { Ok(plain) };
        };
        if service.backends.is_empty() {
            return dropped(DropReason::ServiceBackendNotFound);
        }
        if turn.reply && turn.known.is_none() {
            return dropped(DropReason::StaleOrUnroutableIp);
        }
        let (backend, to) = self.choose(&service, turn, hint)?;
        Ok(Lead { to, served: Some(Served { service: service.id, backend }), flags, ..plain })
    }

    /// Whether somebody outside opens the flow, or has opened it, to a service.
    fn is_from_outside(&self, message: &Message, turn: &Turn) -> bool {
        match &turn.known {
            Some(known) => known.served.is_some() && known.opener.pod.is_none(),
            None => self.exposes && message.place == Place::Wire && !turn.reply,
        }
    }

    /// What another node says that it was asked for, if it can be true.
    fn accept(&self, message: &Message, turn: &Turn, frontend: End) -> Result<Lead, Stop> {
        let service = self.services.get(&(frontend, turn.opening.proto));
        if let Some(service) = service {
            admit(service, turn)?;
        }
        let lead = Lead { to: turn.opening.to, served: None, asked_there: Some(frontend), flags: 0 };
        if let Some((_, served)) = self.kept(message, turn) {
            return Ok(Lead { served: Some(served), ..lead });
        }
        let service = service.filter(|service| service.flags & (SERVED | flags::LOCAL_ONLY) == SERVED);
        let backend = service.and_then(|service| {
            let (backend, _) = *service.backends.iter().find(|(_, end)| *end == lead.to)?;
            Some(Served { service: service.id, backend })
        });
        match backend {
            Some(served) => Ok(Lead { served: Some(served), ..lead }),
            None => dropped(DropReason::StaleOrUnroutableIp),
        }
    }

    /// The flow that goes on where it went, and what that is.
    fn kept<'a>(&self, message: &Message, turn: &'a Turn) -> Option<(&'a Flow, Served)> {
        let known = turn.known.as_ref()?;
        let served = known.served?;
        let stays = turn.reply || message.about.is_some() || self.stays(message, known, served);
        stays.then_some((known, served))
    }

    /// Which backend it is that the programs have chosen.
    fn choose(&mut self, service: &Service, turn: &Turn, hint: Hint<'_>) -> Result<(u32, End), Stop> {
        let seen = hint.forward(turn.opening).map(|talk| talk.to);
        let chosen = service.backends.iter().find(|(_, end)| Some(*end) == seen);
        let (id, end) = *chosen.ok_or_else(|| Stop::Wrong(format!("{seen:?} is none of {:?}", service.backends)))?;
        let client = turn.opening.from;
        if service.affinity {
            let before = self.affinities.insert((service.id, client.ip), id);
            let wanted = before.filter(|before| service.has(*before));
            if wanted.is_some_and(|wanted| wanted != id) {
                return Err(Stop::Wrong(format!("{id} of {service:?}, but {client:?} belongs to {wanted:?}")));
            }
        } else {
            // One connection finds one backend, as often as it is asked about.
            let backends = service.backends.iter().map(|(id, _)| *id).collect();
            let before = *self.choices.entry((turn.opening, service.id, backends)).or_insert(id);
            if before != id {
                return Err(Stop::Wrong(format!("{id} of {service:?}, but {client:?} has had {before}")));
            }
        }
        Ok((id, end))
    }

    /// Whether who answers served when they were asked, and does so no more.
    pub(super) fn is_left(&self, turn: &Turn) -> bool {
        let known = turn.known.as_ref().filter(|known| turn.reply && known.opening.proto != Proto::Tcp);
        known.is_some_and(|known| known.served.is_some_and(|served| !self.serves(known, served)))
    }

    /// Whether there still are the service of a flow, and its backend.
    fn serves(&self, flow: &Flow, served: Served) -> bool {
        let exists = |service: &Service| service.backends.contains(&(served.backend, flow.to));
        self.services.get(&(flow.frontend(), flow.opening.proto)).is_some_and(|service| {
            // Of services that say nothing of members, that of whichever counts.
            exists(service) || (!service.is(flags::MEMBERS) && self.services.values().any(exists))
        })
    }

    /// Whether a flow stays with its backend.
    fn stays(&self, message: &Message, flow: &Flow, served: Served) -> bool {
        let goes_on = message.talk.proto == Proto::Tcp && !is_first(message.flags);
        let stands = flow.stage() == Stage::Established || flow.goes_on_as_far_as_is_seen();
        self.serves(flow, served) || (goes_on && stands)
    }

    /// Whether a flow to no pod of this node goes through it. `Err` when it does not.
    pub(super) fn pass_through(&self, message: &Message, turn: &Turn, lead: &Lead) -> Result<(), Stop> {
        let here = lead.to.ip == self.node;
        if lead.served.is_none() || (lead.asked_there.is_some() && !here) {
            let wire = message.place == Place::Wire;
            return Err(if wire { Outcome::Ignored } else { Outcome::Left(message.words()) }.into());
        }
        let known = turn.known.as_ref();
        let goes_on = known.is_some_and(|known| known.masqueraded || known.answers != Answers::Asked);
        if lead.flags & flags::LOCAL_ONLY != 0 && !here && !goes_on {
            return dropped(DropReason::ServiceBackendNotFound);
        }
        Ok(())
    }
}

/// What other nodes send here.
const SERVED: u32 = flags::DSR | flags::EXPOSED;

/// The backend to which another node has sent a packet, if it can be true.
fn told(service: Option<&Service>, backend: IpAddr, plain: Lead) -> Result<Lead, Stop> {
    let served = service.filter(|service| service.flags & (SERVED | flags::LOCAL_ONLY) == SERVED);
    let found = served.and_then(|service| {
        let (id, end) = *service.backends.iter().find(|(_, end)| end.ip == backend)?;
        Some(Lead { to: end, served: Some(Served { service: service.id, backend: id }), ..plain })
    });
    found.map_or_else(|| dropped(DropReason::StaleOrUnroutableIp), Ok)
}

/// The frontend for which another node was asked.
fn asked_there(message: &Message, turn: &Turn) -> Option<End> {
    let known = turn.known.as_ref().map(|known| known.answers);
    match (message.tells, known) {
        (Some(frontend), _) | (None, Some(Answers::Here(frontend))) => Some(frontend),
        _ => None,
    }
}

fn admit(service: &Service, turn: &Turn) -> Result<(), Stop> {
    if turn.opener.pod.is_none() && !service.is(flags::EXPOSED) {
        return dropped(DropReason::IsAClusterip);
    }
    if service.admits(turn.opening.from.ip) { Ok(()) } else { dropped(DropReason::DeniedByLbSrcRangeCheck) }
}
